//! An error as `{kind, message}`.

use crate::atoms;
use pyrex_core::{Error, ErrorKind};
use rustler::{Atom, Encoder, Env, Term};

/// An error on its way to Elixir.
pub(crate) struct Told(pub(crate) Error);

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Encoder for Told {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (kind(self.0.kind()), self.0.message()).encode(env)
    }
}

fn kind(kind: ErrorKind) -> Atom {
    match kind {
        ErrorKind::InvalidRequest => atoms::invalid_request(),
        ErrorKind::InvalidModel => atoms::invalid_model(),
        ErrorKind::Unsupported => atoms::unsupported(),
        ErrorKind::Overloaded => atoms::overloaded(),
        ErrorKind::Cancelled => atoms::cancelled(),
        ErrorKind::DeadlineExceeded => atoms::deadline_exceeded(),
        ErrorKind::OutOfMemory => atoms::out_of_memory(),
        ErrorKind::Device => atoms::device(),
        ErrorKind::Io => atoms::io(),
        ErrorKind::Closed => atoms::closed(),
        ErrorKind::Internal => atoms::internal(),
        // A kind that has no atom yet.
        _ => atoms::internal(),
    }
}

/// The error of a kind that Elixir names.
pub(crate) fn of_kind(kind: &str, message: String) -> Error {
    match kind {
        "invalid_request" => Error::invalid_request(message),
        "unsupported" => Error::unsupported(message),
        "overloaded" => Error::overloaded(message),
        "cancelled" => Error::cancelled(message),
        "deadline_exceeded" => Error::deadline_exceeded(message),
        "closed" => Error::closed(message),
        _ => Error::internal(message),
    }
}
