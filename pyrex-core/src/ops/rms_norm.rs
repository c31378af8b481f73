//! Root mean square norm over the last axis.

use super::activation::scale;
use super::has_kernel;
use super::host::{TASK_LEN, float_view, host_view};
use super::simd::Level;
use super::simd::float::Float;
use super::simd::math::{Normalize, SumOfSquares};
use crate::error::{Error, Result};
use candle_core::{D, DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

/// `x · (mean(x²) + eps)^-½ · weight` over the last axis, in f32, rounded once. `weight`: `[C]` f32 as stored, without any offset.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    rms_norm_at(Level::Widest, x, weight, eps)
}

/// [`rms_norm`] with the instructions of `level`.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_at(level: Level, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if let Some(weight) = weight.filter(|weight| weight.dims() != [width]) {
        return Err(Error::internal(format_args!(
            "rms_norm of {:?} with weights {:?}",
            x.shape(),
            weight.shape()
        )));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::rms_norm(&lane, x, Norm { weight, eps });
    }
    match x.dtype() {
        _ if x.elem_count() == 0 => Ok(x.clone()),
        _ if !has_kernel(x) => reference(x, weight, eps),
        DType::F32 => run::<f32>(level, x, weight, eps),
        _ => run::<bf16>(level, x, weight, eps),
    }
}

/// The scale and the epsilon of a norm, for the ops that have one inside.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[C]` f32 as stored; `None` does not scale.
    pub weight: Option<&'a Tensor>,
    /// Added to the mean of the squares.
    pub eps: f64,
}

/// The end of a branch: what it computed goes back to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm<'a> {
    /// `[T, C]`: the stream as it was before the branch.
    pub residual: &'a Tensor,
    /// Of what the branch computed.
    pub norm: Norm<'a>,
    /// What the sum is multiplied by.
    pub scale: f32,
    /// The norm that the next branch begins with.
    pub next: Option<Norm<'a>>,
}

/// `s = (residual + norm(x)) · scale` and, with a `next`, `next(s)`: every operation rounded as if it ran alone.
/// `x`: `[T, C]`, both results too.
///
/// # Errors
/// `Internal` if the shapes differ.
pub fn add_norm(x: &Tensor, end: &AddNorm<'_>) -> Result<(Tensor, Option<Tensor>)> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::add_norm(&lane, x, end);
    }
    add_norm_reference(x, end)
}

/// The definition of [`add_norm`]: one op after another.
///
/// # Errors
/// As [`add_norm`].
pub fn add_norm_reference(x: &Tensor, end: &AddNorm<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let mut sum = (end.residual + rms_norm(x, end.norm.weight, end.norm.eps)?)?;
    if end.scale != 1.0 {
        sum = scale(&sum, end.scale)?;
    }
    let next = end.next.map(|next| rms_norm(&sum, next.weight, next.eps)).transpose()?;
    Ok((sum, next))
}

fn run<T: Float>(level: Level, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let x = x.contiguous()?;
    let weight = weight.map(|weight| weight.contiguous()).transpose()?;
    let weight = weight.as_ref().map(|weight| float_view(level, weight)).transpose()?;
    let weight = weight.as_ref().map(|weight| weight.as_slice()).transpose()?;
    let view = host_view(&x)?;
    let source = view.slice::<T>()?;
    let mut target = vec![T::zero(); source.len()];
    let task_len = TASK_LEN.next_multiple_of(width);
    target.par_chunks_mut(task_len).zip(source.par_chunks(task_len)).for_each(|(target, source)| {
        let mut row = vec![0.0; width];
        for (target, source) in target.chunks_exact_mut(width).zip(source.chunks_exact(width)) {
            T::widen(level, source, &mut row);
            let mean = level.run(SumOfSquares(&row)) / width as f32 + eps as f32;
            level.run(Normalize { x: &mut row, factor: 1.0 / mean.sqrt(), weight });
            T::narrow(level, &row, target);
        }
    });
    Ok(Tensor::from_vec(target, x.shape(), &Device::Cpu)?)
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
        n = n.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    }
    Ok(n.to_dtype(x.dtype())?)
}
