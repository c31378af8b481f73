//! [`Mailbox`]: where the events of a request wait until its owner takes them.
//!
//! The owner is told once that there is something, and not again before it has taken all: a process of the BEAM cannot
//! refuse a message, so its mailbox is never sent what the engine makes, only word of it.

use crate::atoms;
use pyrex_core::{Event, EventSink, RequestControl};
use rustler::{LocalPid, OwnedEnv, thread};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The events of one request, and whom to tell of them.
pub(crate) struct Mailbox {
    state: Mutex<State>,
    owner: LocalPid,
    id: u64,
    /// So many events wait before the request pauses.
    max_events: usize,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// The owner knows that something waits.
    is_told: bool,
    control: Option<RequestControl>,
    is_cancelled: bool,
}

impl Mailbox {
    pub(crate) fn new(owner: LocalPid, id: u64, max_events: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), owner, id, max_events })
    }

    /// Takes the next event.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.events.push(event);
        let was_told = std::mem::replace(&mut state.is_told, true);
        drop(state);
        if !was_told {
            tell(self.owner, self.id);
        }
    }

    /// All that waits.
    pub(crate) fn take(&self) -> Vec<Event> {
        let mut state = self.lock();
        state.is_told = false;
        let control = state.control.clone();
        let events = std::mem::take(&mut state.events);
        drop(state);
        if let Some(control) = control {
            control.resume();
        }
        events
    }

    /// Ends the request, now or as soon as it is submitted.
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        state.is_cancelled = true;
        let control = state.control.clone();
        drop(state);
        if let Some(control) = control {
            control.cancel();
        }
    }

    /// The request is submitted.
    pub(crate) fn submitted(&self, control: RequestControl) {
        let mut state = self.lock();
        let is_cancelled = state.is_cancelled;
        state.control = Some(control.clone());
        drop(state);
        if is_cancelled {
            control.cancel();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that something waits. An owner that is gone has cancelled its request.
fn tell(owner: LocalPid, id: u64) {
    let send = move || {
        let _ = OwnedEnv::new().send_and_clear(&owner, |_| (atoms::pyrex_ready(), id));
    };
    match thread::is_scheduler_thread() {
        false => send(),
        // The last word about an engine may be dropped by a process, and its threads are not for sending from Rust. If no
        // other can be started the owner hears of nothing, as with an engine that was never there.
        true => drop(std::thread::Builder::new().spawn(send)),
    }
}

/// The engine's end of a mailbox.
pub(crate) struct Slot(pub(crate) Arc<Mailbox>);

impl EventSink for Slot {
    fn send(&mut self, event: Event) {
        self.0.push(event);
    }

    fn has_room(&self) -> bool {
        self.0.lock().events.len() < self.0.max_events
    }
}
