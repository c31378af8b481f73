//! Tensors of the CPU as slices, without a copy.

use super::simd::Level;
use super::simd::float::Float;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Storage, Tensor, WithDType};
use half::bf16;
use rayon::prelude::*;
use std::ops::{Deref, Range};

/// Elements one task of an elementwise op works on: long against a fork and a join.
pub(crate) const TASK_LEN: usize = 1 << 14;

/// A contiguous CPU tensor, borrowed for as long as the view lives.
#[derive(Debug)]
pub struct HostView<G> {
    storage: G,
    range: Range<usize>,
}

/// Borrows the elements of `tensor` in row-major order.
///
/// # Errors
/// `Internal` if the tensor is not contiguous or not on the CPU.
pub fn host_view(tensor: &Tensor) -> Result<HostView<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::internal(format_args!(
            "expected a contiguous tensor, found strides {:?}",
            layout.stride()
        )));
    };
    match &*storage {
        Storage::Cpu(_) => Ok(HostView { storage, range: start..end }),
        _ => Err(Error::internal("expected a tensor on the CPU")),
    }
}

impl<G: Deref<Target = Storage>> HostView<G> {
    /// The elements.
    ///
    /// # Errors
    /// `Internal` if the tensor holds another type.
    pub fn slice<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&T::cpu_storage_as_slice(storage)?[self.range.clone()]),
            _ => Err(Error::internal("expected a tensor on the CPU")),
        }
    }
}

/// The elements of a tensor as f32: borrowed if they are, widened if they are bf16.
#[derive(Debug)]
pub enum FloatView<G> {
    /// f32 already.
    Borrowed(HostView<G>),
    /// A widened copy.
    Widened(Vec<f32>),
}

/// The elements of `tensor` as f32 in row-major order.
///
/// # Errors
/// `Internal` if the tensor is not contiguous, not on the CPU, or neither f32 nor bf16.
pub fn float_view(level: Level, tensor: &Tensor) -> Result<FloatView<impl Deref<Target = Storage> + '_>> {
    let view = host_view(tensor)?;
    if tensor.dtype() == DType::F32 {
        return Ok(FloatView::Borrowed(view));
    }
    let source = view.slice::<bf16>()?;
    let mut target = vec![0.0; source.len()];
    target
        .par_chunks_mut(TASK_LEN)
        .zip(source.par_chunks(TASK_LEN))
        .for_each(|(target, source)| bf16::widen(level, source, target));
    Ok(FloatView::Widened(target))
}

impl<G: Deref<Target = Storage>> FloatView<G> {
    /// The elements.
    ///
    /// # Errors
    /// `Internal` if the storage changed its type meanwhile.
    pub fn as_slice(&self) -> Result<&[f32]> {
        match self {
            Self::Borrowed(view) => view.slice(),
            Self::Widened(values) => Ok(values),
        }
    }
}

/// A CPU tensor of `values` rounded to `dtype`, f32 or bf16.
///
/// # Errors
/// `Internal` if the shape does not fit.
pub fn tensor_of(level: Level, values: Vec<f32>, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    if dtype == DType::F32 {
        return Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?);
    }
    let mut target = vec![bf16::ZERO; values.len()];
    target
        .par_chunks_mut(TASK_LEN)
        .zip(values.par_chunks(TASK_LEN))
        .for_each(|(target, source)| bf16::narrow(level, source, target));
    Ok(Tensor::from_vec(target, shape.into(), &Device::Cpu)?)
}
