//! [`Recording`]: work of a device, recorded once and done again at the cost of one launch.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// What was recorded. It reads and writes the very tensors that it was recorded with, wherever they were.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: super::cuda::recording::Graph,
    #[cfg(not(feature = "cuda"))]
    never: std::convert::Infallible,
}

/// Whether work of `device` can be recorded.
pub fn can_record(device: &Device) -> bool {
    cfg!(feature = "cuda") && matches!(device, Device::Cuda(_))
}

impl Recording {
    /// Does `work`, and once more without running it, to record what it launches then: that must be the same, and must not read
    /// anything back or wait. What runs for the first time loads kernels, which cannot be recorded. The memory that the first
    /// run takes is the recording's.
    ///
    /// # Errors
    /// Whatever `work` says; `Device` if it did what cannot be recorded, `Unsupported` on a device that records nothing. The device
    /// can be used as before.
    pub fn new(device: &Device, work: impl FnMut() -> Result<()>) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            return Ok(Self { graph: super::cuda::recording::record(device, work)? });
        }
        let _ = work;
        Err(Error::unsupported(format_args!("recording on {:?}", device.location())))
    }

    /// Does it again, behind all that was launched before.
    ///
    /// # Errors
    /// `Device` if it cannot be launched.
    pub fn replay(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        return self.graph.replay();
        #[cfg(not(feature = "cuda"))]
        match self.never {}
    }
}

/// Writes `values` to the elements of `target`, u32, from `offset` on, behind all that was launched before.
///
/// # Errors
/// `Internal` if `target` is not contiguous, or has not so many elements.
pub fn overwrite(target: &Tensor, offset: usize, values: &[u32]) -> Result<()> {
    if offset + values.len() > target.elem_count() {
        return Err(Error::internal(format_args!(
            "{} values from {offset} on in a tensor of {:?}",
            values.len(),
            target.shape()
        )));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(target) {
        return super::cuda::recording::overwrite(&lane, target, offset, values);
    }
    let source = Tensor::from_slice(values, values.len(), target.device())?;
    Ok(target.flatten_all()?.slice_set(&source, 0, offset)?)
}

/// Copies `source` over the first rows of `target`, in place. Same widths and dtypes.
///
/// # Errors
/// `Internal` if it does not fit.
pub fn copy_into(target: &Tensor, source: &Tensor) -> Result<()> {
    Ok(target.slice_set(&source.contiguous()?, 0, 0)?)
}
