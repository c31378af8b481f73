//! The pages: a conversation at `/`, the API at `/docs`. Nothing on them comes from elsewhere, and nothing else may run there.

use crate::router::App;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const CHAT: &str = include_str!("page/index.html");
const DOCS: &str = include_str!("page/docs.html");

/// What the pages may do, as their header says it.
pub(crate) struct Pages {
    chat_policy: String,
    docs_policy: String,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self { chat_policy: policy(CHAT), docs_policy: policy(DOCS) }
    }
}

/// `GET /`
pub(crate) async fn chat(State(app): State<Arc<App>>) -> Response {
    page(CHAT, &app.pages.chat_policy)
}

/// `GET /docs`
pub(crate) async fn docs(State(app): State<Arc<App>>) -> Response {
    page(DOCS, &app.pages.docs_policy)
}

fn page(html: &'static str, policy: &str) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, [(CONTENT_SECURITY_POLICY, policy)], html).into_response()
}

/// Only the scripts and styles that stand in the page run, each known by its digest; it talks to this server alone, and shows
/// pictures that it was handed.
fn policy(html: &str) -> String {
    format!(
        "default-src 'none'; script-src{}; style-src{}; img-src 'self' data: blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digests(html, "script"),
        digests(html, "style"),
    )
}

/// The digests of what stands between `<element>` and `</element>`.
fn digests(html: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = html.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    let digests: String =
        inner.map(|text| format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))).collect();
    if digests.is_empty() { " 'none'".to_owned() } else { digests }
}
