//! Root mean square norm over the last axis.

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
    match x.dtype() {
        _ if x.elem_count() == 0 => Ok(x.clone()),
        _ if !has_kernel(x) => reference(x, weight, eps),
        DType::F32 => run::<f32>(level, x, weight, eps),
        _ => run::<bf16>(level, x, weight, eps),
    }
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
