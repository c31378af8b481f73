//! [`RequestHandle`]: the sink that turns the engine's push into a caller's pull.

use super::control::RequestControl;
use super::event::{Event, EventSink, FinishReason, Timings, Usage};
use super::sampler::TokenLogprobs;
use crate::error::{Error, Result};
use flume::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::Arc;
use std::time::Duration;

/// A submitted request: its events, and the way to end it. Dropping it cancels the request and does not wait.
///
/// Events that nobody reads fill a queue of bounded length; then the request pauses, and goes on when half of them are read.
#[derive(Debug)]
pub struct RequestHandle {
    events: Receiver<Event>,
    control: RequestControl,
    max_events: usize,
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
    /// How likely each of them was, if the request asked.
    pub logprobs: Vec<TokenLogprobs>,
    /// What the model read.
    pub prompt_token_ids: Arc<[u32]>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What the whole request took, in tokens.
    pub usage: Usage,
    /// What the whole request took, in time.
    pub timings: Timings,
}

/// Called each time an event can be read.
pub type Notify = Box<dyn Fn() + Send>;

struct QueueSink {
    events: Sender<Event>,
    max_events: usize,
    notify: Option<Notify>,
}

impl EventSink for QueueSink {
    fn send(&mut self, event: Event) {
        // A handle that is gone has cancelled its request: nobody misses the event.
        let _ = self.events.send(event);
        if let Some(notify) = &self.notify {
            notify();
        }
    }

    fn has_room(&self) -> bool {
        self.events.len() < self.max_events
    }
}

impl RequestHandle {
    pub(crate) fn new(
        control: RequestControl,
        max_events: usize,
        notify: Option<Notify>,
    ) -> (Self, Box<dyn EventSink>) {
        // Not bounded by the channel: what is under way when the queue fills up, and the final event, are never lost.
        let (sender, events) = flume::unbounded();
        let sink = QueueSink { events: sender, max_events, notify };
        (Self { events, control, max_events, ended: false }, Box::new(sink))
    }

    /// Whether an event can be read.
    pub fn has_event(&self) -> bool {
        !self.ended && !self.events.is_empty()
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Next {
        if self.ended {
            return Next::Ended;
        }
        match self.events.try_recv() {
            Ok(event) => Next::Event(self.read(event)),
            Err(TryRecvError::Empty) => Next::Pending,
            Err(TryRecvError::Disconnected) => Next::Ended,
        }
    }

    /// The next event, waited for up to `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Next {
        // The channel cannot wait past what the clock can count.
        const YEARS: Duration = Duration::from_secs(1 << 28);
        if self.ended {
            return Next::Ended;
        }
        match self.events.recv_timeout(timeout.min(YEARS)) {
            Ok(event) => Next::Event(self.read(event)),
            Err(RecvTimeoutError::Timeout) => Next::Pending,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// Asks the engine to end the request; events up to the final one still come.
    pub fn cancel(&self) {
        self.control.cancel();
    }

    /// What ends this request, to hand to somebody else.
    pub fn control(&self) -> RequestControl {
        self.control.clone()
    }

    /// Waits for the whole answer; of several completions, the first.
    ///
    /// # Errors
    /// The error the request failed with.
    pub fn wait(self) -> Result<Completion> {
        let missing = || Error::closed("the events of the request were already read");
        self.wait_all()?.into_iter().next().ok_or_else(missing)
    }

    /// Waits for all completions of the request.
    ///
    /// # Errors
    /// The error the request failed with.
    pub fn wait_all(mut self) -> Result<Vec<Completion>> {
        let mut prompt: Arc<[u32]> = Arc::from([]);
        let mut completions: Vec<Completion> = Vec::new();
        for event in &mut self {
            match event {
                Event::Started { prompt_token_ids, .. } => prompt = prompt_token_ids,
                Event::Token { index, token_id, text, logprobs, finish } => {
                    if completions.len() <= index {
                        completions.resize(index + 1, Completion::empty(&prompt));
                    }
                    let completion = &mut completions[index];
                    completion.text.push_str(&text);
                    completion.token_ids.push(token_id);
                    completion.logprobs.extend(logprobs);
                    completion.finish_reason = finish.unwrap_or(completion.finish_reason);
                }
                Event::Finished { usage, timings, .. } => {
                    for completion in &mut completions {
                        (completion.usage, completion.timings) = (usage, timings);
                    }
                    return Ok(completions);
                }
                Event::Failed(error) => return Err(error),
            }
        }
        Err(Error::closed("the final event of the request was already read"))
    }

    /// The events as an asynchronous stream. Dropping it cancels the request.
    #[cfg(feature = "async")]
    pub fn into_stream(self) -> RequestStream {
        RequestStream { events: self.events.clone().into_stream(), handle: self }
    }

    fn read(&mut self, event: Event) -> Event {
        self.ended |= event.is_final();
        if self.events.len() <= self.max_events / 2 {
            self.control.resume();
        }
        event
    }
}

impl Completion {
    fn empty(prompt: &Arc<[u32]>) -> Self {
        Self {
            text: String::new(),
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            prompt_token_ids: prompt.clone(),
            finish_reason: FinishReason::Length,
            usage: Usage::default(),
            timings: Timings::default(),
        }
    }
}

/// Waits for each event in turn; ends after the final one.
impl Iterator for RequestHandle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().ok()?;
        Some(self.read(event))
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        self.control.cancel();
    }
}

/// The events of a request for asynchronous callers, of any runtime: see [`RequestHandle::into_stream`].
#[cfg(feature = "async")]
pub struct RequestStream {
    events: flume::r#async::RecvStream<'static, Event>,
    handle: RequestHandle,
}

#[cfg(feature = "async")]
impl RequestStream {
    /// What ends this request, to hand to somebody else.
    pub fn control(&self) -> RequestControl {
        self.handle.control()
    }
}

#[cfg(feature = "async")]
impl futures_core::Stream for RequestStream {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        if self.handle.ended {
            return std::task::Poll::Ready(None);
        }
        let event = std::pin::Pin::new(&mut self.events).poll_next(context);
        event.map(|event| event.map(|event| self.handle.read(event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The core may still hold the sink for a moment after the final event.
    #[test]
    fn a_request_has_ended_once_its_final_event_is_read() {
        let (commands, _) = std::sync::mpsc::channel();
        let (mut handle, mut sink) = RequestHandle::new(RequestControl::new(None, commands), 8, None);
        assert_eq!(handle.try_next(), Next::Pending);
        sink.send(Event::Failed(Error::cancelled("over")));
        assert!(matches!(handle.try_next(), Next::Event(Event::Failed(_))));
        let read = (handle.try_next(), handle.next_timeout(Duration::MAX), handle.next());
        assert_eq!(read, (Next::Ended, Next::Ended, None));
        drop(sink);
    }
}
