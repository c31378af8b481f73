//! From tensors to kernels: the one place that knows both the tensor library's device memory and `pyrex-kernels`.
//!
//! An op of this folder has the contract of its namesake in `ops/`. All work goes to the one stream of its device, in order, so
//! what a kernel reads or writes may be dropped as soon as it was launched: freeing is work on that stream too.

#![allow(unsafe_code)]

pub(super) mod attention;
mod device;
mod exit;
mod memory;
mod place;
pub(super) mod products;
pub(super) mod recording;
pub(super) mod rows;
pub(super) mod sampling;
mod timer;

pub(super) use device::{free_bytes, open};
pub(super) use exit::wait_at_exit;
pub(super) use place::{Place, pinned_buffer};
pub(super) use timer::{Interval, Timer};

use crate::error::{Error, Result};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute};
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DriverError, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor};
use half::{bf16, f16};
use pyrex_kernels::cuda::max_shared_bytes;
use pyrex_kernels::{Argument, Buffer, Element, Launch, Queue};
use std::ops::Range;

/// Shared memory that every kernel may have; for more it must be told.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// The stream of a device, where kernels are launched.
pub(crate) struct Lane {
    device: CudaDevice,
}

/// The lane of the device that `x` lies on, if it is one with kernels for what `x` holds.
pub(crate) fn lane(x: &Tensor) -> Option<Lane> {
    match (x.device(), x.dtype()) {
        (Device::Cuda(device), DType::F32 | DType::BF16 | DType::U32 | DType::U8) => {
            Some(Lane { device: device.clone() })
        }
        _ => None,
    }
}

impl Queue for Lane {
    fn launch(&self, launch: &Launch<'_>) -> pyrex_kernels::Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            pyrex_kernels::Error::Driver(format!("{}: {error}", launch.kernel()))
        };
        let driver = |error: DriverError| failed(&error);
        let module = launch.module();
        let function = self.device.get_or_load_custom_func(launch.kernel(), module.name, module.ptx);
        let function = function.map_err(|error| failed(&error))?;
        if launch.shared_bytes() > PLAIN_SHARED_BYTES {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, launch.shared_bytes() as i32).map_err(driver)?;
        }
        let mut builder = function.builder();
        for argument in launch.arguments() {
            match argument {
                Argument::Pointer(address) => builder.arg(address),
                Argument::U32(number) => builder.arg(number),
                Argument::F32(number) => builder.arg(number),
            };
        }
        let config = LaunchConfig {
            grid_dim: launch.grid().into(),
            block_dim: launch.block().into(),
            shared_mem_bytes: launch.shared_bytes(),
        };
        // SAFETY: only launchers make launches, after their checks; their buffers are views of tensors, whose memory is freed
        // on this stream and so after the kernel has run.
        unsafe { builder.launch(config) }.map(drop).map_err(driver)
    }

    fn multiprocessors(&self) -> u32 {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // The device was opened, so it answers; one multiprocessor is right for whatever does not.
        self.device.cuda_stream().context().attribute(attribute).map_or(1, |number| number.max(1) as u32)
    }

    fn max_shared_bytes(&self) -> u32 {
        max_shared_bytes(self.device.cuda_stream().context())
    }
}

impl Lane {
    /// A tensor that holds whatever was in its memory: for a kernel that writes all of it.
    fn unwritten(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        memory::taken(&shape, dtype, || self.allocated(&shape, dtype))
    }

    fn allocated(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let storage = match dtype {
            DType::F32 => self.storage::<f32>(shape)?,
            DType::BF16 => self.storage::<bf16>(shape)?,
            DType::F16 => self.storage::<f16>(shape)?,
            DType::U32 => self.storage::<u32>(shape)?,
            other => return Err(Error::internal(format_args!("a kernel that writes {other:?}"))),
        };
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false))
    }

    fn storage<T: CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr>(
        &self,
        shape: &Shape,
    ) -> Result<CudaStorage> {
        // SAFETY: the elements are numbers of which every bit pattern is one, and a kernel writes them before anybody reads them.
        let slice = unsafe { self.device.alloc::<T>(shape.elem_count().max(1)) }?;
        Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
    }
}

/// Memory of a tensor on a device, kept for as long as the view lives.
pub(super) struct View {
    _kept: Tensor,
    address: u64,
    len: usize,
    element: Element,
}

impl View {
    pub(super) fn buffer(&self) -> Buffer<'_> {
        // SAFETY: the storage is kept, and freed on the one stream of its device, on which all launches are.
        unsafe { Buffer::new(self.address, self.len, self.element) }
    }
}

/// The memory of a contiguous tensor.
pub(super) fn view(tensor: &Tensor) -> Result<View> {
    let Some((start, end)) = tensor.layout().contiguous_offsets() else {
        return Err(Error::internal(format_args!(
            "expected a contiguous tensor, found strides {:?}",
            tensor.stride()
        )));
    };
    view_of(tensor, start..end)
}

/// The memory of `range` of the elements that `tensor` is a part of.
fn view_of(tensor: &Tensor, range: Range<usize>) -> Result<View> {
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cuda(cuda) = &*storage else { return Err(Error::internal("expected a tensor on a device")) };
    let (base, element) = match cuda.dtype() {
        DType::F32 => (base::<f32>(cuda)?, Element::F32),
        DType::BF16 => (base::<bf16>(cuda)?, Element::Bf16),
        DType::F16 => (base::<f16>(cuda)?, Element::F16),
        DType::U32 => (base::<u32>(cuda)?, Element::U32),
        DType::U8 => (base::<u8>(cuda)?, Element::U8),
        other => return Err(Error::internal(format_args!("a kernel that reads {other:?}"))),
    };
    let address = base + (range.start * element.size()) as u64;
    Ok(View { _kept: tensor.clone(), address, len: range.len(), element })
}

/// Where the memory begins. Nobody tracks its uses by events: there is one stream.
fn base<T: CudaDType>(storage: &CudaStorage) -> Result<u64> {
    let slice = storage.as_cuda_slice::<T>()?;
    let stream = storage.device().cuda_stream();
    let (address, _untracked) = slice.device_ptr(&stream);
    Ok(address)
}

impl From<pyrex_kernels::Error> for Error {
    fn from(error: pyrex_kernels::Error) -> Self {
        match error {
            pyrex_kernels::Error::Arguments(message) => Self::internal(message),
            pyrex_kernels::Error::OutOfMemory(message) => Self::out_of_memory(message),
            pyrex_kernels::Error::Driver(message) => Self::device(message),
        }
    }
}
