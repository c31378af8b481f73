//! Elementwise: gated tanh-GELU, soft cap, scaling.

use crate::error::Result;
use candle_core::{DType, Tensor};

/// `gelu_tanh(gate) · up`, each rounded to the dtype of `gate`. Same shapes.
///
/// # Errors
/// `Internal` if the shapes differ.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let gelu = gate.to_dtype(DType::F32)?.gelu()?.to_dtype(gate.dtype())?;
    Ok((gelu * up)?)
}

/// `cap · tanh(x / cap)` with a rounding after each of the three operations.
///
/// # Errors
/// `Internal` if the device fails.
pub fn soft_cap(x: &Tensor, cap: f32) -> Result<Tensor> {
    let f32 = |t: &Tensor| t.to_dtype(DType::F32);
    let y = (f32(x)? / f64::from(cap))?.to_dtype(x.dtype())?;
    let y = f32(&y)?.tanh()?.to_dtype(x.dtype())?;
    Ok((f32(&y)? * f64::from(cap))?.to_dtype(x.dtype())?)
}

/// `x · factor` in f32, rounded once: the factor itself is not rounded to the dtype of `x`.
///
/// # Errors
/// `Internal` if the device fails.
pub fn scale(x: &Tensor, factor: f32) -> Result<Tensor> {
    Ok((x.to_dtype(DType::F32)? * f64::from(factor))?.to_dtype(x.dtype())?)
}
