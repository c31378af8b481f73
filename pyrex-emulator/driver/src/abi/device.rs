//! The device, what it is capable of, its context, and the names of errors.

use super::{CONTEXT, CURRENT, Out, Text, always, bound, exports, ready};
use crate::module;
use crate::status::{Outcome, Status};
use std::ffi::c_char;

/// What CUDA 13.0's driver says of itself.
const VERSION: i32 = 13_000;
const NAME: &[u8] = b"PTX emulator\0";
const NUM_ATTRIBUTES: i32 = 145;

/// An H200's attributes, by their numbers; the others are 0.
fn attribute(number: i32) -> i32 {
    const MULTIPROCESSORS: i32 = 132;
    match number {
        1 => module::THREADS as i32,
        2..=4 => module::BLOCK[number as usize - 2] as i32,
        5..=7 => module::GRID[number as usize - 5] as i32,
        8 => module::SHARED_BYTES as i32,
        // Constant memory.
        9 => 64 << 10,
        // Threads of a warp.
        10 => 32,
        11 => i32::MAX,
        // Registers of a block, and of a multiprocessor.
        12 | 82 => 64 << 10,
        // Clock in kHz, and that of memory; bits of its bus.
        13 => 1_980_000,
        36 => 3_201_000,
        37 => 6144,
        // Alignments of textures.
        14 => 512,
        51 => 32,
        16 => MULTIPROCESSORS,
        // Kernels and copies at once; the program's memory mapped; several kernels at once; errors in memory corrected.
        15 | 19 | 31 | 32 => 1,
        // Bytes of the L2 cache.
        38 => 60 << 20,
        39 => 2048,
        // Engines for copies.
        40 => 3,
        // One space of addresses.
        41 => 1,
        // Compute capability.
        75 => 9,
        76 => 0,
        // Priorities of streams; caches of global and local memory.
        78..=80 => 1,
        81 => module::SHARED_BYTES_OF_MULTIPROCESSOR as i32,
        // Cooperative launches.
        95 => 1,
        97 => module::SHARED_BYTES_OPT_IN as i32,
        // The program's memory can be registered, and used by the device at the program's addresses.
        91 | 99 => 1,
        106 => 32,
        111 => module::SHARED_BYTES_RESERVED as i32,
        // Memory pools.
        115 => 1,
        _ => 0,
    }
}

fn is_device(device: i32) -> Outcome {
    if device == 0 { Ok(()) } else { Err(Status::INVALID_DEVICE) }
}

fn put_text(to: Out<c_char>, room: usize, text: &[u8]) -> Outcome {
    let len = text.len().min(room);
    text[..len].iter().enumerate().try_for_each(|(index, byte)| to.nth(index).put(*byte as c_char))
}

exports! {
    fn cuInit(flags: u32) = always(|driver| {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        driver.is_initialized = true;
        Ok(())
    });
    fn cuDriverGetVersion(version: Out<i32>) = always(|_| version.put(VERSION));
    fn cuGetErrorName(status: u32, words: Out<Out<c_char>>) = always(|_| {
        words.put(Text::of(Status(status).words().ok_or(Status::INVALID_VALUE)?.0))
    });
    fn cuGetErrorString(status: u32, words: Out<Out<c_char>>) = always(|_| {
        words.put(Text::of(Status(status).words().ok_or(Status::INVALID_VALUE)?.1))
    });

    fn cuDeviceGetCount(count: Out<i32>) = ready(|_| count.put(1));
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) =
        ready(|_| is_device(ordinal).and_then(|()| device.put(0)));
    fn cuDeviceGetName(name: Out<c_char>, room: i32, device: i32) = ready(|_| {
        is_device(device)?;
        put_text(name, room.max(0) as usize, NAME)
    });
    fn cuDeviceGetUuid_v2(uuid: Out<c_char>, device: i32) = ready(|_| {
        is_device(device)?;
        put_text(uuid, 16, b"pyrex-emulator-0")
    });
    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) = ready(|driver| {
        is_device(device)?;
        bytes.put(driver.memory.info().1 as usize)
    });
    fn cuDeviceGetAttribute(value: Out<i32>, number: i32, device: i32) = ready(|_| {
        is_device(device)?;
        match number {
            1..NUM_ATTRIBUTES => value.put(attribute(number)),
            _ => Err(Status::INVALID_VALUE),
        }
    });

    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) =
        ready(|_| is_device(device).and_then(|()| context.put(CONTEXT)));
    fn cuDevicePrimaryCtxRelease_v2(device: i32) = ready(|_| is_device(device));
    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, is_active: Out<i32>) = ready(|_| {
        is_device(device)?;
        flags.put(0)?;
        is_active.put(1)
    });
    fn cuCtxGetCurrent(context: Out<u64>) = ready(|_| context.put(CURRENT.get()));
    fn cuCtxSetCurrent(context: u64) = ready(|_| match context {
        0 | CONTEXT => {
            CURRENT.set(context);
            Ok(())
        }
        _ => Err(Status::INVALID_CONTEXT),
    });
    fn cuCtxGetDevice(device: Out<i32>) = bound(|_| device.put(0));
    fn cuCtxSetFlags(_flags: u32) = bound(|_| Ok(()));
    fn cuCtxGetFlags(flags: Out<u32>) = bound(|_| flags.put(0));
    fn cuCtxSynchronize() = bound(|driver| {
        driver.report.counters.synchronizations += 1;
        driver.synchronize_all()
    });
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) = bound(|_| {
        least.put(0)?;
        greatest.put(-5)
    });
}
