//! [`HostMemory`]: memory of the host that kernels reach. The one place with raw pointers.

use crate::device::Device;
use crate::fault::Fault;

impl Device {
    /// Makes memory of the host reachable for kernels, at the address that it has there; all of it counts as written.
    /// `free` ends that.
    ///
    /// # Errors
    /// If part of it is reachable already.
    ///
    /// # Safety
    /// The `bytes` at `memory` must stay readable and writable until they are freed here or the device is dropped, and nobody
    /// may access them while a launch or a copy of this device runs.
    pub unsafe fn map_host(&self, memory: *mut u8, bytes: usize) -> Result<u64, Fault> {
        // SAFETY: the caller promises what is asked for.
        let memory = unsafe { HostMemory::new(memory, bytes) };
        self.memory().map(memory).map_err(Fault::new)
    }
}

/// Memory of the host, which whoever mapped it keeps alive.
#[derive(Debug)]
pub(crate) struct HostMemory {
    address: u64,
    len: usize,
}

impl HostMemory {
    /// `len` bytes at `memory`.
    ///
    /// # Safety
    /// They must stay readable and writable until this is dropped, and nobody may access them while a launch or a copy runs.
    pub(crate) unsafe fn new(memory: *mut u8, len: usize) -> Self {
        Self { address: memory.expose_provenance() as u64, len }
    }

    /// Where it lies.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies from it.
    pub(crate) fn get(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.len, "the caller checked the range");
        // SAFETY: the range lies within what `new` was promised; it is copied, so that no reference to it outlives the call.
        unsafe { self.pointer(offset).copy_to(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies to it.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "the caller checked the range");
        // SAFETY: as in `get`.
        unsafe { self.pointer(offset).copy_from(bytes.as_ptr(), bytes.len()) }
    }

    fn pointer(&self, offset: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address as usize + offset)
    }
}
