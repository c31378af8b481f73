//! Tensors of the CPU as slices, without a copy.

use crate::error::{Error, Result};
use candle_core::{CpuStorage, Storage, Tensor, WithDType};
use std::ops::{Deref, Range};

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
        return Err(Error::internal(format_args!("expected a contiguous tensor, found strides {:?}", layout.stride())));
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

    /// The elements as f32, if that is what they are; otherwise the whole storage must be matched by its dtype.
    pub fn storage(&self) -> Option<(&CpuStorage, Range<usize>)> {
        match &*self.storage {
            Storage::Cpu(storage) => Some((storage, self.range.clone())),
            _ => None,
        }
    }
}
