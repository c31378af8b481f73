//! C's functions. Each is a line: its arguments, what must be true before it may be called, and what of the driver it calls.
//!
//! [`Out`] and its like are what C passes where Rust would have a reference; only C makes them, so its caller's promises hold.

#![allow(non_snake_case, reason = "the names are CUDA's")]

mod blas;
mod blaslt;
mod device;
mod graph;
mod launch;
mod memory;
mod pointers;
mod rand;
mod stream;
#[cfg(test)]
mod tests;

use crate::driver::{Driver, say};
use crate::status::{Outcome, Status};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

pub(crate) use pointers::{In, Out, Text};

/// Declares functions of C, each with the status of what stands behind `=`.
macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:expr;)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> u32 {
            $body
        })*
    };
}
pub(crate) use exports;

/// The one context that there is.
pub(crate) const CONTEXT: u64 = 0x6000_0000_0010;
const MEMORY: u64 = 8 << 30;

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    let bytes = std::env::var("PYREX_EMULATOR_MEMORY").ok().and_then(|bytes| bytes.parse().ok());
    Mutex::new(Driver::new(bytes.unwrap_or(MEMORY)))
});

/// Whether the process ends, and the libraries with it.
static ENDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
    /// The thread's current context, or 0.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Calls that are right at any time before the process ends. Then a device's libraries say so, if they do not crash.
pub(crate) fn always(body: impl FnOnce(&mut Driver) -> Outcome) -> u32 {
    if ENDED.load(Ordering::Acquire) {
        say(format_args!("a thread uses the device while the process ends"));
        return Status::DEINITIALIZED.0;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
        driver.caller = THREAD.with(|thread| *thread);
        body(&mut driver)
    }));
    match outcome.unwrap_or(Err(Status::UNKNOWN)) {
        Ok(()) => 0,
        Err(status) => status.0,
    }
}

/// Calls that need `cuInit` before them.
pub(crate) fn ready(body: impl FnOnce(&mut Driver) -> Outcome) -> u32 {
    always(|driver| if driver.is_initialized { body(driver) } else { Err(Status::NOT_INITIALIZED) })
}

/// Calls that need a context, in which nothing has failed.
pub(crate) fn bound(body: impl FnOnce(&mut Driver) -> Outcome) -> u32 {
    ready(|driver| {
        if CURRENT.get() == 0 {
            return Err(Status::INVALID_CONTEXT);
        }
        driver.sticky.map_or(Ok(()), Err)?;
        body(driver)
    })
}

exports! {
    /// Fills the first `bytes` bytes of `counters`: of this library alone, for tests.
    fn pyrex_emulator_counters(counters: *mut u8, bytes: usize) = always(|driver| {
        pointers::fill(counters, bytes, &driver.counters())
    });
}

/// Runs when the process ends.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_exit() {
    if std::env::var_os("PYREX_EMULATOR_REPORT").is_some() && LazyLock::get(&DRIVER).is_some() {
        always(|driver| {
            driver.counters();
            eprintln!("pyrex-emulator: {}", driver.report);
            Ok(())
        });
    }
    ENDED.store(true, Ordering::Release);
    if LazyLock::get(&DRIVER).is_some() {
        // As long as a driver shuts down: who calls it meanwhile is seen.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
