//! `pyrex_request_t`: a request that was submitted.

use crate::abi::{Out, object, read_text, take_back};
use crate::engine::{pyrex_engine_t, with_engine_giving};
use crate::event::{Shown, pyrex_event_t};
use crate::guard::{Home, Result, guard, guard_status};
use crate::prompt::pyrex_prompt_t;
use crate::sampling::{pyrex_request_options_t, read_request};
use crate::signal::{Signal, pyrex_notify_fn};
use crate::status::{Failure, pyrex_status_t};
use pyrex_core::{Engine, Next, Request, RequestControl, RequestHandle, SamplingParams};
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// As a timeout: however long it takes.
pub const PYREX_FOREVER: i64 = -1;

/// A request that was submitted. One thread reads its events at a time; any thread may cancel it.
pub struct pyrex_request_t {
    reader: Mutex<Reader>,
    control: RequestControl,
    signal: Arc<Signal>,
    home: Home,
}

struct Reader {
    handle: RequestHandle,
    shown: Shown,
}

impl pyrex_request_t {
    fn submit(engine: &Engine, request: Request, user_data: *mut c_void) -> Result<Self> {
        let signal = Arc::new(Signal::new(user_data));
        let told = signal.clone();
        let handle = engine.submit_notifying(request, Box::new(move || told.raise()))?;
        let control = handle.control();
        let reader = Mutex::new(Reader { handle, shown: Shown::new(user_data) });
        Ok(Self { reader, control, signal, home: Home::here() })
    }

    fn read(&self) -> Result<MutexGuard<'_, Reader>> {
        match self.reader.try_lock() {
            Ok(reader) => Ok(reader),
            Err(TryLockError::Poisoned(reader)) => Ok(reader.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(pyrex_status_t::PYREX_BUSY, "another thread reads this request"))
            }
        }
    }

    /// Lays out the next event, waited for until `deadline`, or however long it takes.
    fn next(&self, out: &Out<*const pyrex_event_t>, deadline: Option<Instant>) -> Result<pyrex_status_t> {
        let mut reader = self.read()?;
        let next = loop {
            let seen = self.signal.num_events();
            match reader.handle.try_next() {
                Next::Pending if self.signal.wait_past(seen, deadline) => {}
                next => break next,
            }
        };
        self.signal.lower(|| reader.handle.has_event());
        match next {
            Next::Event(event) => {
                out.set(reader.shown.show(event));
                Ok(pyrex_status_t::PYREX_OK)
            }
            Next::Pending => Ok(pyrex_status_t::PYREX_PENDING),
            Next::Ended => Ok(pyrex_status_t::PYREX_ENDED),
        }
    }
}

/// The request behind a handle, in the process that made it.
///
/// # Safety
/// As [`object`].
unsafe fn request_at<'a>(request: *const pyrex_request_t) -> Result<&'a pyrex_request_t> {
    // SAFETY: the caller's promise.
    let request = unsafe { object("request", request)? };
    request.home.check()?;
    Ok(request)
}

/// Asks. Returns at once: the prompt is rendered and its images are decoded on another thread; only a grammar is compiled on
/// this one. `options` may be NULL. Prompt and options are copied. `*request` is to be freed with pyrex_request_free().
///
/// PYREX_INVALID_REQUEST if a parameter or the grammar is wrong, PYREX_OVERLOADED if the queue is full, PYREX_CLOSED if the
/// engine has closed or drains. Whatever is wrong with the prompt comes as the request's PYREX_EVENT_FAILED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_submit(
    engine: *const pyrex_engine_t,
    prompt: *const pyrex_prompt_t,
    options: *const pyrex_request_options_t,
    request: *mut *mut pyrex_request_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine_giving(engine, ("request", request), |engine, out| {
            let (asked, user_data) = read_request(object("prompt", prompt)?.input(), options)?;
            out.give(pyrex_request_t::submit(engine, asked, user_data)?);
            Ok(())
        })
    }
}

