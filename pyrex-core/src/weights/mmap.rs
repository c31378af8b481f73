//! Files mapped into memory: a weight is read when it is first used, and shared with every other process that maps it.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::ops::matrix::SharedBytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The bytes of the file at `path`, mapped.
///
/// # Errors
/// `Io` if it cannot be opened or mapped.
pub fn map(path: &Path) -> Result<SharedBytes> {
    let io = |error: std::io::Error| Error::io(format_args!("{}: {error}", path.display()));
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read only. That nobody shortens or rewrites the file while it is mapped is the caller's
    // promise: `Engine::open` documents that a checkpoint must not change while an engine uses it.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}
