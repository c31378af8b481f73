//! [`Buffer`]: a range of device memory, and what lies in it.

use crate::error::{Error, Result};
use std::marker::PhantomData;

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 32-bit integers.
    U32,
    /// Bytes.
    U8,
}

impl Element {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// As the names of kernels end.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::U32 => "u32",
            Self::U8 => "u8",
        }
    }
}

/// Contiguous elements in memory that the device can reach. A kernel that gets one reads it, and writes it where its launcher
/// says so: like a GPU's own pointers, buffers do not know who else has one.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    address: u64,
    len: usize,
    element: Element,
    memory: PhantomData<&'a ()>,
}

impl<'a> Buffer<'a> {
    /// `len` elements at `address` on the device.
    ///
    /// # Safety
    /// The memory must stay allocated, and be used on no other queue, until what is launched within `'a` has run.
    pub unsafe fn new(address: u64, len: usize, element: Element) -> Self {
        Self { address, len, element, memory: PhantomData }
    }

    /// The device's address of the first element.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What they are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// `len` elements from `offset` on.
    ///
    /// # Errors
    /// `Arguments` if there are not as many.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::arguments(format_args!(
                "elements {offset}.. of a buffer of {}, {len} of them",
                self.len
            )));
        }
        Ok(Self { address: self.address + (offset * self.element.size()) as u64, len, ..*self })
    }

    /// Holds the buffer to what a kernel was written for; `name` is the argument's, for the error.
    pub(crate) fn expect(&self, name: &str, element: Element, len: usize, alignment: u64) -> Result<()> {
        if self.element != element || self.len != len || !self.address.is_multiple_of(alignment) {
            return Err(Error::arguments(format_args!(
                "{name} has {} {:?} at {:#x}, expected {len} {element:?} at a multiple of {alignment}",
                self.len, self.element, self.address
            )));
        }
        Ok(())
    }
}
