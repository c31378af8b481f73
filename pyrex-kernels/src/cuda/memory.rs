//! Memory: how much is free, pinned memory of the host, and files to the device.

use super::failed;
use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUmemPool_attribute};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Lets the device's pool keep all that was ever taken from it: by default each wait gives back what is unused, to be taken anew.
///
/// # Errors
/// `Driver` if the device has no pool.
pub fn set_release_threshold(context: &CudaContext) -> Result<()> {
    let failed = |error| failed("set the release threshold", error);
    context.bind_to_thread().map_err(failed)?;
    let mut threshold = u64::MAX;
    // SAFETY: the device of a context has a pool as long as the process lives, and this attribute is a `u64`.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(failed)?;
        result::mem_pool::set_attribute(
            pool,
            CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
        .map_err(failed)
    }
}

/// How many bytes of the device can be taken now, and how many it has. What its pool keeps unused counts as free.
///
/// # Errors
/// `Driver` if the device does not say.
pub fn free_bytes(context: &CudaContext) -> Result<(u64, u64)> {
    let failed = |error| failed("free memory", error);
    let (free, total) = context.mem_get_info().map_err(failed)?;
    let count = |attribute| {
        let mut bytes = 0_u64;
        // SAFETY: the device of a context has a pool as long as the process lives, and these attributes are `u64`.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast())?;
        }
        Ok(bytes)
    };
    let kept = count(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).map_err(failed)?;
    let used = count(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT).map_err(failed)?;
    Ok((free as u64 + kept.saturating_sub(used), total as u64))
}

/// Memory of the device for as long as a few launches take: it is taken and given back in the order of a stream.
#[derive(Debug)]
pub(super) struct Scratch {
    address: u64,
    stream: Arc<CudaStream>,
}

impl Scratch {
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        let failed = |error| failed(&format!("{bytes} bytes of scratch memory"), error);
        stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the stream lives as long as the scratch.
        let address = unsafe { result::malloc_async(stream.cu_stream(), bytes) }.map_err(failed)?;
        Ok(Self { address, stream: Arc::clone(stream) })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// `len` elements from byte `offset` on.
    pub(super) fn buffer(&self, offset: usize, len: usize, element: Element) -> Buffer<'_> {
        // SAFETY: it is given back behind all that is launched while it is borrowed, and on this stream alone.
        unsafe { Buffer::new(self.address + offset as u64, len, element) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.stream.context().record_err(self.stream.context().bind_to_thread());
        // SAFETY: it was taken on this stream, and is no longer borrowed.
        let freed = unsafe { result::free_async(self.address, self.stream.cu_stream()) };
        self.stream.context().record_err(freed);
    }
}

/// Memory of the host that stays where it is, so that the device can read it: by copies that nobody waits for, or in kernels.
/// While the device reads it must not be written.
#[derive(Debug)]
pub struct Pinned {
    host: *mut u8,
    device: u64,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it is memory that nobody else owns, and any thread may free it.
unsafe impl Send for Pinned {}
// SAFETY: shared, it can only be read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `len` bytes, all 0.
    ///
    /// # Errors
    /// `OutOfMemory` if the host cannot pin as many; `Driver`.
    pub fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self> {
        let failed = |error| failed(&format!("{len} bytes of pinned memory"), error);
        context.bind_to_thread().map_err(failed)?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: it is freed when this is dropped; nobody sees it before it is written.
        let host = unsafe { result::malloc_host(len.max(1), flags) }.map_err(failed)?.cast::<u8>();
        // SAFETY: `len` bytes are there, and a `u8` may be 0.
        unsafe { host.write_bytes(0, len) };
        let mut pinned = Self { host, device: 0, len, context: Arc::clone(context) };
        // SAFETY: memory that was taken to be mapped has an address on the device.
        unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut pinned.device, host.cast::<c_void>(), 0) }
            .result()
            .map_err(failed)?;
        Ok(pinned)
    }

    /// Where the device finds it.
    pub fn device_address(&self) -> u64 {
        self.device
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are there as long as this is, and were written when it was made.
        unsafe { std::slice::from_raw_parts(self.host, self.len) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading, and nobody else has a reference.
        unsafe { std::slice::from_raw_parts_mut(self.host, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: it was taken by the same interface, and nobody has a reference any more.
        self.context.record_err(unsafe { result::free_host(self.host.cast()) });
    }
}

/// Copies bytes to the device through two pinned buffers: one is filled, from a mapped file say, while the other is on its way.
/// However long what is copied, no more of the host's memory is taken.
#[derive(Debug)]
pub struct Upload {
    halves: [Half; 2],
    next: usize,
    stream: Arc<CudaStream>,
}

#[derive(Debug)]
struct Half {
    pinned: Pinned,
    /// The last copy out of it.
    copied: CudaEvent,
}

impl Upload {
    /// Copies on `stream`, through two buffers of `buffer_len` bytes; 16 to 64 MiB keep the bus busy.
    ///
    /// # Errors
    /// `OutOfMemory` if the host cannot pin them; `Driver`.
    pub fn new(stream: Arc<CudaStream>, buffer_len: usize) -> Result<Self> {
        if buffer_len == 0 {
            return Err(Error::arguments("an upload through buffers of no bytes"));
        }
        let half = || {
            let pinned = Pinned::new(stream.context(), buffer_len)?;
            let copied =
                stream.context().new_event(None).map_err(|error| failed("an event for uploads", error))?;
            Ok(Half { pinned, copied })
        };
        Ok(Self { halves: [half()?, half()?], next: 0, stream })
    }

    /// Copies `bytes` to `target`, which has as many. `bytes` are free again when this returns; the last of them may still be on
    /// their way, ahead of all that is put on the stream next.
    ///
    /// # Errors
    /// `Arguments` if `target` is not as long; `Driver` if the copy fails.
    pub fn copy(&mut self, bytes: &[u8], target: Buffer<'_>) -> Result<()> {
        let target_len = target.len() * target.element().size();
        if target_len != bytes.len() {
            return Err(Error::arguments(format_args!(
                "an upload of {} bytes to {target_len} bytes",
                bytes.len()
            )));
        }
        let failed = |error| failed("upload", error);
        self.stream.context().bind_to_thread().map_err(failed)?;
        let mut address = target.address();
        for chunk in bytes.chunks(self.halves[0].pinned.len()) {
            let half = &mut self.halves[self.next];
            half.copied.synchronize().map_err(failed)?;
            half.pinned[..chunk.len()].copy_from_slice(chunk);
            let source = &half.pinned[..chunk.len()];
            // SAFETY: the target has room for what is left of `bytes`, and the source is not written before `copied` has come.
            unsafe { result::memcpy_htod_async(address, source, self.stream.cu_stream()) }.map_err(failed)?;
            half.copied.record(&self.stream).map_err(failed)?;
            address += chunk.len() as u64;
            self.next = 1 - self.next;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        for half in &self.halves {
            self.stream.context().record_err(half.copied.synchronize());
        }
    }
}
