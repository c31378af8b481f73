//! Memory of the device, pinned memory, and copies.

use super::{In, Out, bound, exports, ready};
use crate::driver::{Driver, Handle};
use crate::memory::Owner;
use crate::status::{Outcome, Status};
use crate::work::{Copy, Place, Work};
use std::alloc::{Layout, alloc, dealloc};

/// The one pool that there is.
const POOL: u64 = 0x6000_0000_0020;
/// What `cuMemHostAlloc` aligns to.
const PAGE: usize = 4096;

fn copy_now(driver: &mut Driver, to: Place, from: Place, bytes: usize) -> Outcome {
    driver.do_now(&Work::Copy(Copy::new(to, from, bytes as u64)))
}

fn copy_on(driver: &mut Driver, (to, from): (Place, Place), bytes: usize, stream: Handle) -> Outcome {
    driver.enqueue(stream, Work::Copy(Copy::new(to, from, bytes as u64)))
}

/// An address that may be the device's or the program's.
fn place(driver: &Driver, address: u64) -> Place {
    if driver.memory.is_device(address) { Place::Device(address) } else { Place::Host(address) }
}

fn set(address: u64, value: &[u8], count: usize) -> Work {
    Work::Set { address, pattern: value.to_vec(), count: count as u64 }
}

/// `CUDA_MEMCPY2D`, of which arrays are not here.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Copy2D {
    from: Side,
    to: Side,
    row_bytes: usize,
    rows: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Side {
    x_bytes: usize,
    y: usize,
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

impl Side {
    fn place(&self, driver: &Driver) -> Outcome<Place> {
        let offset = (self.y * self.pitch + self.x_bytes) as u64;
        Ok(match self.kind {
            1 => Place::Host(self.host + offset),
            2 => Place::Device(self.device + offset),
            // Either.
            4 => place(driver, self.device + offset),
            _ => return Err(Status::NOT_SUPPORTED),
        })
    }
}

impl Copy2D {
    fn work(&self, driver: &Driver) -> Outcome<Work> {
        let pitches = [self.to.pitch as u64, self.from.pitch as u64];
        let (row_bytes, rows) = (self.row_bytes as u64, self.rows as u64);
        if rows > 1 && pitches.iter().any(|pitch| *pitch < row_bytes) {
            return Err(Status::INVALID_VALUE);
        }
        let (to, from) = (self.to.place(driver)?, self.from.place(driver)?);
        Ok(Work::Copy(Copy { to, from, row_bytes, rows, pitches }))
    }
}

/// Pages that the device may use from the start. They begin as what no number should be.
fn allocate_host(driver: &mut Driver, address: Out<u64>, bytes: usize) -> Outcome {
    driver.refuse_while_capturing("pinned memory is allocated")?;
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Status::OUT_OF_MEMORY)?;
    if bytes == 0 {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the size is not zero.
    let pages = unsafe { alloc(layout) };
    if pages.is_null() {
        return Err(Status::OUT_OF_MEMORY);
    }
    // SAFETY: they were just allocated, and have as many bytes.
    unsafe { pages.write_bytes(0xa5, bytes) };
    let start = pages.expose_provenance() as u64;
    // SAFETY: they are given back only after the device has forgotten them.
    unsafe { driver.memory.map(start, bytes as u64) }?;
    driver.pages.insert(start, layout);
    address.put(start)
}

fn free_host(driver: &mut Driver, address: u64) -> Outcome {
    driver.refuse_while_capturing("pinned memory is freed")?;
    let layout = driver.pages.remove(&address).ok_or(Status::INVALID_VALUE)?;
    driver.finish_all()?;
    driver.memory.free(address)?;
    // SAFETY: `alloc` gave them with this layout, and nobody else has them: they were in `pages` until now.
    unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address as usize), layout) };
    Ok(())
}

fn pool_attribute(driver: &mut Driver, number: u32) -> Outcome<u64> {
    let pool = driver.memory.pool;
    Ok(match number {
        1..=3 => 1,
        4 => pool.threshold,
        5 => pool.reserved[0],
        6 => pool.reserved[1],
        7 => pool.used[0],
        8 => pool.used[1],
        _ => return Err(Status::INVALID_VALUE),
    })
}

fn set_pool_attribute(driver: &mut Driver, number: u32, value: In<u8>) -> Outcome {
    let pool = &mut driver.memory.pool;
    match number {
        1..=3 => drop(value.cast::<i32>().get()?),
        4 => pool.threshold = value.cast().get()?,
        // The most that ever was can only be forgotten.
        6 if value.cast::<u64>().get()? == 0 => pool.reserved[1] = pool.reserved[0],
        8 if value.cast::<u64>().get()? == 0 => pool.used[1] = pool.used[0],
        _ => return Err(Status::INVALID_VALUE),
    }
    Ok(())
}

