//! `pyrex_file_t`: a file of a model in memory, lent by the host.

use crate::abi::{array, c_text};
use crate::callback::HostData;
use crate::guard::Result;
use pyrex_core::SharedBytes;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::slice;
use std::sync::Arc;

/// A file of a model in memory. This struct never grows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_file_t {
    /// Its name in the folder of the model, such as "config.json".
    pub name: *const c_char,
    /// Its bytes. They must stay as they are until `release` is called.
    pub bytes: *const u8,
    /// How many.
    pub len: usize,
    /// Called when they are needed no more. NULL: they outlive the process's use of Pyrex. Must not unwind.
    pub release: Option<unsafe extern "C" fn(release_data: *mut c_void)>,
    /// Handed to `release`.
    pub release_data: *mut c_void,
}

/// Bytes that are given back when nobody reads them any more.
struct Lent {
    bytes: *const u8,
    len: usize,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
    data: HostData,
}

// SAFETY: the header asks that the bytes stay as they are, and says that `release` may be called from any thread.
unsafe impl Send for Lent {}
// SAFETY: as above: they are only read.
unsafe impl Sync for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: `take_files` checked the length, and the header asks that so many bytes are there until `release`.
        unsafe { slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: a function of this type, as the header asks, called once with its own data.
            unsafe { release(self.data.pointer()) }
        }
    }
}

/// Takes every file over before it looks at any, so that each is released whatever happens.
pub(crate) fn take_files(files: &[pyrex_file_t]) -> Result<BTreeMap<String, SharedBytes>> {
    let lent = |file: &pyrex_file_t| Lent {
        bytes: file.bytes,
        len: file.len,
        release: file.release,
        data: HostData::new(file.release_data),
    };
    let lent: Vec<Lent> = files.iter().map(lent).collect();
    let mut taken = BTreeMap::<String, SharedBytes>::new();
    for (file, lent) in files.iter().zip(lent) {
        // SAFETY: what the header asks of every caller.
        let name = unsafe {
            let name = c_text("the name of a file", file.name)?;
            array(name, file.bytes, file.len)?;
            name
        };
        taken.insert(name.to_owned(), Arc::new(lent));
    }
    Ok(taken)
}
