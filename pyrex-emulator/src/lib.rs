//! Runs PTX on a CPU, as a GPU would and more strictly: a read or write outside of what is allocated, a misaligned one, a read of
//! what nobody wrote, a race in shared memory and a barrier that not all threads reach are errors here.
//!
//! For the tests of kernels only: it is slow, and knows the instructions that nvcc writes for the kernels of Pyrex and candle.

use std::fmt;

/// A module of PTX, parsed.
#[derive(Debug)]
pub struct Module {}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub shared_bytes: u32,
}

/// What went wrong: where in the PTX, in which thread, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What, with the place.
    pub message: String,
}

/// What a launch did: what decides its speed on a device, and can be counted without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions that a warp executed.
    pub instructions: u64,
    /// Sectors of 32 bytes that warps read from global memory, one count for each time a warp's instruction touches one.
    pub sectors_read: u64,
    /// The same for what they wrote.
    pub sectors_written: u64,
    /// Bytes of global memory that threads asked to read.
    pub bytes_read: u64,
    /// Bytes that they wrote.
    pub bytes_written: u64,
    /// How often an access to shared memory had to be repeated, because threads of a warp wanted different words of one bank.
    pub bank_conflicts: u64,
}

/// A device's memory, and the order in which its threads run.
#[derive(Debug, Default)]
pub struct Device {}

impl Module {
    /// Reads PTX.
    ///
    /// # Errors
    /// Where something is not known.
    pub fn parse(ptx: &str) -> Result<Self, Fault> {
        let _ = ptx;
        Err(Fault { message: "not written yet".to_owned() })
    }
}

impl Device {
    /// Memory that nobody has written to; aligned to 256 bytes, with a gap behind it that faults.
    pub fn allocate(&self, bytes: usize) -> u64 {
        let _ = bytes;
        0
    }

    /// Gives memory back.
    ///
    /// # Errors
    /// If `address` is none that `allocate` gave.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        let _ = address;
        Ok(())
    }

    /// Copies to the device; what is written counts as initialized.
    ///
    /// # Errors
    /// If that is outside of what is allocated.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let _ = (address, bytes);
        Ok(())
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// If that is outside of what is allocated, or nobody wrote it.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let _ = (address, bytes);
        Ok(())
    }

    /// Runs a kernel to its end. `parameters`: each as it lies in memory, little-endian.
    ///
    /// # Errors
    /// If the kernel does what it must not; memory is then as the threads left it.
    pub fn launch(
        &self,
        module: &Module,
        kernel: &str,
        shape: LaunchShape,
        parameters: &[Vec<u8>],
    ) -> Result<Report, Fault> {
        let _ = (module, kernel, shape, parameters);
        Err(Fault { message: "not written yet".to_owned() })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
