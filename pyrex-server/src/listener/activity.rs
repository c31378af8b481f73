//! [`Activity`]: what one connection is waiting for, and until when.
//!
//! The HTTP library knows one time limit, that of a request's head. Ours are told apart here: nothing at all, a head that
//! comes drop by drop, an answer that nobody reads. [`Watched`] sees bytes, [`connection`](super::connection) sees requests.
//!
//! What a client has sent that nobody read is read away before closing, or the system would drop the answer with it.

use crate::config::Limits;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long what a client goes on sending is read away once it has its last answer.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What a connection is waiting for. A clone is another view of the same.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

struct State {
    phase: Phase,
    /// Since when what was to be written could not be.
    stalled: Option<Instant>,
    /// Whether the last request has a body that nobody read to its end.
    is_unread: bool,
}

enum Phase {
    Idle(Instant),
    Head(Instant),
    Answering,
    Closing(Instant),
}

/// What a client was too late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Its next request.
    Request,
    /// The rest of a request's head.
    Head,
    /// Reading an answer.
    Reading,
    /// Closing its side.
    Closing,
}

impl Activity {
    /// A connection that has just come.
    pub(crate) fn new() -> Self {
        let phase = Phase::Idle(Instant::now());
        Self(Arc::new(Mutex::new(State { phase, stalled: None, is_unread: false })))
    }

    /// A request's head is there.
    pub(crate) fn begin_answer(&self) {
        let mut state = self.state();
        state.phase = Phase::Answering;
        state.is_unread = false;
    }

    /// The body of the request was given up before its end.
    pub(crate) fn leave_unread(&self) {
        self.state().is_unread = true;
    }

    /// The last of an answer was handed to be written.
    pub(crate) fn end_answer(&self) {
        self.state().phase = Phase::Idle(Instant::now());
    }

    /// When the client will be too late, and with what.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, Late)> {
        let state = self.state();
        let waiting = match state.phase {
            Phase::Idle(since) => {
                Some((since + Duration::from_millis(limits.idle_timeout_ms), Late::Request))
            }
            Phase::Head(since) => Some((since + Duration::from_millis(limits.header_timeout_ms), Late::Head)),
            Phase::Answering => None,
            Phase::Closing(since) => Some((since + LINGER, Late::Closing)),
        };
        let stalled = state.stalled.map(|since| since + Duration::from_millis(limits.stall_timeout_ms));
        stalled.map(|until| (until, Late::Reading)).or(waiting)
    }

    fn read(&self) {
        let mut state = self.state();
        if let Phase::Idle(_) = state.phase {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// The server has said its last word; whether the client may be in the middle of something.
    fn close(&self) -> bool {
        let mut state = self.state();
        match state.phase {
            Phase::Closing(_) => true,
            Phase::Idle(_) if !state.is_unread => false,
            _ => {
                state.phase = Phase::Closing(Instant::now());
                true
            }
        }
    }

    fn write<T>(&self, written: &Poll<T>) {
        let mut state = self.state();
        match written {
            Poll::Ready(_) => state.stalled = None,
            Poll::Pending => _ = state.stalled.get_or_insert_with(Instant::now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose bytes an [`Activity`] hears of.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Activity,
    is_shut: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Activity) -> Self {
        Self { stream, activity, is_shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.activity.write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.activity.write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.write(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = &mut *self;
        if !watched.is_shut {
            ready!(Pin::new(&mut watched.stream).poll_shutdown(cx))?;
            watched.is_shut = true;
        }
        if !watched.activity.close() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut unread);
            ready!(Pin::new(&mut watched.stream).poll_read(cx, &mut unread))?;
            if unread.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
