//! [`RequestHandle`]: the sink that turns the engine's push into a caller's pull.

use super::event::{Event, EventSink, FinishReason, Timings, Usage};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

/// Cancels one request. Cheap to clone; does nothing once the request has ended.
#[derive(Clone, Debug, Default)]
pub struct Canceller {
    cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Asks the engine to end the request; its final event is a [`Cancelled`](crate::ErrorKind::Cancelled) failure.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// A submitted request: its events, and the way to end it. Dropping it cancels the request and does not wait.
#[derive(Debug)]
pub struct RequestHandle {
    events: Receiver<Event>,
    canceller: Canceller,
    ended: bool,
}

/// What there is to read right now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing yet.
    Pending,
    /// Nothing ever again: the final event was read.
    Ended,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// Its tokens, a stop token included.
    pub token_ids: Vec<u32>,
    /// What the model read.
    pub prompt_token_ids: Arc<[u32]>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it took, in tokens.
    pub usage: Usage,
    /// What it took, in time.
    pub timings: Timings,
}

struct ChannelSink(Sender<Event>);

impl EventSink for ChannelSink {
    fn send(&mut self, event: Event) {
        // A handle that is gone has cancelled its request: nobody misses the event.
        let _ = self.0.send(event);
    }
}

impl RequestHandle {
    pub(crate) fn new(canceller: Canceller) -> (Self, Box<dyn EventSink>) {
        let (sender, events) = channel();
        (Self { events, canceller, ended: false }, Box::new(ChannelSink(sender)))
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Next {
        let event = match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => return self.disconnected(),
        };
        self.read(event)
    }

    /// The next event, waited for up to `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Next {
        let event = match self.events.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return self.disconnected(),
        };
        self.read(event)
    }

    /// Asks the engine to end the request; events up to the final one still come.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// What cancels this request, to hand to somebody else.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// The error the request failed with.
    pub fn wait(mut self) -> Result<Completion> {
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        let mut prompt = Arc::from([]);
        for event in &mut self {
            match event {
                Event::Started { prompt_token_ids, .. } => prompt = prompt_token_ids,
                Event::Token { token_id, text: delta } => {
                    token_ids.push(token_id);
                    text.push_str(&delta);
                }
                Event::Finished { reason: finish_reason, usage, timings } => {
                    return Ok(Completion {
                        text,
                        token_ids,
                        prompt_token_ids: prompt,
                        finish_reason,
                        usage,
                        timings,
                    });
                }
                Event::Failed(error) => return Err(error),
            }
        }
        Err(Error::closed("the final event of the request was already read"))
    }

    fn read(&mut self, event: Option<Event>) -> Next {
        match event {
            Some(event) => {
                self.ended |= event.is_final();
                Next::Event(event)
            }
            None if self.ended => Next::Ended,
            None => Next::Pending,
        }
    }

    fn disconnected(&mut self) -> Next {
        self.ended = true;
        Next::Ended
    }
}

/// Waits for each event in turn; ends after the final one.
impl Iterator for RequestHandle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().ok();
        self.ended |= event.as_ref().is_none_or(Event::is_final);
        event
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        self.canceller.cancel();
    }
}
