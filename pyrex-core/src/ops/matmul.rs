//! `x · Wᵀ`.

use super::Matrix;
use crate::error::Result;
use candle_core::Tensor;

/// Bounds of a clipped linear: what its input and its output are clamped to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Lowest and highest input.
    pub input: (f32, f32),
    /// Lowest and highest output.
    pub output: (f32, f32),
}

/// `x · Wᵀ` in f32, rounded once to the dtype of `x`. `x`: `[T, C]`, `weight`: `[N, C]`, returns `[T, N]`.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn matmul(x: &Tensor, weight: &Matrix) -> Result<Tensor> {
    reference(x, weight)
}

/// `clamp(clamp(x, input) · Wᵀ, output)`.
///
/// # Errors
/// As [`matmul`].
pub fn clipped_matmul(x: &Tensor, weight: &Matrix, clip: &Clip) -> Result<Tensor> {
    let x = x.clamp(clip.input.0, clip.input.1)?;
    Ok(reference(&x, weight)?.clamp(clip.output.0, clip.output.1)?)
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`matmul`].
pub fn reference(x: &Tensor, weight: &Matrix) -> Result<Tensor> {
    let w = weight.to_tensor(x.device())?.to_dtype(candle_core::DType::F32)?;
    Ok(x.to_dtype(candle_core::DType::F32)?.matmul(&w.t()?)?.to_dtype(x.dtype())?)
}
