//! Status codes, and what the last failure on a thread was.

use pyrex_core::{Error, ErrorKind};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

/// How a call ended. Numbers are fixed for good; later versions may add some, so treat one that you do not know as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum pyrex_status_t {
    /// It worked.
    PYREX_OK = 0,
    /// The request itself is wrong: its prompt, an image, a parameter, an option.
    PYREX_INVALID_REQUEST = 1,
    /// The model is wrong: a missing, left-over or misshaped tensor, a bad config, a damaged file.
    PYREX_INVALID_MODEL = 2,
    /// Well formed, but not something this build can do.
    PYREX_UNSUPPORTED = 3,
    /// The queue is full; try again later.
    PYREX_OVERLOADED = 4,
    /// It was cancelled.
    PYREX_CANCELLED = 5,
    /// The deadline passed.
    PYREX_DEADLINE_EXCEEDED = 6,
    /// No memory is left for it.
    PYREX_OUT_OF_MEMORY = 7,
    /// The device failed or is not there.
    PYREX_DEVICE = 8,
    /// The operating system refused a file, a thread or a descriptor.
    PYREX_IO = 9,
    /// The engine is closed, or drains, and takes no more requests.
    PYREX_CLOSED = 10,
    /// A broken invariant of Pyrex: please report it.
    PYREX_INTERNAL = 11,
    /// A pointer is NULL that must not be.
    PYREX_NULL_ARGUMENT = 100,
    /// Pyrex panicked and caught it: please report it. The engine that was called is closed; others are not touched.
    PYREX_PANIC = 101,
    /// The object was made before this process was forked: only the process that made it can use it.
    PYREX_FORKED = 102,
    /// Another thread reads this request right now.
    PYREX_BUSY = 103,
    /// No event yet. Not a failure: pyrex_last_error_message() does not change.
    PYREX_PENDING = 200,
    /// The final event was read; none will ever follow. Not a failure either.
    PYREX_ENDED = 201,
}

use pyrex_status_t::*;

impl pyrex_status_t {
    const ALL: [Self; 18] = [
        PYREX_OK,
        PYREX_INVALID_REQUEST,
        PYREX_INVALID_MODEL,
        PYREX_UNSUPPORTED,
        PYREX_OVERLOADED,
        PYREX_CANCELLED,
        PYREX_DEADLINE_EXCEEDED,
        PYREX_OUT_OF_MEMORY,
        PYREX_DEVICE,
        PYREX_IO,
        PYREX_CLOSED,
        PYREX_INTERNAL,
        PYREX_NULL_ARGUMENT,
        PYREX_PANIC,
        PYREX_FORKED,
        PYREX_BUSY,
        PYREX_PENDING,
        PYREX_ENDED,
    ];

    fn name(self) -> &'static CStr {
        match self {
            PYREX_OK => c"ok",
            PYREX_INVALID_REQUEST => c"invalid_request",
            PYREX_INVALID_MODEL => c"invalid_model",
            PYREX_UNSUPPORTED => c"unsupported",
            PYREX_OVERLOADED => c"overloaded",
            PYREX_CANCELLED => c"cancelled",
            PYREX_DEADLINE_EXCEEDED => c"deadline_exceeded",
            PYREX_OUT_OF_MEMORY => c"out_of_memory",
            PYREX_DEVICE => c"device",
            PYREX_IO => c"io",
            PYREX_CLOSED => c"closed",
            PYREX_INTERNAL => c"internal",
            PYREX_NULL_ARGUMENT => c"null_argument",
            PYREX_PANIC => c"panic",
            PYREX_FORKED => c"forked",
            PYREX_BUSY => c"busy",
            PYREX_PENDING => c"pending",
            PYREX_ENDED => c"ended",
        }
    }
}

