//! The threads that ops spread over: whoever runs a model builds a pool and calls the ops inside of it.

use crate::error::{Error, Result};
use std::num::NonZeroUsize;
use std::thread;

/// A pool of `num_threads` threads, one per core if not given.
///
/// # Errors
/// `InvalidRequest` if that is none, `Io` if they cannot be started.
pub fn thread_pool(num_threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let num_threads = num_threads.unwrap_or_else(num_cores);
    if num_threads == 0 {
        return Err(Error::invalid_request("num_threads is 0, expected at least 1"));
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
