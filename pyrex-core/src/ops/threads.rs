//! The threads that ops spread over: whoever runs a model builds a pool and calls the ops inside of it.

use crate::error::{Error, Result};
use std::num::NonZeroUsize;
use std::thread;

/// More than any machine has cores; starting very many would take its memory first.
pub const MAX_THREADS: usize = 4096;

/// A pool of `num_threads` threads, one per core if not given.
///
/// # Errors
/// `InvalidRequest` if that is none or more than [`MAX_THREADS`], `Io` if they cannot be started.
pub fn thread_pool(num_threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let num_threads = num_threads.unwrap_or_else(num_cores);
    if !(1..=MAX_THREADS).contains(&num_threads) {
        return Err(Error::invalid_request(format_args!(
            "num_threads is {num_threads}, expected 1 to {MAX_THREADS}"
        )));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(num_threads)
        .thread_name(|idx| format!("pyrex-{idx}"))
        .build()
        .map_err(|e| Error::io(format_args!("cannot start {num_threads} threads: {e}")))
}

/// Cores that this process may use.
pub fn num_cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
