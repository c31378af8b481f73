//! A binary of the BEAM that outlives the call it came with, without a copy.
#![allow(unsafe_code)]

use rustler::{Binary, Encoder, Env, OwnedEnv};
use std::slice;
use std::sync::Mutex;

/// The bytes of a binary, and what keeps them.
pub(crate) struct KeptBinary {
    bytes: *const u8,
    len: usize,
    /// Refers to the binary, so that it is not collected. Only to be dropped.
    _keeper: Mutex<OwnedEnv>,
}

// SAFETY: a binary of the BEAM never changes, and `_keeper` may be dropped on any thread.
unsafe impl Send for KeptBinary {}
// SAFETY: as above: it is only read.
unsafe impl Sync for KeptBinary {}

impl KeptBinary {
    /// Keeps `binary` for as long as the result lives.
    pub(crate) fn new(env: Env<'_>, binary: Binary<'_>) -> Self {
        let keeper = OwnedEnv::new();
        let (bytes, len) = keeper.run(|own| {
            let kept = binary.encode(env).in_env(own);
            Binary::from_term(kept).map_or((std::ptr::null(), 0), |kept| (kept.as_ptr(), kept.len()))
        });
        Self { bytes, len, _keeper: Mutex::new(keeper) }
    }
}

impl AsRef<[u8]> for KeptBinary {
    fn as_ref(&self) -> &[u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: the keeper's own term refers to these bytes, and its environment is never cleared: a small binary lies in
        // the environment's heap, which does not move, a large one is counted.
        unsafe { slice::from_raw_parts(self.bytes, self.len) }
    }
}
