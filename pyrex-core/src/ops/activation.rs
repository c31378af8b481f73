//! Elementwise: gated tanh-GELU, soft cap, scaling.

use super::has_kernel;
use super::host::{TASK_LEN, host_view};
use super::simd::Level;
use super::simd::float::Float;
use super::simd::math::{Function, Map, Multiply};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

/// Elements worked on at once: they stay in the first-level cache between the steps.
const CHUNK_LEN: usize = 1024;

/// `gelu_tanh(gate) · up`, each rounded to the dtype of `gate`. Same shapes.
///
/// # Errors
/// `Internal` if the shapes or dtypes differ.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gelu_mul_at(Level::Widest, gate, up)
}

/// [`gelu_mul`] with the instructions of `level`.
///
/// # Errors
/// As [`gelu_mul`].
pub fn gelu_mul_at(level: Level, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() || gate.dtype() != up.dtype() {
        return Err(Error::internal(format_args!("gelu of {:?} times {:?}", gate.shape(), up.shape())));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(gate) {
        return super::cuda::rows::gelu_mul(&lane, gate, up);
    }
    let program = [Step::Map(Function::Gelu), Step::Round, Step::MultiplyByOther];
    match gate.dtype() {
        _ if !has_kernel(gate) => gelu_mul_reference(gate, up),
        DType::F32 => run::<f32>(level, gate, Some(up), &program),
        _ => run::<bf16>(level, gate, Some(up), &program),
    }
}

/// The definition of [`gelu_mul`], in tensor operations.
///
/// # Errors
/// As [`gelu_mul`].
pub fn gelu_mul_reference(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let gelu = gate.to_dtype(DType::F32)?.gelu()?.to_dtype(gate.dtype())?;
    Ok((gelu * up)?)
}

/// `cap · tanh(x / cap)` with a rounding after each of the three operations.
///
/// # Errors
/// `Internal` if the device fails.
pub fn soft_cap(x: &Tensor, cap: f32) -> Result<Tensor> {
    soft_cap_at(Level::Widest, x, cap)
}

/// [`soft_cap`] with the instructions of `level`.
///
/// # Errors
/// As [`soft_cap`].
pub fn soft_cap_at(level: Level, x: &Tensor, cap: f32) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::soft_cap(&lane, x, cap);
    }
    let program = [
        Step::Map(Function::DivideBy(cap)),
        Step::Round,
        Step::Map(Function::Tanh),
        Step::Round,
        Step::Map(Function::Scale(cap)),
    ];
    match x.dtype() {
        _ if !has_kernel(x) => soft_cap_reference(x, cap),
        DType::F32 => run::<f32>(level, x, None, &program),
        _ => run::<bf16>(level, x, None, &program),
    }
}

/// The definition of [`soft_cap`], in tensor operations.
///
/// # Errors
/// As [`soft_cap`].
pub fn soft_cap_reference(x: &Tensor, cap: f32) -> Result<Tensor> {
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
    scale_at(Level::Widest, x, factor)
}

/// [`scale`] with the instructions of `level`.
///
/// # Errors
/// As [`scale`].
pub fn scale_at(level: Level, x: &Tensor, factor: f32) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::scale(&lane, x, factor);
    }
    let program = [Step::Map(Function::Scale(factor))];
    match x.dtype() {
        _ if !has_kernel(x) => scale_reference(x, factor),
        DType::F32 => run::<f32>(level, x, None, &program),
        _ => run::<bf16>(level, x, None, &program),
    }
}

/// The definition of [`scale`], in tensor operations.
///
/// # Errors
/// As [`scale`].
pub fn scale_reference(x: &Tensor, factor: f32) -> Result<Tensor> {
    Ok((x.to_dtype(DType::F32)? * f64::from(factor))?.to_dtype(x.dtype())?)
}

/// One step over a chunk in f32.
#[derive(Clone, Copy)]
enum Step {
    Map(Function),
    /// Rounds to the dtype of the tensors, where the reference stores an intermediate result.
    Round,
    MultiplyByOther,
}

/// Runs `program` over `x`, chunk by chunk; `other` has the same shape and dtype.
fn run<T: Float>(level: Level, x: &Tensor, other: Option<&Tensor>, program: &[Step]) -> Result<Tensor> {
    let (x, other) = (x.contiguous()?, other.unwrap_or(x).contiguous()?);
    let (x_view, other_view) = (host_view(&x)?, host_view(&other)?);
    let (source, other) = (x_view.slice::<T>()?, other_view.slice::<T>()?);
    let mut target = vec![T::zero(); source.len()];
    let parts =
        target.par_chunks_mut(TASK_LEN).zip(source.par_chunks(TASK_LEN)).zip(other.par_chunks(TASK_LEN));
    parts.for_each(|((target, source), other)| {
        let (mut chunk, mut factor) = ([0.0; CHUNK_LEN], [0.0; CHUNK_LEN]);
        let chunks = target.chunks_mut(CHUNK_LEN).zip(source.chunks(CHUNK_LEN)).zip(other.chunks(CHUNK_LEN));
        for ((target, source), other) in chunks {
            let (chunk, factor) = (&mut chunk[..source.len()], &mut factor[..source.len()]);
            T::widen(level, source, chunk);
            for step in program {
                match *step {
                    Step::Map(function) => level.run(Map(function, chunk)),
                    Step::Round => T::round(level, chunk),
                    Step::MultiplyByOther => {
                        T::widen(level, other, factor);
                        level.run(Multiply(chunk, factor));
                    }
                }
            }
            T::narrow(level, chunk, target);
        }
    });
    Ok(Tensor::from_vec(target, x.shape(), &Device::Cpu)?)
}
