//! [`Refusal`]: why a body is refused, and how an error looks to a client of OpenAI's.

use pyrex_core::{Error, ErrorKind};
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// What is wrong with a body, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    error: Error,
    param: Option<String>,
}

impl Refusal {
    pub(crate) fn new(error: Error, param: Option<String>) -> Self {
        Self { error, param }
    }

    /// What is wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The path of the field that is wrong, if it is one.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error, None)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// The HTTP status of an error.
///
/// A request that was cancelled has 499, which is nobody's standard: whoever cancelled it seldom reads the answer.
pub fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::Unsupported => 400,
        ErrorKind::Overloaded => 429,
        ErrorKind::Cancelled => 499,
        ErrorKind::Closed | ErrorKind::OutOfMemory => 503,
        ErrorKind::DeadlineExceeded => 504,
        _ => 500,
    }
}

/// An error as the body of an answer; `param` is the path of the field that is wrong.
pub fn error_body(error: &Error, param: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    crate::reply::write(&mut body, &ErrorBody::new(error, param));
    body
}

/// An error as OpenAI writes it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorObject<'a> {
    /// What was found and what was expected.
    message: &'a str,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    r#type: &'static str,
    /// The path of the field that is wrong, if it is one.
    param: Option<&'a str>,
    /// The kind of error, one of Pyrex's.
    code: &'static str,
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn new(error: &'a Error, param: Option<&'a str>) -> Self {
        let r#type = match status(error.kind()) {
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        Self { error: ErrorObject { message: error.message(), r#type, param, code: error.kind().name() } }
    }
}
