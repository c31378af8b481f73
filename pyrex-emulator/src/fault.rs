//! [`Fault`]: what went wrong; [`Trouble`]: the same before the place is known.

use std::fmt;

/// What went wrong: where in the PTX, in which thread, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What, with the place.
    pub message: String,
}

impl Fault {
    /// A fault with its message.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }

    /// A fault of what stands in line `line` of the PTX.
    pub(crate) fn at_line(line: u32, message: impl fmt::Display) -> Self {
        Self { message: format!("PTX line {line}: {message}") }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// What a lane of a warp did wrong; the warp adds the place.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The lane, unless it is the whole warp's.
    pub(crate) lane: Option<usize>,
    /// What.
    pub(crate) what: String,
}

impl Trouble {
    /// What the warp as a whole did wrong.
    pub(crate) fn warp(what: impl fmt::Display) -> Self {
        Self { lane: None, what: what.to_string() }
    }

    /// What lane `lane` did wrong.
    pub(crate) fn lane(lane: usize, what: impl fmt::Display) -> Self {
        Self { lane: Some(lane), what: what.to_string() }
    }
}
