//! Streams and events, and waiting for them.

use crate::driver::{Driver, Handle, refuse};
use crate::order::{Clock, Moment, StreamId};
use crate::status::{Outcome, Status};
use std::time::Instant;

/// A queue of work.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Whether it waits for the legacy stream, and that for it.
    is_blocking: bool,
    /// What records its work in place of doing it.
    pub(crate) capture: Option<Handle>,
    /// Whether the program asked if its work is done, and was told to come again.
    was_asked: bool,
}

/// A point in a stream's work.
#[derive(Debug)]
pub(crate) struct Event {
    has_time: bool,
    recorded: Option<Recorded>,
    was_asked: bool,
}

#[derive(Clone, Debug)]
enum Recorded {
    /// On the device: when, and what lies before.
    Done(Instant, Clock),
    /// In a capture, with the number of the record there.
    Captured(Handle, u64),
}

impl StreamId {
    /// The stream that others wait for unless they say that they do not.
    pub(crate) const LEGACY: Self = Self(0);
}

impl Stream {
    pub(crate) fn new(is_blocking: bool) -> Self {
        Self { is_blocking, capture: None, was_asked: false }
    }
}

impl Driver {
    /// The stream that a program calls by `handle`; some are there without having been made.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub(crate) fn stream(&mut self, handle: Handle) -> Outcome<StreamId> {
        const LEGACY: Handle = 1;
        const PER_THREAD: Handle = 2;
        let id = match handle {
            0 | LEGACY => StreamId::LEGACY,
            PER_THREAD => StreamId(0x100 + self.caller),
            _ => StreamId(handle),
        };
        if handle == PER_THREAD {
            self.streams.entry(id).or_insert_with(|| Stream::new(true));
        }
        if self.streams.contains_key(&id) { Ok(id) } else { Err(Status::INVALID_HANDLE) }
    }

    /// A new stream.
    pub(crate) fn create_stream(&mut self, is_blocking: bool) -> Handle {
        let handle = self.next_handle();
        self.streams.insert(StreamId(handle), Stream::new(is_blocking));
        handle
    }

    /// Ends a stream; what is on it runs.
    ///
    /// # Errors
    /// `INVALID_HANDLE` if it is none that was created.
    pub(crate) fn destroy_stream(&mut self, handle: Handle) -> Outcome {
        let id = self.stream(handle)?;
        if id.0 != handle || id == StreamId::LEGACY {
            return Err(Status::INVALID_HANDLE);
        }
        self.invalidate(self.streams[&id].capture);
        self.streams.remove(&id);
        Ok(())
    }

    /// The streams that wait for the legacy one.
    pub(crate) fn blocking_streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.iter().filter(|(_, stream)| stream.is_blocking).map(|(id, _)| *id)
    }

    /// The place of the next work of `stream`, and what lies before it.
    pub(crate) fn begin(&mut self, stream: StreamId) -> (Moment, Clock) {
        let mut clock = self.clocks.remove(&stream).unwrap_or_default();
        clock.join(&self.host);
        if self.streams.get(&stream).is_some_and(|stream| stream.is_blocking) {
            let others = self
                .blocking_streams()
                .filter(|other| stream == StreamId::LEGACY || *other == StreamId::LEGACY);
            others.filter_map(|other| self.clocks.get(&other)).for_each(|other| clock.join(other));
        }
        let moment = clock.advance(stream);
        self.clocks.insert(stream, clock.clone());
        (moment, clock)
    }

    /// The program waits for all work.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` while any is recorded in place of being done.
    pub(crate) fn synchronize_all(&mut self) -> Outcome {
        match self.spoil_captures("the context is waited for") {
            true => Err(Status::STREAM_CAPTURE_UNSUPPORTED),
            false => self.finish_all(),
        }
    }

    /// All work is done, as the program knows from now on.
    pub(crate) fn finish_all(&mut self) -> Outcome {
        self.clocks.values().for_each(|clock| self.host.join(clock));
        self.memory.trim(self.memory.pool.threshold);
        self.settle()
    }

    /// The program waits for the work of a stream.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` while it is captured.
    pub(crate) fn synchronize(&mut self, handle: Handle) -> Outcome {
        let stream = self.idle_stream(handle)?;
        self.report.counters.synchronizations += 1;
        self.finish(stream)
    }

    /// Whether a stream's work is done. It always is; but the first answer is what a device would give that works on.
    ///
    /// # Errors
    /// `NOT_READY`; `STREAM_CAPTURE_UNSUPPORTED` while it is captured.
    pub(crate) fn query(&mut self, handle: Handle) -> Outcome {
        let stream = self.idle_stream(handle)?;
        let is_known = self.clocks.get(&stream).is_none_or(|clock| self.host.covers(clock));
        let asked = &mut self.streams.get_mut(&stream).expect("it was just looked up").was_asked;
        *asked = !is_known && !*asked;
        if *asked { Err(Status::NOT_READY) } else { self.finish(stream) }
    }

    fn idle_stream(&mut self, handle: Handle) -> Outcome<StreamId> {
        let stream = self.stream(handle)?;
        self.refuse_implicit(stream)?;
        if let Some(capture) = self.streams[&stream].capture {
            self.invalidate(Some(capture));
            return refuse(Status::STREAM_CAPTURE_UNSUPPORTED, "a captured stream is waited for");
        }
        self.refuse_while_capturing("a stream is waited for")?;
        Ok(stream)
    }

    /// The work of `stream` so far is done, as the program knows from now on.
    pub(crate) fn finish(&mut self, stream: StreamId) -> Outcome {
        let (_, clock) = self.begin(stream);
        self.host.join(&clock);
        self.memory.trim(self.memory.pool.threshold);
        self.settle()
    }

    /// A new event.
    pub(crate) fn create_event(&mut self, has_time: bool) -> Handle {
        let handle = self.next_handle();
        self.events.insert(handle, Event { has_time, recorded: None, was_asked: false });
        handle
    }

    /// Has `event` stand for the work of a stream so far.
    ///
    /// # Errors
    /// `INVALID_HANDLE`; what [`Driver::capturing`] says.
    pub(crate) fn record_event(&mut self, event: Handle, stream: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        self.event(event)?;
        let recorded = match self.capturing(stream)? {
            Some(capture) => Recorded::Captured(capture, self.capture_record(capture, stream)),
            None => Recorded::Done(Instant::now(), self.begin(stream).1),
        };
        let event = self.events.get_mut(&event).expect("it was just looked up");
        (event.recorded, event.was_asked) = (Some(recorded), false);
        Ok(())
    }

    /// What is put on a stream from now on comes after `event`.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_ISOLATION` if only one of the two is in a capture, `STREAM_CAPTURE_MERGE` if they are in two.
    pub(crate) fn wait_event(&mut self, stream: Handle, event: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        let recorded = self.event(event)?.recorded.clone();
        let capture = self.capturing(stream)?;
        match (capture, recorded) {
            (_, None) => Ok(()),
            (None, Some(Recorded::Done(_, clock))) => {
                self.clocks.entry(stream).or_default().join(&clock);
                Ok(())
            }
            (Some(_), Some(Recorded::Done(..))) => {
                self.invalidate(capture);
                let why = "a captured stream waits for an event that was recorded outside of the capture";
                refuse(Status::STREAM_CAPTURE_ISOLATION, why)
            }
            (_, Some(Recorded::Captured(of, record))) if capture.is_none_or(|capture| capture == of) => {
                self.capture_wait(of, stream, record)
            }
            (_, Some(Recorded::Captured(of, _))) => {
                self.invalidate(capture);
                self.invalidate(Some(of));
                refuse(
                    Status::STREAM_CAPTURE_MERGE,
                    "a captured stream waits for an event of another capture",
                )
            }
        }
    }

    /// The program waits for an event.
    ///
    /// # Errors
    /// `CAPTURED_EVENT` if it is one of a capture.
    pub(crate) fn synchronize_event(&mut self, event: Handle) -> Outcome {
        self.report.counters.synchronizations += 1;
        let Some(clock) = self.event_clock(event, "an event is waited for")? else { return Ok(()) };
        self.host.join(&clock);
        self.settle()
    }

    /// Whether what an event stands for is done; as [`Self::query`] says.
    ///
    /// # Errors
    /// `NOT_READY`; `CAPTURED_EVENT` if it is one of a capture.
    pub(crate) fn query_event(&mut self, event: Handle) -> Outcome {
        let Some(clock) = self.event_clock(event, "an event is asked for")? else { return Ok(()) };
        let is_known = self.host.covers(&clock);
        let asked = &mut self.events.get_mut(&event).expect("it was just looked up").was_asked;
        *asked = !is_known && !*asked;
        if *asked {
            return Err(Status::NOT_READY);
        }
        self.host.join(&clock);
        self.settle()
    }

    /// Milliseconds from one event to another.
    ///
    /// # Errors
    /// `INVALID_HANDLE` if one has no time, or was not recorded; `NOT_READY` if the program has not waited for it.
    pub(crate) fn elapsed(&mut self, from: Handle, to: Handle) -> Outcome<f32> {
        let mut times = [Instant::now(); 2];
        for (event, time) in [from, to].into_iter().zip(&mut times) {
            let event = self.event(event)?;
            let Some(Recorded::Done(at, clock)) = event.recorded.clone().filter(|_| event.has_time) else {
                return Err(Status::INVALID_HANDLE);
            };
            if !self.host.covers(&clock) {
                return Err(Status::NOT_READY);
            }
            *time = at;
        }
        Ok(times[1].saturating_duration_since(times[0]).as_secs_f32() * 1e3)
    }

    fn event(&self, event: Handle) -> Outcome<&Event> {
        self.events.get(&event).ok_or(Status::INVALID_HANDLE)
    }

    /// What lies before an event on the device; nothing if it was never recorded.
    fn event_clock(&mut self, event: Handle, what: &str) -> Outcome<Option<Clock>> {
        let recorded = self.event(event)?.recorded.clone();
        self.refuse_while_capturing(what)?;
        match recorded {
            None => Ok(None),
            Some(Recorded::Done(_, clock)) => Ok(Some(clock)),
            Some(Recorded::Captured(capture, _)) => {
                self.invalidate(Some(capture));
                refuse(Status::CAPTURED_EVENT, format_args!("{what} that was recorded in a capture"))
            }
        }
    }
}
