//! [`Problem`]: why a request is not answered, as the response that says so. All have OpenAI's shape.

use crate::host::Rejected;
use crate::tenant::Denied;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pyrex_core::{Error, ErrorKind};
use pyrex_openai::{Refusal, error_body, status};
use serde_json::json;
use std::time::Duration;

/// How long clients are told to wait while there is no engine, or the server is about to close: another one may be there then.
pub(crate) const RETRY_CLOSED: Duration = Duration::from_secs(5);
/// The same where nothing better is known.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);

/// A response that is no answer.
pub(crate) struct Problem {
    status: StatusCode,
    body: Vec<u8>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of the transport's own, by OpenAI's code for it or one like theirs.
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self::at(status, code, message, None)
    }

    /// As [`new`](Self::new), with the field that is wrong.
    pub(crate) fn at(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        param: Option<&str>,
    ) -> Self {
        let kind = match status.as_u16() {
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let error = json!({"message": message.into(), "type": kind, "param": param, "code": code});
        Self { status, body: json!({"error": error}).to_string().into_bytes(), header: None }
    }

    /// The same, and when it is worth asking again.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.header = Some((RETRY_AFTER, whole_seconds(wait)));
        self
    }
}

/// As the header has it: a fraction counts as a second.
fn whole_seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
}

/// When it is worth asking again after a failure with this status, if waiting helps.
pub(crate) fn retry_header(status: StatusCode) -> Option<HeaderValue> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(whole_seconds(RETRY_UNKNOWN)),
        StatusCode::SERVICE_UNAVAILABLE => Some(whole_seconds(RETRY_CLOSED)),
        _ => None,
    }
}

/// The status of an error as HTTP has it.
pub(crate) fn status_of(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(status(kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(Refusal::from(error))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = status_of(refusal.error().kind());
        let header = retry_header(status).map(|value| (RETRY_AFTER, value));
        Self { status, body: error_body(refusal.error(), refusal.param()), header }
    }
}

impl From<Rejected> for Problem {
    fn from(Rejected { error, retry_after }: Rejected) -> Self {
        let problem = Self::from(error);
        match retry_after {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied.status() {
            401 => Self {
                header: Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
                ..Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", denied.to_string())
            },
            _ => Self::new(StatusCode::FORBIDDEN, "permission_denied", denied.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.header);
        response
    }
}
