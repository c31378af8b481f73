//! Opening a device, and what it has left.

use crate::error::{Error, Result};
use candle_core::{CudaDevice, Device};
use pyrex_kernels::cuda::{self, set_release_threshold};

/// Opens the device with this ordinal: one stream, which can be recorded, and a pool that keeps freed memory for the next step.
///
/// # Errors
/// `Device` if there is none, the driver is too old, or the host has none of the libraries that docs/cuda.md names.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    // The context is waited for when it gets its first stream.
    let device = cuda::between_captures(|| Device::new_cuda_with_stream(ordinal))
        .map_err(|error| unopened(ordinal, error.into()))?;
    let Device::Cuda(cuda) = &device else { return Err(Error::internal("a CUDA device is none")) };
    // SAFETY: every tensor of the device is used on its one stream alone, so that work on it is in order without events.
    unsafe { cuda.disable_event_tracking() };
    set_release_threshold(cuda.cuda_stream().context())?;
    Ok(device)
}

/// The error of a device that could not be opened, with what the host seems to lack: libraries are looked for only then, and one
/// that is not there answers every call with its own first status.
fn unopened(ordinal: usize, error: Error) -> Error {
    const LIBRARIES: [(&str, &str); 3] = [
        ("CUDA_ERROR_NO_DEVICE", "no GPU, or no libcuda.so.1 of its driver"),
        ("CUBLAS_STATUS", "no libcublas.so.13 that can be used"),
        ("CURAND_STATUS", "no libcurand.so.10 that can be used"),
    ];
    let lacking = LIBRARIES.into_iter().find(|(status, _)| error.message().contains(status));
    match lacking {
        Some((_, lacking)) => error.context(format_args!("device cuda:{ordinal}: {lacking}")),
        None => error.context(format_args!("device cuda:{ordinal}")),
    }
}

/// Memory of the device that nobody has taken.
///
/// # Errors
/// `Device` if it does not say.
pub(crate) fn free_bytes(device: &CudaDevice) -> Result<u64> {
    let (free, _) = cuda::free_bytes(device.cuda_stream().context())?;
    Ok(free)
}
