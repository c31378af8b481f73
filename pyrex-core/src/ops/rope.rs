//! Rotary position embedding: standard, proportional and 2-D are one rotation with different tables.

use crate::error::Result;
use candle_core::{DType, Tensor};

/// Cosines and sines of every angle, `[T, D / 2]` each, in the dtype of the activations.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
    /// How many equal segments of a head are rotated separately: 1 for text, 2 for patches.
    pub axes: usize,
}

impl RopeTable {
    /// Angles `positions[t, a] · inv_freq[i]`, computed in f32 and cast to `dtype`.
    ///
    /// `positions`: `[T]` or `[T, axes]` u32; `inv_freq`: `[D / 2 / axes]` f32. A frequency of 0 leaves its pair as it is.
    ///
    /// # Errors
    /// `Internal` if the device fails.
    pub fn new(positions: &Tensor, inv_freq: &Tensor, dtype: DType) -> Result<Self> {
        let tokens = positions.dim(0)?;
        let axes = if positions.rank() == 2 { positions.dim(1)? } else { 1 };
        let positions = positions.to_dtype(DType::F32)?.reshape((tokens, axes, 1))?;
        let angles = positions.broadcast_mul(&inv_freq.reshape((1, 1, ()))?)?.reshape((tokens, ()))?;
        Ok(Self { cos: angles.cos()?.to_dtype(dtype)?, sin: angles.sin()?.to_dtype(dtype)?, axes })
    }
}

/// Rotates each head. `x`: `[T, H, D]`; inside each of `axes` segments element `j` pairs with the one half a segment on.
/// In the dtype of `x` with its three roundings: both products and their sum.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    reference(x, table)
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`rope`].
pub fn reference(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (tokens, heads, width) = x.dims3()?;
    let half = width / 2 / table.axes;
    let x = x.reshape((tokens, heads, table.axes, 2, half))?;
    let (a, b) = (x.narrow(3, 0, 1)?, x.narrow(3, 1, 1)?);
    let cos = table.cos.reshape((tokens, 1, table.axes, 1, half))?;
    let sin = table.sin.reshape((tokens, 1, table.axes, 1, half))?;
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Ok(Tensor::cat(&[first, second], 3)?.reshape((tokens, heads, width))?)
}
