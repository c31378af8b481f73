//! Opening a device, and what it has left.

use crate::error::{Error, Result};
use candle_core::{CudaDevice, Device};
use pyrex_kernels::cuda::{self, set_release_threshold};

/// Opens the device with this ordinal: one stream, which can be recorded, and a pool that keeps freed memory for the next step.
///
/// # Errors
/// `Device` if there is none, or the driver is too old.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let Device::Cuda(cuda) = &device else { return Err(Error::internal("a CUDA device is none")) };
    // SAFETY: every tensor of the device is used on its one stream alone, so that work on it is in order without events.
    unsafe { cuda.disable_event_tracking() };
    set_release_threshold(cuda.cuda_stream().context())?;
    Ok(device)
}

/// Memory of the device that nobody has taken.
///
/// # Errors
/// `Device` if it does not say.
pub(crate) fn free_bytes(device: &CudaDevice) -> Result<u64> {
    let (free, _) = cuda::free_bytes(device.cuda_stream().context())?;
    Ok(free)
}
