//! Root mean square norm over the last axis.

use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// `x · (mean(x²) + eps)^-½ · weight` over the last axis, in f32, rounded once. `weight`: `[C]` f32 as stored, without any offset.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    reference(x, weight, eps)
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`rms_norm`].
pub fn reference(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let f = x.to_dtype(DType::F32)?;
    let mean = (f.sqr()?.mean_keepdim(D::Minus1)? + eps)?;
    let mut n = f.broadcast_mul(&mean.powf(-0.5)?)?;
    if let Some(weight) = weight {
        n = n.broadcast_mul(weight)?;
    }
    Ok(n.to_dtype(x.dtype())?)
}
