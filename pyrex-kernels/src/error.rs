//! [`Error`]: why a kernel was not launched.

use std::fmt;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a kernel was not launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The arguments do not fit each other, or the kernel: what was expected and what was found.
    Arguments(String),
    /// The device has no memory left.
    OutOfMemory(String),
    /// What the driver said.
    Driver(String),
}

impl Error {
    /// The arguments do not fit.
    pub(crate) fn arguments(message: impl fmt::Display) -> Self {
        Self::Arguments(message.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(message) | Self::OutOfMemory(message) | Self::Driver(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for Error {}
