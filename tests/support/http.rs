//! The server's router without a connection: a request goes in, the answer comes out.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use pyrex_core::Engine;
use pyrex_server::{Config, EngineHost, Host, Shutdown, Tenants, router};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// A router over one engine.
pub struct Site {
    /// What answers.
    pub router: Router,
    /// Who computes.
    pub engine: Engine,
    /// Tells it to stop.
    pub shutdown: Shutdown,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A router over `engine` with the defaults of a config, and changes to it.
pub fn site(engine: Engine, change: impl FnOnce(&mut Config)) -> Site {
    site_of(Arc::new(EngineHost::new(engine.clone())), engine, change)
}

/// The same over a host that may not have the engine.
pub fn site_of(host: Arc<dyn Host>, engine: Engine, change: impl FnOnce(&mut Config)) -> Site {
    let mut config = Config { model: Some("shapes".to_owned()), ..Config::default() };
    change(&mut config);
    config.validate().expect("a config");
    let tenants = Arc::new(Tenants::open(&config).expect("tenants"));
    let shutdown = Shutdown::new();
    let router = router(host, &config, tenants, shutdown.clone()).expect("a router");
    Site { router, engine, shutdown }
}

/// A body of JSON to a path.
pub fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).expect("a request")
}

/// A question to a path.
pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// As `request`, with one more header.
pub fn with_header(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().expect("a header"));
    request
}

impl Site {
    /// The head of the answer, and a body that nobody has read.
    pub async fn begin(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.expect("a router answers")
    }

    /// The whole answer.
    pub async fn send(&self, request: Request<Body>) -> Answered {
        read(self.begin(request).await).await
    }
}

/// Reads an answer to its end.
pub async fn read(response: Response) -> Answered {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answered { status: parts.status.as_u16(), headers: parts.headers, body }
}

impl Answered {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }

    /// The events of a stream, which ends with `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"), "{}", self.text());
        let events = self.text().split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        let mut data: Vec<&str> =
            events.map(|event| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}"))).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.text());
        data.into_iter().map(|data| serde_json::from_str(data).expect("an event is JSON")).collect()
    }

    /// Asserts that this is an error of OpenAI's shape, and returns its status, code and field.
    pub fn error(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("{body}"));
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        assert!(error["type"].is_string() && error.contains_key("param"), "{body}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        (self.status, text("code").expect("a code"), text("param"))
    }

    /// What is wrong, to read.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().expect("a message").to_owned()
    }
}
