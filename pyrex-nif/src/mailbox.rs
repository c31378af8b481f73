//! [`Mailbox`]: where the events of a request wait until somebody asks for them.
//!
//! A process of the BEAM cannot refuse a message, so none is sent that was not asked for: a request to take finds what waits,
//! or leaves word of who wants the next events, and that one gets one message.

use crate::atoms;
use crate::event::{self, Events};
use crate::reply::{Fault, Writing, Written};
use pyrex_core::{Error, Event, EventSink, RequestControl};
use pyrex_openai::Reply;
use rustler::{Encoder, Env, LocalPid, OwnedEnv, Term, env::SavedTerm, thread};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The events of one request, and who wants them.
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// Of an answer to OpenAI's clients. Only who takes waits for it.
    writing: Mutex<Writing>,
    owner: LocalPid,
    id: u64,
    /// So many events wait before the request pauses.
    max_events: usize,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    wanted: Option<Wanted>,
    /// How many tokens went to consumers since the owner last took.
    num_sent: usize,
    has_ended: bool,
    control: Option<RequestControl>,
    is_cancelled: bool,
}

/// Who is to hear of the next events.
pub(crate) enum Wanted {
    /// The owner, which then takes them.
    ByOwner,
    /// A consumer, which is sent them unless the final one is among them: how it ends, the owner must know first.
    By(Consumer),
}

/// A process that wants events, and what it calls them.
pub(crate) struct Consumer {
    pid: LocalPid,
    tag: SavedTerm,
    own: OwnedEnv,
}

impl Consumer {
    pub(crate) fn new(pid: LocalPid, tag: Term<'_>) -> Self {
        let own = OwnedEnv::new();
        Self { pid, tag: own.save(tag), own }
    }

    fn send(mut self, events: Vec<Event>) {
        let tag = self.tag;
        // One that is gone does not miss them.
        let _ = self.own.send_and_clear(&self.pid, |env| {
            let tag = tag.load(env);
            (atoms::pyrex_events(), tag, Events(events)).encode(env)
        });
    }
}

impl Mailbox {
    pub(crate) fn new(owner: LocalPid, id: u64, max_events: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), writing: Mutex::default(), owner, id, max_events })
    }

    /// Takes the next event.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        state.has_ended = event.is_final();
        state.events.push(event);
        match state.wanted.take() {
            None => {}
            Some(Wanted::By(consumer)) if !state.has_ended => {
                let events = std::mem::take(&mut state.events);
                state.num_sent += event::num_tokens(&events);
                drop(state);
                consumer.send(events);
            }
            Some(_) => {
                drop(state);
                tell(self.owner, self.id);
            }
        }
    }

    /// One more token went past its owner.
    pub(crate) fn count_sent(&self) {
        self.lock().num_sent += 1;
    }

    /// All that waits, and how many tokens consumers were sent; if nothing waits, `wanted` is who hears of the next.
    pub(crate) fn take(&self, wanted: Wanted) -> (usize, Vec<Event>) {
        let mut state = self.lock();
        let events = std::mem::take(&mut state.events);
        state.wanted = events.is_empty().then_some(wanted);
        let num_sent = std::mem::take(&mut state.num_sent);
        let control = state.control.clone();
        drop(state);
        if let Some(control) = control {
            control.resume();
        }
        (num_sent, events)
    }

    /// As [`take`](Self::take) by the owner, and what of the answer these events are.
    pub(crate) fn take_written(&self) -> (Vec<Event>, Option<Written>) {
        let (_, events) = self.take(Wanted::ByOwner);
        let written = self.writing().write(&events);
        (events, written)
    }

    /// The body of the request was read; how its answer will come is told before it comes.
    pub(crate) fn begin(&self, reply: Reply) {
        self.writing().begin(reply);
        let wanted = self.lock().wanted.take();
        if wanted.is_some() {
            tell(self.owner, self.id);
        }
    }

    /// The body of the request was refused.
    pub(crate) fn refuse(&self, fault: Fault) {
        let error = fault.error().clone();
        self.writing().refuse(fault);
        self.push(Event::Failed(error));
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

    /// Ends the request without waiting for its engine.
    pub(crate) fn fail(&self, error: Error) {
        self.cancel();
        self.push(Event::Failed(error));
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

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that something waits. An owner that is gone has cancelled its request.
fn tell(owner: LocalPid, id: u64) {
    let send = move || {
        let _ = OwnedEnv::new().send_and_clear(&owner, |_: Env<'_>| (atoms::pyrex_ready(), id));
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
