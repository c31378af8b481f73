//! [`RequestControl`]: what ends a request, or lets it go on, from anywhere.

use super::core::Command;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Cancels or resumes one request. Cheap to clone; does nothing once the request has ended.
#[derive(Clone, Debug)]
pub struct RequestControl {
    shared: Arc<Shared>,
    commands: Sender<Command>,
}

#[derive(Debug)]
struct Shared {
    cancelled: AtomicBool,
    paused: AtomicBool,
    deadline: Option<Instant>,
}

impl RequestControl {
    pub(crate) fn new(deadline: Option<Instant>, commands: Sender<Command>) -> Self {
        let shared = Shared { cancelled: AtomicBool::new(false), paused: AtomicBool::new(false), deadline };
        Self { shared: Arc::new(shared), commands }
    }

    /// Asks the engine to end the request; its final event is a [`Cancelled`](crate::ErrorKind::Cancelled) failure.
    pub fn cancel(&self) {
        if !self.shared.cancelled.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Tells the engine that the request's sink has room again: see [`EventSink::has_room`](super::EventSink::has_room).
    pub fn resume(&self) {
        if self.shared.paused.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    fn wake(&self) {
        // If the core is gone, so is the request.
        let _ = self.commands.send(Command::Wake);
    }

    /// Pauses until [`resume`](Self::resume).
    pub(crate) fn pause(&self) {
        self.shared.paused.store(true, Ordering::Release);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.shared.deadline
    }

    /// Whether the request is still wanted.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`, if it is not.
    pub(crate) fn check(&self, now: Instant) -> Result<()> {
        if self.shared.cancelled.load(Ordering::Acquire) {
            return Err(Error::cancelled("the request was cancelled"));
        }
        match self.shared.deadline {
            Some(deadline) if deadline <= now => {
                Err(Error::deadline_exceeded("the deadline of the request has passed"))
            }
            _ => Ok(()),
        }
    }
}
