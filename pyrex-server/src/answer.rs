//! [`Answer`]: the events of one request as the body of its response.
//!
//! Each time the connection asks for more, all events that are there go into one frame, through one buffer. Dropping the body
//! cancels the request. A client that does not read is not asked: the engine pauses its request and no other.

use crate::host::Accepted;
use crate::metrics::{Metrics, OfTenant};
use crate::problem::retry_header;
use crate::visit::Tally;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_core::Stream;
use http_body::{Body as HttpBody, Frame};
use prometheus_client::metrics::histogram::Histogram;
use pyrex_core::{Error, ErrorKind, Event};
use pyrex_openai::Reply;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// A frame is sent once it is this long, whatever else is there.
const MAX_FRAME_LEN: usize = 64 << 10;
/// And once it has so many events: where reading one lets the engine make the next, there is always one more.
const MAX_FRAME_EVENTS: usize = 64;
/// Told to a client that hears nothing, so that nobody between takes the connection for dead.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The answer as it comes.
pub(crate) struct Answer {
    /// Gone once the final event was read: the request's place is free before its last bytes are sent.
    events: Option<Accepted>,
    reply: Reply,
    buffer: Vec<u8>,
    meter: Meter,
    /// What was made before the headers were sent.
    first: Option<Bytes>,
    keep_alive: KeepAlive,
}

impl Answer {
    pub(crate) fn new(events: Accepted, reply: Reply, meter: Meter, keep_alive: Duration) -> Self {
        Self {
            events: Some(events),
            reply,
            buffer: Vec::new(),
            meter,
            first: None,
            keep_alive: KeepAlive::new(keep_alive),
        }
    }

    /// Waits for the first bytes, which settle the status, and hands the rest to the connection.
    pub(crate) async fn into_response(mut self) -> Response {
        let first = poll_fn(|context| self.poll_bytes(context)).await.unwrap_or_default();
        let status = StatusCode::from_u16(self.reply.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = self.reply.content_type();
        let body = match self.events.is_some() {
            false => Body::from(first),
            true => {
                self.first = Some(first);
                Body::new(self)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if content_type == "text/event-stream" {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        }
        headers.extend(retry_header(status).map(|value| (RETRY_AFTER, value)));
        response
    }

    /// The bytes of all events that are there; nothing more after the final one.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut num_events = 0;
        while self.buffer.len() < MAX_FRAME_LEN && (num_events < MAX_FRAME_EVENTS || self.buffer.is_empty()) {
            let Some(events) = &mut self.events else { break };
            let event = match Pin::new(events).poll_next(context) {
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) => {
                    Event::Failed(Error::closed("the engine closed before the request ended"))
                }
                Poll::Pending => break,
            };
            num_events += 1;
            if event.is_final() {
                self.events = None;
            }
            self.meter.note(&event);
            self.reply.push(event, &mut self.buffer);
        }
        self.meter.told();
        match (self.buffer.is_empty(), &self.events) {
            (true, Some(_)) => Poll::Pending,
            (true, None) => Poll::Ready(None),
            (false, _) => {
                let bytes = Bytes::copy_from_slice(&self.buffer);
                self.buffer.clear();
                Poll::Ready(Some(bytes))
            }
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Poll::Ready(bytes) = self.poll_bytes(context) {
            self.keep_alive.told();
            return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
        }
        ready!(self.keep_alive.poll(context));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.events.is_none() && self.buffer.is_empty()
    }
}

/// Fires when nothing was told for a while. One timer stands for many tokens: it looks again when it fires.
struct KeepAlive {
    every: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl KeepAlive {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now(), timer: None }
    }

    fn told(&mut self) {
        self.last = Instant::now();
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let every = self.every;
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(every)));
            ready!(timer.as_mut().poll(context));
            let next = self.last + every;
            let is_due = next <= Instant::now();
            timer.as_mut().reset(if is_due { Instant::now() + every } else { next }.into());
            if is_due {
                self.last = Instant::now();
                return Poll::Ready(());
            }
        }
    }
}

/// Measures one answer as its client is told it.
pub(crate) struct Meter {
    tally: Arc<Tally>,
    ttft: Histogram,
    inter_token: Histogram,
    last_token: Option<Instant>,
    num_new: u32,
}

impl Meter {
    pub(crate) fn new(metrics: &Metrics, tally: Arc<Tally>, tenant: &str) -> Self {
        let of = OfTenant { tenant: tenant.to_owned() };
        Self {
            tally,
            ttft: metrics.ttft.get_or_create_owned(&of),
            inter_token: metrics.inter_token.get_or_create_owned(&of),
            last_token: None,
            num_new: 0,
        }
    }

    fn note(&mut self, event: &Event) {
        let tally = &*self.tally;
        match event {
            Event::Started { prompt_token_ids, .. } => {
                tally.prompt_tokens.store(prompt_token_ids.len() as u64, Ordering::Relaxed);
            }
            Event::Token { .. } => self.num_new += 1,
            Event::Finished { usage, .. } => {
                tally.cached_tokens.store(usage.cached_tokens as u64, Ordering::Relaxed);
            }
            Event::Failed(error) => {
                // The first is the one that counts.
                let _ = tally.failure.set(error.kind());
                if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Device) {
                    tracing::error!(request_id = tally.id, %error, "a request failed");
                }
            }
        }
    }

    /// The events so far have been told at once: the time since the last ones is shared among their tokens.
    fn told(&mut self) {
        let num_new = std::mem::take(&mut self.num_new);
        if num_new == 0 {
            return;
        }
        let now = Instant::now();
        self.tally.completion_tokens.fetch_add(u64::from(num_new), Ordering::Relaxed);
        match self.last_token.replace(now) {
            Some(last) => {
                let each = (now - last).as_secs_f64() / f64::from(num_new);
                (0..num_new).for_each(|_| self.inter_token.observe(each));
            }
            None => {
                let ttft = now - self.tally.received;
                self.tally.ttft_us.store(ttft.as_micros().max(1) as u64, Ordering::Relaxed);
                self.ttft.observe(ttft.as_secs_f64());
            }
        }
    }
}
