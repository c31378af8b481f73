//! Recording what is put on streams in place of doing it, and all that must not be done meanwhile.

use crate::driver::{Driver, Handle, refuse, say};
use crate::graph::{Graph, Node, Step};
use crate::memory::Owner;
use crate::order::{Clock, StreamId};
use crate::status::{Outcome, Status};
use crate::work::Work;
use std::collections::HashMap;

/// Who must keep from calls that are not safe during a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All threads.
    Global,
    /// That which began it.
    ThreadLocal,
    /// None.
    Relaxed,
}

/// A capture that has not ended.
#[derive(Debug)]
pub(crate) struct Capture {
    origin: StreamId,
    thread: u64,
    mode: Mode,
    is_valid: bool,
    /// Of each stream that takes part: what of the capture its next work comes after.
    branches: HashMap<StreamId, Clock>,
    /// The same of each record of an event.
    records: Vec<Clock>,
    graph: Graph,
}

/// Whether a stream is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaptureStatus {
    /// It is not.
    None = 0,
    /// It is.
    Active = 1,
    /// It is, but a call that must not be made in between has spoiled it.
    Invalidated = 2,
}

impl Driver {
    /// Has what is put on a stream recorded from now on.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` for the legacy stream, `ILLEGAL_STATE` if it is captured already.
    pub(crate) fn begin_capture(&mut self, handle: Handle, mode: Mode) -> Outcome {
        let origin = self.stream(handle)?;
        if origin == StreamId::LEGACY {
            return refuse(Status::STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
        }
        if self.streams[&origin].capture.is_some() {
            return Err(Status::ILLEGAL_STATE);
        }
        let (records, graph) = Default::default();
        let branches = HashMap::from([(origin, Clock::default())]);
        let capture = Capture { origin, thread: self.caller, mode, is_valid: true, branches, records, graph };
        let handle = self.next_handle();
        self.captures.insert(handle, capture);
        self.join_capture(origin, handle);
        Ok(())
    }

    /// What was recorded, as a graph; the capture ends either way, unless it is not this stream's or thread's to end.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_INVALIDATED` if it was spoiled, `STREAM_CAPTURE_UNJOINED` if a branch does not lead back.
    pub(crate) fn end_capture(&mut self, handle: Handle) -> Outcome<Handle> {
        let stream = self.stream(handle)?;
        let handle = self.streams[&stream].capture.ok_or(Status::ILLEGAL_STATE)?;
        let capture = &self.captures[&handle];
        if capture.origin != stream {
            return refuse(
                Status::STREAM_CAPTURE_UNMATCHED,
                "a capture is ended on a stream that only joined it",
            );
        }
        if capture.thread != self.caller && capture.mode != Mode::Relaxed {
            return refuse(
                Status::STREAM_CAPTURE_WRONG_THREAD,
                "a capture is ended by a thread that did not begin it",
            );
        }
        let capture =
            self.captures.remove(&handle).expect("a stream knows only captures that have not ended");
        for stream in self.streams.values_mut().filter(|stream| stream.capture == Some(handle)) {
            stream.capture = None;
        }
        if !capture.is_valid {
            return Err(Status::STREAM_CAPTURE_INVALIDATED);
        }
        let end = &capture.branches[&capture.origin];
        if !capture.branches.values().all(|branch| end.covers(branch)) {
            return refuse(
                Status::STREAM_CAPTURE_UNJOINED,
                "a capture ends before all of its streams were waited for",
            );
        }
        let graph = self.next_handle();
        self.graphs.insert(graph, Graph { origin: Some(capture.origin), ..capture.graph });
        Ok(graph)
    }

    /// Whether a stream is captured.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_IMPLICIT` for the legacy stream while one is that waits for it.
    pub(crate) fn capture_status(&mut self, handle: Handle) -> Outcome<CaptureStatus> {
        let stream = self.stream(handle)?;
        self.refuse_implicit(stream)?;
        Ok(match self.streams[&stream].capture.map(|capture| self.captures[&capture].is_valid) {
            None => CaptureStatus::None,
            Some(true) => CaptureStatus::Active,
            Some(false) => CaptureStatus::Invalidated,
        })
    }

    /// The capture that a stream is in.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_INVALIDATED` if it was spoiled; `STREAM_CAPTURE_IMPLICIT` as [`Self::capture_status`] says.
    pub(crate) fn capturing(&mut self, stream: StreamId) -> Outcome<Option<Handle>> {
        self.refuse_implicit(stream)?;
        let capture = self.streams[&stream].capture;
        match capture.is_some_and(|capture| !self.captures[&capture].is_valid) {
            true => Err(Status::STREAM_CAPTURE_INVALIDATED),
            false => Ok(capture),
        }
    }

    /// The legacy stream waits for others, and so must not be used while they are captured.
    pub(crate) fn refuse_implicit(&mut self, stream: StreamId) -> Outcome {
        if stream != StreamId::LEGACY {
            return Ok(());
        }
        let captures: Vec<_> =
            self.blocking_streams().filter_map(|stream| self.streams[&stream].capture).collect();
        if captures.is_empty() {
            return Ok(());
        }
        captures.into_iter().for_each(|capture| self.invalidate(Some(capture)));
        refuse(
            Status::STREAM_CAPTURE_IMPLICIT,
            "the legacy stream is used while a stream is captured that waits for it",
        )
    }

    /// Calls that may wait for the device, or change what a capture stands on, must not be made by a thread that captures.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED`.
    pub(crate) fn refuse_while_capturing(&mut self, what: &str) -> Outcome {
        let caller = self.caller;
        let is_hurt = |capture: &Capture| match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == caller,
            Mode::Relaxed => false,
        };
        let mut hurt = self.captures.values_mut().filter(|capture| is_hurt(capture)).peekable();
        if hurt.peek().is_none() {
            return Ok(());
        }
        hurt.for_each(|capture| capture.is_valid = false);
        refuse(Status::STREAM_CAPTURE_UNSUPPORTED, format_args!("{what} during a capture"))
    }

