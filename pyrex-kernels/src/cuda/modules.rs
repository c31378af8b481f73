//! The kernels of a context: each module is loaded when one of its kernels is first launched, and stays.

use super::captures::between_captures;
use super::failed;
use crate::error::{Error, Result};
use crate::launch::{Launch, Module};
use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUmodule};
use cudarc::driver::{CudaContext, result};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Modules {
    context: Arc<CudaContext>,
    loaded: Mutex<HashMap<&'static str, Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    module: CUmodule,
    functions: HashMap<String, Function>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    function: CUfunction,
    /// Bytes of shared memory beyond what the kernel declares that it may be launched with; the driver's default counts as none.
    shared_bytes: u32,
}

// SAFETY: modules and functions are handles that any thread may use once the context is its current one.
unsafe impl Send for Loaded {}

impl Modules {
    pub(super) fn new(context: Arc<CudaContext>) -> Self {
        Self { context, loaded: Mutex::default() }
    }

    /// The kernel of `launch`, allowed as much shared memory as that asks for. The context must be the thread's current one.
    pub(super) fn function(&self, launch: &Launch<'_>) -> Result<CUfunction> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let module = launch.module();
        if !loaded.contains_key(module.name) {
            loaded.insert(module.name, Loaded::load(module)?);
        }
        let loaded = loaded.get_mut(module.name).expect("it was just put there");
        if !loaded.functions.contains_key(launch.kernel()) {
            let function = loaded.find(launch.kernel())?;
            loaded.functions.insert(launch.kernel().to_owned(), function);
        }
        let function = loaded.functions.get_mut(launch.kernel()).expect("it was just put there");
        function.allow(launch)?;
        Ok(function.function)
    }
}

impl Loaded {
    fn load(module: &Module) -> Result<Self> {
        let ptx = CString::new(module.ptx)
            .map_err(|_| Error::Driver(format!("the PTX of {} has a byte 0", module.name)))?;
        // SAFETY: PTX that ends with a byte 0, which the driver has read when the call returns.
        let module = unsafe { result::module::load_data(ptx.as_ptr().cast()) }
            .map_err(|error| failed(module.name, error))?;
        Ok(Self { module, functions: HashMap::new() })
    }

    fn find(&self, kernel: &str) -> Result<Function> {
        let name =
            CString::new(kernel).map_err(|_| Error::Driver(format!("no kernel is named {kernel:?}")))?;
        // SAFETY: the module is loaded until `self` is dropped.
        let function = unsafe { result::module::get_function(self.module, name) }
            .map_err(|error| failed(kernel, error))?;
        Ok(Function { function, shared_bytes: 0 })
    }
}

impl Function {
    fn allow(&mut self, launch: &Launch<'_>) -> Result<()> {
        if launch.shared_bytes() <= self.shared_bytes {
            return Ok(());
        }
        let bytes = i32::try_from(launch.shared_bytes()).map_err(|_| {
            Error::Driver(format!(
                "{} wants {} bytes of shared memory",
                launch.kernel(),
                launch.shared_bytes()
            ))
        })?;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function's module is loaded.
        unsafe { result::function::set_function_attribute(self.function, attribute, bytes) }
            .map_err(|error| failed(launch.kernel(), error))?;
        self.shared_bytes = launch.shared_bytes();
        Ok(())
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        if loaded.is_empty() {
            return;
        }
        between_captures(|| {
            // A kernel of theirs may still run.
            self.context.record_err(self.context.synchronize());
            for module in loaded.values() {
                // SAFETY: nobody has its functions any more: they never leave a launch.
                self.context.record_err(unsafe { result::module::unload(module.module) });
            }
        });
    }
}
