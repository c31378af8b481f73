//! Average over tiles of patches.

use super::has_kernel;
use super::host::{float_view, host_view};
use super::simd::Level;
use super::simd::float::Float;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;

/// Averages the patches of each soft token, then scales: `scale · r(Σ x · (1 / tile_len))`, where `r` rounds to the dtype of `x`.
///
/// `x`: `[P, C]`; `slots`: `[P]` u32, the soft token of each patch; every soft token has `tile_len` patches.
/// Returns `[num_slots, C]` in f32: scaled values can pass f16's 65504, so the caller casts after standardizing.
///
/// # Errors
/// `Internal` if a slot is not below `num_slots`.
pub fn average_pool(
    x: &Tensor,
    slots: &Tensor,
    num_slots: usize,
    tile_len: usize,
    scale: f32,
) -> Result<Tensor> {
    let (patches, width) = x.dims2()?;
    if slots.dims() != [patches] || tile_len == 0 {
        return Err(Error::internal(format_args!(
            "average_pool of {:?} with slots {:?} and tiles of {tile_len}",
            x.shape(),
            slots.shape()
        )));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::average_pool(&lane, x, slots, num_slots, (tile_len, scale));
    }
    if !has_kernel(x) {
        return reference(x, slots, num_slots, tile_len, scale);
    }
    let (x_contiguous, slots) = (x.contiguous()?, slots.contiguous()?);
    let (view, slots_view) = (float_view(Level::Widest, &x_contiguous)?, host_view(&slots)?);
    let share = (1.0 / tile_len as f64) as f32;
    let mut sums = vec![0.0; num_slots * width];
    for (row, &slot) in view.as_slice()?.chunks_exact(width.max(1)).zip(slots_view.slice::<u32>()?) {
        let slot = slot as usize;
        let Some(sums) = sums.get_mut(slot * width..(slot + 1) * width) else {
            return Err(Error::internal(format_args!("patch goes to soft token {slot} of {num_slots}")));
        };
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * share);
    }
    if x.dtype() == DType::BF16 {
        bf16::round(Level::Widest, &mut sums);
    }
    sums.iter_mut().for_each(|sum| *sum *= scale);
    Ok(Tensor::from_vec(sums, (num_slots, width), &Device::Cpu)?)
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`average_pool`].
pub fn reference(
    x: &Tensor,
    slots: &Tensor,
    num_slots: usize,
    tile_len: usize,
    scale: f32,
) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let share = (x.to_dtype(DType::F32)? / tile_len as f64)?;
    let sums = Tensor::zeros((num_slots, width), DType::F32, x.device())?.index_add(slots, &share, 0)?;
    Ok((sums.to_dtype(x.dtype())?.to_dtype(DType::F32)? * f64::from(scale))?)
}
