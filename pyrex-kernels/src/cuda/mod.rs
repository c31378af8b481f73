//! Kernels on a device: [`Stream`] is its queue.
//!
//! Below it stands cudarc, which declares the driver's functions; whose stream it is, a tensor library's say, is not known here.

mod blas;
mod captures;
mod graph;
mod memory;
mod modules;
mod plan;

use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Queue};
use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};
use modules::Modules;
use std::ffi::c_void;
use std::sync::Arc;

pub use blas::Blas;
pub use captures::between_captures;
pub use graph::Graph;
pub use memory::{Pinned, Upload, free_bytes, set_release_threshold};

/// A stream of a device as a queue. Launches return at once; what they read and write must outlive them, as [`crate::Buffer::new`]
/// says.
#[derive(Clone, Debug)]
pub struct Stream {
    stream: Arc<CudaStream>,
    modules: Arc<Modules>,
    multiprocessors: u32,
}

impl Stream {
    /// `stream` as a queue, with kernels that are loaded when they are first launched.
    ///
    /// # Errors
    /// `Driver` if the device does not say how many multiprocessors it has.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let number =
            stream.context().attribute(attribute).map_err(|error| failed("multiprocessors", error))?;
        let multiprocessors = u32::try_from(number).ok().filter(|number| *number > 0);
        Ok(Self {
            modules: Arc::new(Modules::new(Arc::clone(stream.context()))),
            multiprocessors: multiprocessors
                .ok_or_else(|| Error::Driver(format!("the device has {number} multiprocessors")))?,
            stream,
        })
    }

    /// Another stream of the same context, as a queue that shares this one's loaded kernels.
    ///
    /// # Errors
    /// `Arguments` if it is of another context.
    pub fn beside(&self, stream: Arc<CudaStream>) -> Result<Self> {
        if stream.context() != self.stream.context() {
            return Err(Error::arguments("the streams are of two contexts"));
        }
        Ok(Self { stream, ..self.clone() })
    }

    /// The stream itself.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Waits until all that was launched has run.
    ///
    /// # Errors
    /// `Driver` if a kernel failed.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| failed("synchronize", error))
    }
}

impl Queue for Stream {
    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let failed = |error| failed(launch.kernel(), error);
        self.stream.context().bind_to_thread().map_err(failed)?;
        let function = self.modules.function(launch)?;
        let mut values: Vec<u64> = launch.arguments().iter().map(|argument| bits(*argument)).collect();
        let mut parameters: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        // SAFETY: the function's module is loaded as long as `self.modules` lives, and only launchers make launches: the parameters
        // are as the kernel declares them, and point to buffers whose maker promised that they outlive the launch.
        unsafe {
            result::launch_kernel(
                function,
                launch.grid().into(),
                launch.block().into(),
                launch.shared_bytes(),
                self.stream.cu_stream(),
                &mut parameters,
            )
        }
        .map_err(failed)
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn max_shared_bytes(&self) -> u32 {
        max_shared_bytes(self.stream.context())
    }
}

/// What a block of the device may have of shared memory, if it asks; what every device gives if this one does not say.
pub fn max_shared_bytes(context: &CudaContext) -> u32 {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    context.attribute(attribute).ok().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(48 << 10)
}

/// An argument where a kernel of a little-endian host finds it: in the low bytes.
fn bits(argument: Argument) -> u64 {
    match argument {
        Argument::Pointer(address) => address,
        Argument::U32(number) => u64::from(number),
        Argument::F32(number) => u64::from(number.to_bits()),
    }
}

/// What the driver said while `what` was done.
fn failed(what: &str, error: DriverError) -> Error {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory(format!("{what}: {error}")),
        _ => Error::Driver(format!("{what}: {error}")),
    }
}
