//! The one error type of the crate: a small stable kind callers can branch on, and a message with the numbers in it.
//!
//! Every binding maps [`ErrorKind`] one to one, onto C status codes, Elixir atoms and HTTP statuses.
//! Nothing else of Pyrex is known here.

use std::fmt;

/// What went wrong, in the few words a caller can act on. Numbers are fixed for good: a retired one stays as a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorKind {
    /// The request itself is wrong: its prompt, an image, a sampling parameter.
    InvalidRequest = 1,
    /// The model folder is wrong: a missing, left-over or misshaped tensor, a bad config, a damaged file.
    InvalidModel = 2,
    /// Well formed, but not something this build can do.
    Unsupported = 3,
    /// The queue is full; try again later.
    Overloaded = 4,
    /// The caller cancelled, or dropped its handle.
    Cancelled = 5,
    /// The deadline of the request passed.
    DeadlineExceeded = 6,
    /// No memory is left for it.
    OutOfMemory = 7,
    /// The device failed or is not there.
    Device = 8,
    /// The operating system refused a file.
    Io = 9,
    /// The engine is closed and takes no more requests.
    Closed = 10,
    /// A broken invariant of ours: please report it.
    Internal = 11,
}

impl ErrorKind {
    /// The kind as a word, the same in every binding.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidModel => "invalid_model",
            Self::Unsupported => "unsupported",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::OutOfMemory => "out_of_memory",
            Self::Device => "device",
            Self::Io => "io",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

/// An [`ErrorKind`] and a message that says what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// `Result` with Pyrex's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),+ $(,)?) => {
        $(
            #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub fn $name(message: impl fmt::Display) -> Self {
                Self { kind: ErrorKind::$kind, message: one_line(message.to_string()) }
            }
        )+
    };
}

impl Error {
    constructors! {
        invalid_request => InvalidRequest,
        invalid_model => InvalidModel,
        unsupported => Unsupported,
        overloaded => Overloaded,
        cancelled => Cancelled,
        deadline_exceeded => DeadlineExceeded,
        out_of_memory => OutOfMemory,
        device => Device,
        io => Io,
        closed => Closed,
        internal => Internal,
    }

    /// What went wrong, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What went wrong, to read: lower case, one line, no full stop.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with `context` in front of its message, as in `config.json: …`.
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: one_line(format!("{context}: {}", self.message)) }
    }
}

/// What a message quotes, such as a tensor's name, may hold line breaks and what moves a terminal's cursor.
fn one_line(message: String) -> String {
    if message.contains(char::is_control) { message.replace(char::is_control, " ") } else { message }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Tensor operations fail only where a check of ours is missing; the text is the tensor library's, first line only.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        match error {
            candle_core::Error::Cuda(_) if text.contains("OUT_OF_MEMORY") => Self::out_of_memory(line),
            candle_core::Error::Cuda(_) => Self::device(line),
            _ => Self::internal(line),
        }
    }
}