/// Asks with one JSON object, the body of OpenAI's `/v1/chat/completions` (it has `messages`) or `/v1/completions` (it has
/// `prompt`). Images are data URLs. Fields that are not supported are refused by name. What the body says nothing about is as
/// the checkpoint recommends. `model`, `user` and `stream` change nothing here: the events are the same.
///
/// Otherwise as pyrex_engine_submit(); `user_data` is handed back in every event and to the notify function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_submit_json(
    engine: *const pyrex_engine_t,
    json: *const c_char,
    json_len: usize,
    user_data: *mut c_void,
    request: *mut *mut pyrex_request_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe {
        with_engine_giving(engine, ("request", request), |engine, out| {
            let body = read_text("json", json, json_len)?;
            let asked = pyrex_openai::read(body.as_bytes(), &SamplingParams::from_model(engine.spec()))?;
            out.give(pyrex_request_t::submit(engine, asked.request, user_data)?);
            Ok(())
        })
    }
}

/// Reads the next event, waiting for up to `timeout_ms`; PYREX_FOREVER waits as long as it takes. `*event` is lent until the
/// next event of this request is read or the request is freed; it is written only with PYREX_OK.
///
/// PYREX_PENDING if no event came in time, PYREX_ENDED after the final one, PYREX_BUSY if another thread reads this request.
/// Events that nobody reads make the request pause, and it goes on when half of them are read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_next(
    request: *mut pyrex_request_t,
    timeout_ms: i64,
    event: *mut *const pyrex_event_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard_status(|| unsafe {
        let deadline = match timeout_ms {
            PYREX_FOREVER => None,
            // What the clock cannot count takes as long as it takes.
            0.. => Instant::now().checked_add(Duration::from_millis(timeout_ms as u64)),
            _ => {
                return Err(Failure::invalid(format!(
                    "timeout_ms is {timeout_ms}, expected 0 or more, or PYREX_FOREVER"
                )));
            }
        };
        let (request, out) = (request_at(request)?, Out::new("event", event)?);
        request.next(&out, deadline)
    })
}

/// As pyrex_request_next(), without waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_try_next(
    request: *mut pyrex_request_t,
    event: *mut *const pyrex_event_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard_status(|| unsafe {
        let (request, out) = (request_at(request)?, Out::new("event", event)?);
        request.next(&out, Some(Instant::now()))
    })
}

/// Sets the function that is told when there may be an event to read; NULL tells nobody any more. It is called once before this
/// returns. Replacing it does not wait for a call of the one before; pyrex_request_free() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_set_notify(
    request: *mut pyrex_request_t,
    notify: pyrex_notify_fn,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let request = request_at(request)?;
        // The host may free the request from inside of its function.
        let signal = request.signal.clone();
        signal.set_notify(notify);
        Ok(())
    })
}

/// A descriptor that poll() and epoll report as readable while an event can be read, and perhaps once more: read events with
/// pyrex_request_try_next() until it says PYREX_PENDING or PYREX_ENDED. Neither read nor close it: it belongs to the request.
/// PYREX_UNSUPPORTED anywhere but on Linux.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_descriptor(
    request: *mut pyrex_request_t,
    descriptor: *mut i32,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let (request, out) = (request_at(request)?, Out::new("descriptor", descriptor)?);
        out.set(request.signal.descriptor()?);
        Ok(())
    })
}

/// The pointer that was given when the request was submitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_user_data(
    request: *const pyrex_request_t,
    user_data: *mut *mut c_void,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let (request, out) = (request_at(request)?, Out::new("user_data", user_data)?);
        out.set(request.signal.user_data());
        Ok(())
    })
}

/// Asks the engine to end the request; events up to the final one, PYREX_EVENT_FAILED with PYREX_CANCELLED, still come. Does
/// nothing to a request that has ended or was cancelled before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_cancel(request: *const pyrex_request_t) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        request_at(request)?.control.cancel();
        Ok(())
    })
}

/// Frees a request, and cancels it if it has not ended; NULL is fine. Waits for a call of its notify function on another
/// thread, and for nothing else. No other thread may be in a call on this request. In a forked process it does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_request_free(request: *mut pyrex_request_t) {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let Ok(shared) = object("request", request) else { return Ok(()) };
        // In a fork the locks inside may have been held by threads that are not there.
        if shared.home.is_here() {
            shared.signal.close();
            // The function of the host, which may use the request, is not called any more.
            drop(take_back(request));
        }
        Ok(())
    });
}
