//! Memory of the program. All that is read or written there goes through here.

/// What lies at `address`.
///
/// # Safety
/// `len` bytes there must be the program's to read.
pub(crate) unsafe fn read(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: the caller's promise; what was just allocated overlaps nothing.
    unsafe { std::ptr::copy_nonoverlapping(pointer(address), bytes.as_mut_ptr(), len) };
    bytes
}

/// Writes `bytes` to `address`.
///
/// # Safety
/// As many bytes there must be the program's to write, and it must not use them meanwhile.
pub(crate) unsafe fn write(address: u64, bytes: &[u8]) {
    // SAFETY: the caller's promise; `bytes` are this library's own.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(address), bytes.len()) };
}

/// `address` as Rust has it.
pub(crate) fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("a pointer has 64 bits"))
}