fn is_pool(pool: u64) -> Outcome {
    if pool == POOL { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

exports! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) = bound(|driver| {
        let info = driver.memory.info();
        free.put(info.0 as usize)?;
        total.put(info.1 as usize)
    });
    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) = bound(|driver| {
        driver.refuse_while_capturing("memory is allocated with cuMemAlloc")?;
        if bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        driver.report.counters.allocations += 1;
        address.put(driver.memory.allocate(bytes as u64, Owner::Device)?)
    });
    fn cuMemFree_v2(address: u64) = bound(|driver| {
        driver.refuse_while_capturing("memory is freed with cuMemFree")?;
        if address == 0 {
            return Ok(());
        }
        driver.finish_all()?;
        match driver.memory.owner(address) {
            None | Some(Owner::Host) => Err(Status::INVALID_VALUE),
            Some(_) => driver.memory.free(address),
        }
    });
    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: u64) = bound(|driver| {
        let start = driver.allocate_async(bytes as u64, stream)?;
        address.put(start)
    });
    fn cuMemAllocFromPoolAsync(address: Out<u64>, bytes: usize, pool: u64, stream: u64) = bound(|driver| {
        is_pool(pool)?;
        let start = driver.allocate_async(bytes as u64, stream)?;
        address.put(start)
    });
    fn cuMemFreeAsync(address: u64, stream: u64) = bound(|driver| driver.free_async(address, stream));

    fn cuDeviceGetDefaultMemPool(pool: Out<u64>, _device: i32) = ready(|_| pool.put(POOL));
    fn cuDeviceGetMemPool(pool: Out<u64>, _device: i32) = ready(|_| pool.put(POOL));
    fn cuDeviceSetMemPool(_device: i32, pool: u64) = ready(|_| is_pool(pool));
    fn cuMemPoolGetAttribute(pool: u64, number: u32, value: Out<u8>) = ready(|driver| {
        is_pool(pool)?;
        match (number, pool_attribute(driver, number)?) {
            (1..=3, flag) => value.cast().put(flag as i32),
            (_, bytes) => value.cast().put(bytes),
        }
    });
    fn cuMemPoolSetAttribute(pool: u64, number: u32, value: In<u8>) = ready(|driver| {
        is_pool(pool)?;
        set_pool_attribute(driver, number, value)
    });
    fn cuMemPoolTrimTo(pool: u64, bytes: usize) = ready(|driver| {
        is_pool(pool)?;
        driver.memory.trim(bytes as u64);
        Ok(())
    });

    fn cuMemHostAlloc(address: Out<u64>, bytes: usize, _flags: u32) =
        bound(|driver| allocate_host(driver, address, bytes));
    fn cuMemAllocHost_v2(address: Out<u64>, bytes: usize) =
        bound(|driver| allocate_host(driver, address, bytes));
    fn cuMemFreeHost(address: u64) = bound(|driver| free_host(driver, address));
    fn cuMemHostRegister_v2(address: u64, bytes: usize, _flags: u32) = bound(|driver| {
        driver.refuse_while_capturing("memory is pinned")?;
        if address == 0 || bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: who registers memory promises that it stays until it is unregistered.
        unsafe { driver.memory.map(address, bytes as u64) }
    });
    fn cuMemHostUnregister(address: u64) = bound(|driver| {
        driver.refuse_while_capturing("memory is unpinned")?;
        if driver.memory.owner(address) != Some(Owner::Host) || driver.pages.contains_key(&address) {
            return Err(Status::HOST_MEMORY_NOT_REGISTERED);
        }
        driver.finish_all()?;
        driver.memory.free(address)
    });
    fn cuMemHostGetDevicePointer_v2(address: Out<u64>, host: u64, flags: u32) = bound(|driver| {
        if flags != 0 || !driver.memory.is_pinned(host, 1) {
            return Err(Status::INVALID_VALUE);
        }
        address.put(host)
    });

    fn cuMemcpy(to: u64, from: u64, bytes: usize) = bound(|driver| {
        let (to, from) = (place(driver, to), place(driver, from));
        copy_now(driver, to, from, bytes)
    });
    fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) =
        bound(|driver| copy_now(driver, Place::Device(to), Place::Host(from), bytes));
    fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) =
        bound(|driver| copy_now(driver, Place::Host(to), Place::Device(from), bytes));
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) =
        bound(|driver| copy_now(driver, Place::Device(to), Place::Device(from), bytes));
    fn cuMemcpy2D_v2(copy: In<Copy2D>) = bound(|driver| {
        let work = copy.get()?.work(driver)?;
        driver.do_now(&work)
    });
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) = bound(|driver| {
        let places = (place(driver, to), place(driver, from));
        copy_on(driver, places, bytes, stream)
    });
    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) = bound(|driver| {
        copy_on(driver, (Place::Device(to), Place::Host(from)), bytes, stream)
    });
    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) = bound(|driver| {
        copy_on(driver, (Place::Host(to), Place::Device(from)), bytes, stream)
    });
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) = bound(|driver| {
        copy_on(driver, (Place::Device(to), Place::Device(from)), bytes, stream)
    });
    fn cuMemcpy2DAsync_v2(copy: In<Copy2D>, stream: u64) = bound(|driver| {
        let work = copy.get()?.work(driver)?;
        driver.enqueue(stream, work)
    });

    fn cuMemsetD8_v2(address: u64, value: u8, count: usize) =
        bound(|driver| driver.do_now(&set(address, &value.to_le_bytes(), count)));
    fn cuMemsetD16_v2(address: u64, value: u16, count: usize) =
        bound(|driver| driver.do_now(&set(address, &value.to_le_bytes(), count)));
    fn cuMemsetD32_v2(address: u64, value: u32, count: usize) =
        bound(|driver| driver.do_now(&set(address, &value.to_le_bytes(), count)));
    fn cuMemsetD8Async(address: u64, value: u8, count: usize, stream: u64) = bound(|driver| {
        driver.enqueue(stream, set(address, &value.to_le_bytes(), count))
    });
    fn cuMemsetD16Async(address: u64, value: u16, count: usize, stream: u64) = bound(|driver| {
        driver.enqueue(stream, set(address, &value.to_le_bytes(), count))
    });
    fn cuMemsetD32Async(address: u64, value: u32, count: usize, stream: u64) = bound(|driver| {
        driver.enqueue(stream, set(address, &value.to_le_bytes(), count))
    });
}
