//! The operations every backend honours. The fork between CPU and CUDA is here and nowhere higher.
//!
//! Each op is a file: its contract, the CPU loop, and a slow `reference` made of plain tensor operations that also
//! serves devices without a kernel of their own. Activations are f32 or bf16; every op computes in f32
//! and rounds once to the dtype of its input. Weights stay in the dtype of the file and are widened inside the kernel.
//! Work is spread over the rayon pool the caller runs in.

pub mod activation;
pub mod attention;
#[cfg(feature = "cuda")]
mod cuda;
pub mod gather;
pub mod heads;
pub mod host;
pub(crate) mod leaving;
pub mod matmul;
pub mod matrix;
pub mod per_layer;
pub mod pool;
pub mod recording;
pub mod rms_norm;
pub mod rope;
pub mod sampling;
pub mod simd;
pub mod threads;
pub mod timer;

pub use matrix::Matrix;

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Opens the CUDA device with this ordinal.
///
/// # Errors
/// `Unsupported` if this build has no CUDA, `Device` if there is no such device.
pub fn cuda_device(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return cuda::open(ordinal);
    #[cfg(not(feature = "cuda"))]
    Err(Error::unsupported(format_args!(
        "device cuda:{ordinal}: this build has no CUDA support, build with the feature `cuda`"
    )))
}

/// Memory that could be taken now: a device's own; on the CPU what the machine, or the process's control group, has left.
///
/// # Errors
/// `Unsupported` for a device that does not say.
pub fn free_bytes(device: &Device) -> Result<u64> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::free_bytes(device);
    }
    if !device.is_cpu() {
        return Err(Error::unsupported("the free memory of a device: give the cache's size in bytes"));
    }
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    // What a group has free counts its page cache as taken, which gives way: of its limit only what is resident is.
    let limited =
        system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    Ok(system.available_memory().min(limited))
}

/// Whether the op has a kernel for `x`, or must fall back to tensor operations.
pub(crate) fn has_kernel(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && matches!(x.dtype(), DType::F32 | DType::BF16)
}
