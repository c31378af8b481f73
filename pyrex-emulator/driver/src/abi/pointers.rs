//! What C passes where Rust has references: null is `INVALID_VALUE`, and what is not null its caller vouches for.

use crate::host;
use crate::report::Counters;
use crate::status::{Outcome, Status};
use std::ffi::{CStr, c_char};

/// Where a result goes.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

/// Where an argument lies.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

/// Words that end with a byte 0.
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl<T: Copy> Out<T> {
    pub(crate) fn put(&self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: C's caller vouches for what is not null.
        unsafe { self.0.write(value) };
        Ok(())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The place of one among several.
    pub(crate) fn nth(&self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    /// The same place, for something else.
    pub(crate) fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl<T: Copy> In<T> {
    pub(crate) fn get(&self) -> Outcome<T> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: C's caller vouches for what is not null.
        Ok(unsafe { self.0.read() })
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The same place, of something else.
    pub(crate) fn cast<U>(&self) -> In<U> {
        In(self.0.cast())
    }

    /// As many bytes.
    pub(crate) fn bytes(&self, len: usize) -> Outcome<Vec<u8>> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: C's caller vouches for what is not null.
        Ok(unsafe { host::read(self.0.expose_provenance() as u64, len) })
    }

    /// The place of one among several.
    pub(crate) fn nth(&self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }
}

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl Text {
    pub(crate) fn get(&self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: C's caller vouches for what is not null.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }

    /// The place, as bytes.
    pub(crate) fn bytes(&self) -> In<u8> {
        In(self.0.cast())
    }

    /// Words of this library.
    pub(crate) fn of(words: &'static CStr) -> Out<c_char> {
        Out(words.as_ptr().cast_mut())
    }
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

/// As many bytes of `counters` as there is room for.
pub(super) fn fill(to: *mut u8, bytes: usize, counters: &Counters) -> Outcome {
    if to.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let len = bytes.min(size_of::<Counters>());
    // SAFETY: C's caller vouches for what is not null, and counters are numbers without gaps.
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::from_ref(counters).cast(), to, len) };
    Ok(())
}
