//! Which version this is.

use std::ffi::c_char;

/// The version of this binary interface. Functions and constants may be added, and fields at the end of structs, under the same
/// version; whatever would break a compiled program changes it, and with it the name of the shared library.
pub const PYREX_ABI_VERSION: u32 = 1;

/// The version of the binary interface that the library has. A program compares it with PYREX_ABI_VERSION, what it was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn pyrex_abi_version() -> u32 {
    PYREX_ABI_VERSION
}

/// The version of Pyrex, such as "0.1.0". Never to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn pyrex_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
