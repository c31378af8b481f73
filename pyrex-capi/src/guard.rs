//! Panics become a status here, and nowhere else; and an object is refused in a process that did not make it.

use crate::status::{Failure, pyrex_status_t};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Runs the body of an exported function.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> pyrex_status_t {
    guard_status(|| body().map(|()| pyrex_status_t::PYREX_OK))
}

/// As [`guard`], for a function that may end well in several ways.
pub(crate) fn guard_status(body: impl FnOnce() -> Result<pyrex_status_t>) -> pyrex_status_t {
    caught(body).unwrap_or_else(Failure::tell)
}

/// Runs `body`; a panic is a failure.
///
/// What `body` was changing when it panicked is in doubt: an engine is closed then, and everything else that exported
/// functions change is written in one step.
pub(crate) fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        // Dropping what somebody panicked with could panic again, and there is nobody left to catch it.
        std::mem::forget(panic);
        Err(Failure::new(pyrex_status_t::PYREX_PANIC, message))
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic in Pyrex: {}", text.unwrap_or("no message").lines().next().unwrap_or_default())
}

/// The process that made an object. A fork has its memory, but not the threads that work on it.
#[derive(Clone, Copy)]
pub(crate) struct Home {
    process_id: u32,
}

impl Home {
    pub(crate) fn here() -> Self {
        Self { process_id: process::id() }
    }

    pub(crate) fn is_here(self) -> bool {
        self.process_id == process::id()
    }

    pub(crate) fn check(self) -> Result<()> {
        let (made, here) = (self.process_id, process::id());
        let message =
            || format!("made by process {made}, called in process {here}: open an engine after forking");
        if made == here { Ok(()) } else { Err(Failure::new(pyrex_status_t::PYREX_FORKED, message())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::pyrex_last_error_message;
    use std::ffi::CStr;

    fn last_message() -> String {
        // SAFETY: the pointer is to a C string that lives until the next failure on this thread.
        unsafe { CStr::from_ptr(pyrex_last_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_a_status_with_its_message() {
        assert_eq!(guard(|| panic!("{} sheep\nand a goat", 3)), pyrex_status_t::PYREX_PANIC);
        assert_eq!(last_message(), "a panic in Pyrex: 3 sheep");
    }

    /// Dropping such a payload outside of the guard would abort the host.
    #[test]
    fn a_panic_with_a_payload_that_panics_is_a_status_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(guard(|| std::panic::panic_any(Bomb)), pyrex_status_t::PYREX_PANIC);
        assert_eq!(last_message(), "a panic in Pyrex: no message");
    }

    #[test]
    fn another_process_is_refused() {
        assert!(Home::here().check().is_ok() && Home::here().is_here());
        let elsewhere = Home { process_id: process::id().wrapping_add(1) };
        assert!(!elsewhere.is_here());
        assert_eq!(elsewhere.check().map_err(|failure| failure.status), Err(pyrex_status_t::PYREX_FORKED));
    }
}
