//! Average over tiles of patches.

use crate::error::Result;
use candle_core::{DType, Tensor};

/// Averages the patches of each soft token, then scales: `scale · r(Σ x / tile_len)`, where `r` rounds to the dtype of `x`.
///
/// `x`: `[P, C]`; `slots`: `[P]` u32, the soft token of each patch; every soft token has `tile_len` patches.
/// Returns `[num_slots, C]` in f32: scaled values can pass f16's 65504, so the caller casts after standardizing.
///
/// # Errors
/// `Internal` if a slot is not below `num_slots`.
pub fn average_pool(x: &Tensor, slots: &Tensor, num_slots: usize, tile_len: usize, scale: f32) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let share = (x.to_dtype(DType::F32)? / tile_len as f64)?;
    let sums = Tensor::zeros((num_slots, width), DType::F32, x.device())?.index_add(slots, &share, 0)?;
    Ok((sums.to_dtype(x.dtype())?.to_dtype(DType::F32)? * f64::from(scale))?)
}
