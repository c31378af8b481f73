//! [`observe`]: every request from its first byte to its last: its id, its span, the line in the log, what is counted.
//!
//! What is known only deeper inside is noted in a [`Tally`], which travels with the request. Prompts, answers and keys are
//! noted nowhere.

use crate::metrics::{Metrics, OfEndpoint, OfRequest, OfTenant};
use crate::problem::Problem;
use crate::router::{App, ROUTES};
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{HeaderName, SERVER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pyrex_core::ErrorKind;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tracing::{Instrument, Span, field};

/// The header by which a client names a request, and by which it is told the name.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest name of a request that a client may give.
const MAX_ID_LEN: usize = 128;
/// Stands for the tenant of a request that nobody had to say who they are for.
const NOBODY: &str = "-";

/// What becomes known about a request on its way.
pub(crate) struct Tally {
    /// What it is called.
    pub(crate) id: String,
    /// When its head was read.
    pub(crate) received: Instant,
    /// Whose it is.
    pub(crate) tenant: OnceLock<String>,
    /// What it failed with, after its answer had begun or before.
    pub(crate) failure: OnceLock<ErrorKind>,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) completion_tokens: AtomicU64,
    /// Until the first token, in microseconds; 0 if there was none.
    pub(crate) ttft_us: AtomicU64,
}

/// Makes names for requests that have none: no two are alike.
pub(crate) struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self { process: RandomState::new().hash_one("requests"), next: AtomicU64::new(0) }
    }

    /// The client's own name for the request if it can stand in a header, a log and an answer, or a new one.
    fn of(&self, request: &Request) -> String {
        let is_sane = |id: &&str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(fits)
        };
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_sane);
        given.map_or_else(
            || format!("{:016x}{:08x}", self.process, self.next.fetch_add(1, Ordering::Relaxed)),
            str::to_owned,
        )
    }
}

impl Tally {
    fn new(id: String) -> Self {
        Self {
            id,
            received: Instant::now(),
            tenant: OnceLock::new(),
            failure: OnceLock::new(),
            request_bytes: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            ttft_us: AtomicU64::new(0),
        }
    }

    /// The one of this request.
    pub(crate) fn of(request: &Request) -> Arc<Self> {
        let tally = request.extensions().get::<Arc<Self>>();
        tally.cloned().expect("`observe` goes around every route")
    }

    fn tenant(&self) -> &str {
        self.tenant.get().map_or(NOBODY, String::as_str)
    }
}

/// Goes around everything else.
pub(crate) async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let visit = Visit::begin(app, &request);
    request.extensions_mut().insert(visit.tally.clone());
    let answer = AssertUnwindSafe(next.run(request).instrument(visit.span.clone())).catch_unwind();
    // A panic ends its own request: nothing of it is shared.
    let panicked = |_| {
        let what = "a panic in the server: please report it";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", what).into_response()
    };
    visit.end_with(answer.await.unwrap_or_else(panicked))
}

/// Told of when it is dropped, whether an answer was sent, half an answer, or none.
struct Visit {
    app: Arc<App>,
    tally: Arc<Tally>,
    span: Span,
    method: Method,
    route: &'static str,
    status: Option<StatusCode>,
    was_sent: bool,
    response_bytes: u64,
}

impl Visit {
    fn begin(app: Arc<App>, request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        // What a client made up is no path of ours.
        let route = ROUTES.iter().find(|route| **route == path).copied().unwrap_or("other");
        let tally = Arc::new(Tally::new(app.ids.of(request)));
        let method = request.method().clone();
        let span = tracing::info_span!(
            "http",
            otel.name = %format_args!("{method} {route}"),
            otel.kind = "server",
            http.request.method = %method,
            http.route = route,
            http.response.status_code = field::Empty,
            request_id = tally.id,
            tenant = field::Empty,
        );
        app.metrics.in_flight.inc();
        Self { app, tally, span, method, route, status: None, was_sent: false, response_bytes: 0 }
    }

    fn end_with(mut self, mut response: Response) -> Response {
        self.status = Some(response.status());
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static(concat!("pyrex/", env!("CARGO_PKG_VERSION"))));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(id) = HeaderValue::from_str(&self.tally.id) {
            headers.insert(REQUEST_ID, id);
        }
        // The body of such an answer is dropped unread.
        self.was_sent = self.method == Method::HEAD || response.body().is_end_stream();
        response.map(|body| Body::new(Observed { body, visit: self }))
    }

    /// What became of it, in one of a few words.
    fn outcome(&self) -> &'static str {
        match (self.tally.failure.get(), self.status.map(|status| status.as_u16())) {
            (Some(ErrorKind::Cancelled), _) | (_, None) => "cancelled",
            _ if !self.was_sent => "cancelled",
            (Some(ErrorKind::DeadlineExceeded), _) => "timed_out",
            (_, Some(429)) => "throttled",
            (_, Some(401 | 403)) => "denied",
            (_, Some(503)) => "unavailable",
            (_, Some(408 | 504)) => "timed_out",
            (_, Some(400..500)) => "refused",
            (Some(_), _) | (_, Some(500..)) => "failed",
            _ => "ok",
        }
    }

    fn count(&self, outcome: &'static str) {
        let Metrics { requests, duration, prompt_tokens, cached_tokens, generation_tokens, .. } =
            &self.app.metrics;
        let Tally { received, request_bytes, completion_tokens, .. } = &*self.tally;
        let (tenant, at) = (self.tally.tenant(), OfEndpoint { endpoint: self.route });
        let request = OfRequest { tenant: tenant.to_owned(), endpoint: self.route, outcome };
        requests.get_or_create(&request).inc();
        duration.get_or_create(&at).observe(received.elapsed().as_secs_f64());
        self.app.metrics.in_flight.dec();
        self.app.metrics.response_bytes.get_or_create(&at).inc_by(self.response_bytes);
        let request_bytes = request_bytes.load(Ordering::Relaxed);
        if request_bytes > 0 {
            self.app.metrics.request_bytes.get_or_create(&at).inc_by(request_bytes);
        }
        let of = OfTenant { tenant: request.tenant };
        let counts = [
            (generation_tokens, completion_tokens),
            (prompt_tokens, &self.tally.prompt_tokens),
            (cached_tokens, &self.tally.cached_tokens),
        ];
        for (family, count) in counts {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                family.get_or_create(&of).inc_by(count);
            }
        }
    }

    fn log(&self, outcome: &'static str) {
        let tally = &*self.tally;
        let ttft_us = tally.ttft_us.load(Ordering::Relaxed);
        tracing::info!(
            target: "pyrex_server::access",
            parent: &self.span,
            request_id = tally.id,
            method = self.method.as_str(),
            path = self.route,
            status = self.status.map(|status| status.as_u16()),
            tenant = tally.tenant(),
            duration_ms = tally.received.elapsed().as_secs_f64() * 1e3,
            prompt_tokens = tally.prompt_tokens.load(Ordering::Relaxed),
            completion_tokens = tally.completion_tokens.load(Ordering::Relaxed),
            ttft_ms = (ttft_us > 0).then(|| ttft_us as f64 / 1e3),
            error = tally.failure.get().map(|kind| kind.name()),
            outcome,
        );
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let outcome = self.outcome();
        self.span.record("tenant", self.tally.tenant());
        if let Some(status) = self.status {
            self.span.record("http.response.status_code", status.as_u16());
        }
        self.count(outcome);
        self.log(outcome);
    }
}

/// A body that knows whether all of it was taken.
struct Observed {
    body: Body,
    visit: Visit,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.visit.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        self.visit.was_sent |= matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
