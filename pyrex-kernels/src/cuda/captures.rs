//! What must not happen while a thread captures.
//!
//! A capture is spoiled by whoever waits for its context meanwhile, and that wait fails: whichever thread waits, whatever stream and
//! mode is captured. All that use a device in one process share one context, and know nothing of each other.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Captures read, what would spoil them writes. It is the process's because the context is.
static CAPTURES: RwLock<()> = RwLock::new(());

/// Does what waits for a whole context when nobody captures: opening a device, unloading kernels, closing cuBLAS. A thread that
/// captures must not, nor may it be done in `work`: it would wait for itself.
pub fn between_captures<T>(work: impl FnOnce() -> T) -> T {
    let _turn = CAPTURES.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Held for as long as a thread captures.
pub(super) fn begin() -> RwLockReadGuard<'static, ()> {
    CAPTURES.read().unwrap_or_else(PoisonError::into_inner)
}
