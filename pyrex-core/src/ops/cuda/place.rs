//! [`Place`]: where weights are on a device, and what multiplies by them there.

use super::{Lane, view};
use crate::error::{Error, Result};
use crate::ops::Matrix;
use candle_core::{CudaDevice, DType, Tensor};
use pyrex_kernels::cuda::{Blas, Pinned, Stream, Upload};
use pyrex_kernels::{Buffer, Element};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes that are on their way to the device at a time, twice: all that loading takes of the host, whatever it loads.
const UPLOAD_BYTES: usize = 32 << 20;

/// A device for weights.
pub(crate) struct Place {
    device: CudaDevice,
    blas: Blas,
    upload: Mutex<Upload>,
}

impl Place {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let stream = Stream::new(device.cuda_stream())?;
        let upload = Upload::new(device.cuda_stream(), UPLOAD_BYTES)?;
        Ok(Self { device: device.clone(), blas: Blas::new(&stream)?, upload: Mutex::new(upload) })
    }

    pub(crate) fn blas(&self) -> &Blas {
        &self.blas
    }

    /// A host matrix in the device's memory, `[rows, cols]`.
    pub(crate) fn upload(&self, matrix: &Matrix) -> Result<Tensor> {
        let lane = Lane { device: self.device.clone() };
        let tensor = lane.unwritten((matrix.rows(), matrix.cols()), matrix.dtype())?;
        let mut upload = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        upload.copy(matrix.host_bytes()?, view(&tensor)?.buffer())?;
        Ok(tensor)
    }

    /// A copy of a host matrix that the device reads where it is.
    pub(crate) fn pin(&self, matrix: &Matrix) -> Result<Pinned> {
        let bytes = matrix.host_bytes()?;
        let mut pinned = Pinned::new(self.device.cuda_stream().context(), bytes.len())?;
        pinned.copy_from_slice(bytes);
        Ok(pinned)
    }
}

/// The elements in `range` of the bytes of `memory`.
pub(crate) fn pinned_buffer<'a>(
    memory: &'a Pinned,
    range: &Range<usize>,
    dtype: DType,
) -> Result<Buffer<'a>> {
    let element = match dtype {
        DType::F32 => Element::F32,
        DType::BF16 => Element::Bf16,
        DType::F16 => Element::F16,
        other => return Err(Error::internal(format_args!("a pinned matrix of {other:?}"))),
    };
    let address = memory.device_address() + range.start as u64;
    // SAFETY: the memory is borrowed, and is freed only once its context has done all that was launched.
    Ok(unsafe { Buffer::new(address, range.len() / element.size(), element) })
}