impl From<ErrorKind> for pyrex_status_t {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidRequest => PYREX_INVALID_REQUEST,
            ErrorKind::InvalidModel => PYREX_INVALID_MODEL,
            ErrorKind::Unsupported => PYREX_UNSUPPORTED,
            ErrorKind::Overloaded => PYREX_OVERLOADED,
            ErrorKind::Cancelled => PYREX_CANCELLED,
            ErrorKind::DeadlineExceeded => PYREX_DEADLINE_EXCEEDED,
            ErrorKind::OutOfMemory => PYREX_OUT_OF_MEMORY,
            ErrorKind::Device => PYREX_DEVICE,
            ErrorKind::Io => PYREX_IO,
            ErrorKind::Closed => PYREX_CLOSED,
            ErrorKind::Internal => PYREX_INTERNAL,
            // A kind that has no code yet; the tests know of every kind.
            _ => PYREX_INTERNAL,
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: pyrex_status_t,
    message: String,
}

impl Failure {
    pub(crate) fn new(status: pyrex_status_t, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn null(name: &str) -> Self {
        Self::new(PYREX_NULL_ARGUMENT, format!("{name} is NULL"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(PYREX_INVALID_REQUEST, message)
    }

    /// Leaves the message for `pyrex_last_error_message`, and returns the status.
    pub(crate) fn tell(self) -> pyrex_status_t {
        let message = c_string(self.message);
        // A thread that is ending has nobody left to ask.
        let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = Some((self.status, message)));
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind().into(), error.message())
    }
}

/// C reads up to the first NUL, so there is none inside.
pub(crate) fn c_string(mut text: String) -> CString {
    text.retain(|c| c != '\0');
    CString::new(text).unwrap_or_default()
}

thread_local! {
    /// What C's errno is to its functions: a return value has no room for a message.
    static LAST_ERROR: RefCell<Option<(pyrex_status_t, CString)>> = const { RefCell::new(None) };
}

/// The status of the last call on this thread that failed; PYREX_OK if none did. Calls that succeed leave it alone.
#[unsafe(no_mangle)]
pub extern "C" fn pyrex_last_error_status() -> pyrex_status_t {
    LAST_ERROR
        .try_with(|last| last.borrow().as_ref().map_or(PYREX_OK, |(status, _)| *status))
        .unwrap_or(PYREX_OK)
}

/// What the last call on this thread that failed has to say: one line that names what was expected and what was found;
/// empty if none failed. Valid until the next call on this thread that fails, or until the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn pyrex_last_error_message() -> *const c_char {
    let message = |last: &RefCell<Option<(pyrex_status_t, CString)>>| {
        last.borrow().as_ref().map_or(c"".as_ptr(), |(_, message)| message.as_ptr())
    };
    LAST_ERROR.try_with(message).unwrap_or(c"".as_ptr())
}

/// A status as a word, such as "invalid_request"; "unknown" for a number that is none. Never to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn pyrex_status_name(status: i32) -> *const c_char {
    let known = pyrex_status_t::ALL.into_iter().find(|known| *known as i32 == status);
    known.map_or(c"unknown", pyrex_status_t::name).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_and_its_status_have_one_number_and_one_name() {
        for kind in [
            ErrorKind::InvalidRequest,
            ErrorKind::InvalidModel,
            ErrorKind::Unsupported,
            ErrorKind::Overloaded,
            ErrorKind::Cancelled,
            ErrorKind::DeadlineExceeded,
            ErrorKind::OutOfMemory,
            ErrorKind::Device,
            ErrorKind::Io,
            ErrorKind::Closed,
            ErrorKind::Internal,
        ] {
            let status = pyrex_status_t::from(kind);
            assert_eq!((status as i32, status.name().to_str()), (kind as i32, Ok(kind.name())));
        }
    }

    #[test]
    fn every_status_is_known_by_its_number() {
        let numbers = pyrex_status_t::ALL.map(|status| status as i32);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 100, 101, 102, 103, 200, 201]);
    }

    #[test]
    fn a_message_with_a_nul_is_told_without_it() {
        assert_eq!(c_string("a\0b".to_owned()).as_c_str(), c"ab");
    }
}
