//! What crosses the boundary: pointers with lengths, and structs that later versions may lengthen.
//!
//! Everything here reads or writes through pointers that a caller gave, and rests on what the head of `pyrex.h` asks of
//! every caller: a pointer is NULL or points to what its type and length say, for as long as the call lasts.

use crate::guard::Result;
use crate::status::Failure;
use std::ffi::{CStr, c_char};
use std::{mem, ptr, slice};

/// As a length of text: up to the first NUL.
pub const PYREX_NUL_TERMINATED: usize = usize::MAX;

/// The object behind a handle.
///
/// # Safety
/// `pointer` is NULL or a handle of this type that is not yet freed.
pub(crate) unsafe fn object<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise; exported functions take handles by shared reference alone.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::null(name))
}

/// The place where a result goes.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or may be written for as long as this lives.
    pub(crate) unsafe fn new(name: &str, pointer: *mut T) -> Result<Self> {
        if pointer.is_null() { Err(Failure::null(name)) } else { Ok(Self(pointer)) }
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: `new` was promised so. What was there is plain data and needs no drop.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// The place where the pointer to a new object goes. It is NULL until one is there, so that whoever frees it without
    /// looking at the status frees nothing.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    pub(crate) unsafe fn object(name: &str, pointer: *mut *mut T) -> Result<Self> {
        // SAFETY: the caller's promise.
        let out = unsafe { Self::new(name, pointer)? };
        out.set(ptr::null_mut());
        Ok(out)
    }

    pub(crate) fn give(&self, object: T) {
        self.set(Box::into_raw(Box::new(object)));
    }
}

/// Takes back what [`Out::give`] gave; NULL is nothing.
///
/// # Safety
/// `pointer` is NULL or a handle that is not yet freed, and nobody uses it any more.
pub(crate) unsafe fn take_back<T>(pointer: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's promise; the pointer came from `Box::into_raw`.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
}

/// `len` elements; NULL is none. What is kept past the call must be copied: `'a` is whatever its user takes it for.
///
/// # Safety
/// `pointer` is NULL or points to `len` elements that nobody changes during `'a`.
pub(crate) unsafe fn array<'a, T>(name: &str, pointer: *const T, len: usize) -> Result<&'a [T]> {
    match (pointer.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::null(name)),
        (false, _) if len > isize::MAX as usize / size_of::<T>() => Err(Failure::invalid(format!(
            "{name} has {len} elements, expected a length that fits into memory"
        ))),
        // SAFETY: the caller's promise, and the length fits into the address space.
        (false, _) => Ok(unsafe { slice::from_raw_parts(pointer, len) }),
    }
}

/// Text of `len` bytes, or up to its NUL.
///
/// # Safety
/// `pointer` is NULL or points to so many bytes that nobody changes during `'a`.
pub(crate) unsafe fn read_text<'a>(name: &str, pointer: *const c_char, len: usize) -> Result<&'a str> {
    if len == PYREX_NUL_TERMINATED {
        // SAFETY: the caller's promise.
        return unsafe { c_text(name, pointer) };
    }
    // SAFETY: the caller's promise; a `char` of C is a byte.
    let bytes = unsafe { array(name, pointer.cast::<u8>(), len)? };
    utf8(name, bytes)
}

/// Text up to its NUL.
///
/// # Safety
/// `pointer` is NULL or points to a NUL-terminated string that nobody changes during `'a`.
pub(crate) unsafe fn c_text<'a>(name: &str, pointer: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { optional_text(name, pointer)? }.ok_or_else(|| Failure::null(name))
}

/// Texts up to their NULs.
///
/// # Safety
/// As [`c_text`], for each of `pointers`.
pub(crate) unsafe fn texts(name: &str, pointers: &[*const c_char]) -> Result<Vec<String>> {
    // SAFETY: the caller's promise.
    pointers.iter().map(|&pointer| unsafe { c_text(name, pointer) }.map(str::to_owned)).collect()
}

