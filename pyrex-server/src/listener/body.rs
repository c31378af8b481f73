//! The two bodies that cross a connection: [`Timed`], a request's, and [`Answer`], a response's.

use super::activity::Activity;
use super::under_way::UnderWay;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A request's body, which fails with [`io::ErrorKind::TimedOut`] if it is not all there in time.
pub(crate) struct Timed {
    body: Incoming,
    is_ended: bool,
    activity: Activity,
    until: Instant,
    /// Made when the body is first waited for: most are there at once.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub(crate) fn new(body: Incoming, activity: Activity, limit: Duration) -> Self {
        Self { body, is_ended: false, activity, until: Instant::now() + limit, alarm: None }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.is_ended = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = self.until;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(alarm.as_mut().poll(cx));
        let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not come in time");
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if !self.is_ended && !http_body::Body::is_end_stream(&self.body) {
            self.activity.leave_unread();
        }
    }
}

/// A response's body. Its request is under way until this is dropped.
pub(crate) struct Answer {
    body: Body,
    activity: Activity,
    _under_way: Option<UnderWay>,
}

impl Answer {
    pub(crate) fn new(body: Body, activity: Activity, under_way: Option<UnderWay>) -> Self {
        Self { body, activity, _under_way: under_way }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.activity.end_answer();
    }
}
