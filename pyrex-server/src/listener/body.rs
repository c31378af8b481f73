//! The two bodies that cross a connection: [`Asked`], a request's, and [`Answer`], a response's.

use super::activity::Activity;
use super::under_way::UnderWay;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A request's body, which tells if it was given up before its end.
pub(crate) struct Asked {
    body: Incoming,
    activity: Activity,
    is_ended: bool,
}

impl Asked {
    pub(crate) fn new(body: Incoming, activity: Activity) -> Self {
        Self { body, activity, is_ended: false }
    }
}

impl http_body::Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.is_ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
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