/// Text up to its NUL, if there is any.
///
/// # Safety
/// As [`c_text`].
pub(crate) unsafe fn optional_text<'a>(name: &str, pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    utf8(name, unsafe { CStr::from_ptr(pointer) }.to_bytes()).map(Some)
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    str::from_utf8(bytes).map_err(|e| {
        Failure::invalid(format!("{name} is not UTF-8 at byte {}, expected UTF-8", e.valid_up_to()))
    })
}

/// A struct that begins with its own size as its caller knows it, and whose fields are zero unless somebody sets them.
///
/// # Safety
/// The type is `repr(C)` and aligned to 8 bytes, its first field is `struct_size: usize`, it has no padding, no field crosses a
/// multiple of 8 bytes, and bytes of any value are valid in it as long as its pointers are.
pub(crate) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &str;

    /// A struct that says nothing.
    fn zero() -> Self {
        // SAFETY: the trait's promise: numbers and pointers may be zero.
        unsafe { mem::zeroed() }
    }
}

/// No version of a struct is larger: what says so is not initialized.
const MAX_STRUCT_SIZE: usize = 4096;

/// Reads a struct of whatever size its caller knows; NULL is one that says nothing.
///
/// # Safety
/// `pointer` is NULL or points to as many bytes as its first field says.
pub(crate) unsafe fn read_growing<T: Growing>(pointer: *const T) -> Result<T> {
    if pointer.is_null() {
        return Ok(T::zero());
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice::from_raw_parts(pointer.cast::<u8>(), struct_size(pointer)?) };
    let known = bytes.len().min(size_of::<T>());
    if let Some(at) = bytes[known..].iter().position(|byte| *byte != 0) {
        return Err(Failure::new(
            crate::status::pyrex_status_t::PYREX_UNSUPPORTED,
            format!("{} sets a field at byte {} that this version does not know", T::NAME, known + at),
        ));
    }
    let mut value = T::zero();
    // SAFETY: `known` bytes are readable there and fit here; any bytes are a value, as the trait promises.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast::<u8>(), known) };
    Ok(value)
}

/// Writes as much of `value` as the struct of the caller has room for, and leaves its size alone.
///
/// # Safety
/// `pointer` is NULL or points to as many writable bytes as its first field says.
pub(crate) unsafe fn write_growing<T: Growing>(name: &str, pointer: *mut T, value: &T) -> Result<()> {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(pointer)? }.min(size_of::<T>());
    let (from, to) = ((&raw const *value).cast::<u8>(), pointer.cast::<u8>());
    const HEAD: usize = size_of::<usize>();
    // SAFETY: `size` bytes are readable here and writable there, and `struct_size` checked that it is more than the head.
    unsafe { ptr::copy_nonoverlapping(from.add(HEAD), to.add(HEAD), size - HEAD) };
    Ok(())
}

/// The size that a struct says it has.
///
/// # Safety
/// `pointer` points to at least a `usize`.
unsafe fn struct_size<T: Growing>(pointer: *const T) -> Result<usize> {
    // SAFETY: the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    // An older program knows fewer fields, a newer one more; no version cuts one in half.
    if (size_of::<usize>()..=MAX_STRUCT_SIZE).contains(&size) && size.is_multiple_of(align_of::<T>()) {
        return Ok(size);
    }
    let (name, this) = (T::NAME, size_of::<T>());
    Err(Failure::invalid(format!(
        "{name}.struct_size is {size}, expected sizeof({name}), which is {this} in this version"
    )))
}

/// A copy of `text` with a NUL behind it, for `pyrex_string_free`.
pub(crate) fn give_text(text: &str) -> Result<*mut c_char> {
    // SAFETY: `malloc` may be asked for any size.
    let copy = unsafe { libc::malloc(text.len() + 1) }.cast::<u8>();
    if copy.is_null() {
        let message = format!("no memory for a text of {} bytes", text.len());
        return Err(Failure::new(crate::status::pyrex_status_t::PYREX_OUT_OF_MEMORY, message));
    }
    // SAFETY: `copy` has room for the text and its NUL.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        copy.add(text.len()).write(0);
    }
    Ok(copy.cast())
}

/// Frees a text that Pyrex gave. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_string_free(text: *mut c_char) {
    // SAFETY: NULL, or what `give_text` took from `malloc`.
    unsafe { libc::free(text.cast()) }
}
