//! Modules, and kernels as a program launches them: with the limits that a device has.

use crate::driver::{Driver, Handle, refuse};
use crate::status::{Outcome, Status};
use crate::work::{Launch, Work};
use pyrex_emulator::{LaunchShape, Module};
use std::sync::Arc;

/// Bytes of shared memory that a block may have without asking.
pub(crate) const SHARED_BYTES: u32 = 48 << 10;
/// The most that it may ask for.
pub(crate) const SHARED_BYTES_OPT_IN: u32 = 227 << 10;
/// Bytes of shared memory of a multiprocessor, and what of them each block costs beside its own.
pub(crate) const SHARED_BYTES_OF_MULTIPROCESSOR: u32 = 228 << 10;
pub(crate) const SHARED_BYTES_RESERVED: u32 = 1 << 10;
/// The most threads of a block, and along each direction.
pub(crate) const THREADS: u32 = 1024;
pub(crate) const BLOCK: [u32; 3] = [1024, 1024, 64];
/// The most blocks along each direction.
pub(crate) const GRID: [u32; 3] = [i32::MAX as u32, u16::MAX as u32, u16::MAX as u32];

/// A kernel of a module.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    module: Arc<Module>,
    of: Handle,
    kernel: Arc<str>,
    parameter_sizes: Vec<usize>,
    /// Bytes of shared memory that it declares, and those beyond that a launch may ask for.
    pub(crate) shared_bytes: u32,
    pub(crate) dynamic_shared_bytes: u32,
}

impl Function {
    /// How many bytes each of its parameters has.
    pub(crate) fn parameter_sizes(&self) -> &[usize] {
        &self.parameter_sizes
    }

    /// How many blocks of `threads` threads a multiprocessor has room for; registers are not known, and do not count.
    pub(crate) fn blocks_per_multiprocessor(&self, threads: u32, dynamic_bytes: u32) -> u32 {
        let bytes = self.shared_bytes + dynamic_bytes + SHARED_BYTES_RESERVED;
        (2048 / threads.next_multiple_of(32).max(32)).min(SHARED_BYTES_OF_MULTIPROCESSOR / bytes).min(32)
    }
}

impl Driver {
    /// Loads PTX.
    ///
    /// # Errors
    /// `INVALID_PTX` if the emulator does not know it, `STREAM_CAPTURE_UNSUPPORTED` during a capture.
    pub(crate) fn load_module(&mut self, ptx: &str) -> Outcome<Handle> {
        self.refuse_while_capturing("a module is loaded")?;
        let module = match Module::parse(ptx) {
            Ok(module) => Arc::new(module),
            Err(fault) => return refuse(Status::INVALID_PTX, fault),
        };
        let handle = self.next_handle();
        self.modules.insert(handle, module);
        Ok(handle)
    }

    /// Forgets a module and its functions.
    ///
    /// # Errors
    /// `INVALID_HANDLE`; `STREAM_CAPTURE_UNSUPPORTED` during a capture; `ILLEGAL_STATE` if a graph can still be launched that has
    /// kernels of it, which a device would not say.
    pub(crate) fn unload_module(&mut self, module: Handle) -> Outcome {
        self.refuse_while_capturing("a module is unloaded")?;
        let loaded = self.modules.get(&module).ok_or(Status::INVALID_HANDLE)?;
        if self.executables.values().any(|executable| executable.has_kernels_of(loaded)) {
            return refuse(
                Status::ILLEGAL_STATE,
                "a module is unloaded before a graph that has kernels of it",
            );
        }
        self.modules.remove(&module);
        self.functions.retain(|_, function| function.of != module);
        Ok(())
    }

    /// The kernel `name`: the same each time that it is asked for.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_PTX` if the emulator does not know something in it.
    pub(crate) fn function(&mut self, of: Handle, name: &str) -> Outcome<Handle> {
        let module = Arc::clone(self.modules.get(&of).ok_or(Status::INVALID_HANDLE)?);
        let known =
            self.functions.iter().find(|(_, function)| function.of == of && &*function.kernel == name);
        if let Some((handle, _)) = known {
            return Ok(*handle);
        }
        let info = module.kernels().into_iter().find(|info| info.name == name).ok_or(Status::NOT_FOUND)?;
        let shared_bytes = match module.shared_bytes(name) {
            Ok(bytes) => bytes,
            Err(fault) => return refuse(Status::INVALID_PTX, fault),
        };
        let dynamic_shared_bytes = SHARED_BYTES.saturating_sub(shared_bytes);
        let (kernel, parameter_sizes) = (Arc::from(name), info.parameter_sizes);
        let function = Function { module, of, kernel, parameter_sizes, shared_bytes, dynamic_shared_bytes };
        let handle = self.next_handle();
        self.functions.insert(handle, function);
        Ok(handle)
    }

    /// Lets launches of a kernel ask for as much shared memory.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no block may have so much.
    pub(crate) fn allow_shared(&mut self, function: Handle, bytes: u32) -> Outcome {
        let function = self.functions.get_mut(&function).ok_or(Status::INVALID_HANDLE)?;
        if bytes.checked_add(function.shared_bytes).is_none_or(|bytes| bytes > SHARED_BYTES_OPT_IN) {
            let why = format_args!("{} asks for {bytes} bytes of shared memory", function.kernel);
            return refuse(Status::INVALID_VALUE, why);
        }
        function.dynamic_shared_bytes = bytes;
        Ok(())
    }

    /// Puts a kernel on a stream.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a shape that no device takes; what [`Driver::enqueue`] says.
    pub(crate) fn launch_kernel(
        &mut self,
        stream: Handle,
        function: Handle,
        shape: LaunchShape,
        parameters: Vec<Vec<u8>>,
    ) -> Outcome {
        let function = self.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
        let fits = |is: [u32; 3], most: [u32; 3]| {
            is.into_iter().zip(most).all(|(is, most)| (1..=most).contains(&is))
        };
        let threads = shape.block.into_iter().map(u64::from).product::<u64>();
        if !fits(shape.grid, GRID) || !fits(shape.block, BLOCK) || threads > u64::from(THREADS) {
            return refuse(
                Status::INVALID_VALUE,
                format_args!("{} is launched as {shape:?}", function.kernel),
            );
        }
        if shape.shared_bytes > function.dynamic_shared_bytes {
            let (is, may) = (shape.shared_bytes, function.dynamic_shared_bytes);
            let why = format_args!(
                "{} is launched with {is} bytes of shared memory, and may have {may}",
                function.kernel
            );
            return refuse(Status::INVALID_VALUE, why);
        }
        let (module, kernel) = (Arc::clone(&function.module), Arc::clone(&function.kernel));
        self.enqueue(stream, Work::Launch(Launch { module, kernel, shape, parameters }))
    }
}