    /// Spoils all captures, of whatever thread and mode, as a wait for the context does; whether there were any.
    pub(crate) fn spoil_captures(&mut self, what: &str) -> bool {
        self.captures.values_mut().for_each(|capture| capture.is_valid = false);
        if !self.captures.is_empty() {
            say(format_args!("{what} while a stream is captured"));
        }
        !self.captures.is_empty()
    }

    /// Spoils a capture.
    pub(crate) fn invalidate(&mut self, capture: Option<Handle>) {
        if let Some(capture) = capture.and_then(|capture| self.captures.get_mut(&capture)) {
            capture.is_valid = false;
        }
    }

    /// Records `work` on `stream`.
    ///
    /// # Errors
    /// If it cannot be done again later: the capture is then spoiled.
    pub(crate) fn capture_work(&mut self, handle: Handle, stream: StreamId, work: Work) -> Outcome {
        if let Work::Copy(copy) = &work
            && let Some(address) = copy.pageable(&self.memory)
        {
            self.invalidate(Some(handle));
            let why = "is captured: each launch would use that memory again, whoever has it then";
            let why = format_args!("a copy that uses pageable memory ({address:#x}) {why}");
            return refuse(Status::STREAM_CAPTURE_UNSUPPORTED, why);
        }
        self.capture_step(handle, stream, Step::Work(work));
        Ok(())
    }

    /// Memory of the graph that is recorded.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(crate) fn capture_allocate(&mut self, handle: Handle, stream: StreamId, bytes: u64) -> Outcome<u64> {
        let address = self.memory.reserve(bytes)?;
        self.captures
            .get_mut(&handle)
            .expect("the stream is captured")
            .graph
            .allocations
            .push((address, bytes));
        self.capture_step(handle, stream, Step::Work(Work::Allocate { address, bytes }));
        Ok(address)
    }

    /// Gives memory of the graph back.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not what this graph allocated and has not given back: the capture is then spoiled.
    pub(crate) fn capture_free(&mut self, handle: Handle, stream: StreamId, address: u64) -> Outcome {
        let graph = &self.captures[&handle].graph;
        let is_own = graph.allocations.iter().any(|(start, _)| *start == address);
        let is_freed =
            |node: &Node| matches!(node.step, Step::Work(Work::Free { address: freed }) if freed == address);
        if !is_own || graph.nodes.iter().any(is_freed) {
            self.invalidate(Some(handle));
            let owner = self.memory.owner(address).unwrap_or(Owner::Graph);
            let why = format_args!(
                "memory at {address:#x} ({owner:?}) is freed in a capture that did not allocate it"
            );
            return refuse(Status::INVALID_VALUE, why);
        }
        self.capture_step(handle, stream, Step::Work(Work::Free { address }));
        Ok(())
    }

    /// Records an event, and gives its number.
    pub(crate) fn capture_record(&mut self, handle: Handle, stream: StreamId) -> u64 {
        let capture = self.captures.get_mut(&handle).expect("the stream is captured");
        let record = capture.records.len() as u64;
        capture.records.push(capture.branches[&stream].clone());
        self.capture_step(handle, stream, Step::Record(record));
        record
    }

    /// Has what follows on `stream` come after a recorded event, which makes the stream a part of the capture.
    ///
    /// # Errors
    /// `CAPTURED_EVENT` if that has ended.
    pub(crate) fn capture_wait(&mut self, handle: Handle, stream: StreamId, record: u64) -> Outcome {
        let Some(capture) = self.captures.get_mut(&handle) else {
            return refuse(Status::CAPTURED_EVENT, "a stream waits for an event of a capture that has ended");
        };
        if stream == StreamId::LEGACY {
            capture.is_valid = false;
            return refuse(
                Status::STREAM_CAPTURE_IMPLICIT,
                "the legacy stream waits for an event of a capture",
            );
        }
        let seen = capture.records[record as usize].clone();
        capture.branches.entry(stream).or_default().join(&seen);
        self.join_capture(stream, handle);
        self.capture_step(handle, stream, Step::Wait(record));
        Ok(())
    }

    fn join_capture(&mut self, stream: StreamId, handle: Handle) {
        self.streams.get_mut(&stream).expect("it was looked up").capture = Some(handle);
    }

    fn capture_step(&mut self, handle: Handle, branch: StreamId, step: Step) {
        let capture = self.captures.get_mut(&handle).expect("the stream is captured");
        // Only work must be waited for at the end.
        if matches!(step, Step::Work(_)) {
            capture.branches.entry(branch).or_default().advance(branch);
        }
        capture.graph.nodes.push(Node { branch, step });
    }
}
