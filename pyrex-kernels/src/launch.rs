//! [`Launch`]: one kernel with its arguments, and [`Queue`], where it is put.

use crate::buffer::Buffer;
use crate::error::{Error, Result};

/// PTX as nvcc wrote it, for compute capability 8.0.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its name, that of the file.
    pub name: &'static str,
    /// The text.
    pub ptx: &'static str,
}

/// What a kernel is called with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// An address.
    Pointer(u64),
    /// A count or an index.
    U32(u32),
    /// A number.
    F32(f32),
}

impl Argument {
    /// The parameter as it lies in memory.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Pointer(address) => address.to_le_bytes().to_vec(),
            Self::U32(number) => number.to_le_bytes().to_vec(),
            Self::F32(number) => number.to_le_bytes().to_vec(),
        }
    }
}

impl From<Buffer<'_>> for Argument {
    fn from(buffer: Buffer<'_>) -> Self {
        Self::Pointer(buffer.address())
    }
}

impl From<Option<Buffer<'_>>> for Argument {
    fn from(buffer: Option<Buffer<'_>>) -> Self {
        Self::Pointer(buffer.map_or(0, |buffer| buffer.address()))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

/// One kernel, where it runs and what with. Only the launchers of this crate make one, after their checks.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    pub(crate) module: &'a Module,
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub(crate) shared_bytes: u32,
    pub(crate) arguments: Vec<Argument>,
}

impl Launch<'_> {
    /// Where the kernel is.
    pub fn module(&self) -> &Module {
        self.module
    }

    /// Its name.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Blocks along x, y and z.
    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    /// Threads of a block along x, y and z.
    pub fn block(&self) -> [u32; 3] {
        self.block
    }

    /// Bytes of shared memory beyond what the kernel declares.
    pub fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    /// The arguments in order.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }
}

/// Where launches are put, one after another: a stream of a device, or what stands for one.
pub trait Queue {
    /// Puts `launch` behind all that were put there before.
    ///
    /// # Errors
    /// `Driver` if it cannot be launched.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// How many multiprocessors the device has: work is split to keep all of them busy.
    fn multiprocessors(&self) -> u32;

    /// How many bytes of shared memory a block may have: 227 KB where the fastest kernels feel at home, 99 on GPUs of desks.
    fn max_shared_bytes(&self) -> u32;
}

/// A count as a kernel takes it.
pub(crate) fn count(name: &str, number: usize) -> Result<u32> {
    u32::try_from(number)
        .map_err(|_| Error::arguments(format_args!("{name} is {number}, expected at most {}", u32::MAX)))
}
