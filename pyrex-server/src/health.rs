//! Whether the server lives, and whether it can be sent requests.
//!
//! *Live* says that the process answers. *Ready* says that a request would be answered: the server takes some, there is an
//! engine, no step hangs, and the engine's self-test passes: a forward that has to agree with itself. The test is run when
//! somebody asks and the last one is [`MAX_AGE`] old, once for all who ask.

use crate::problem::RETRY_CLOSED;
use crate::router::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use pyrex_core::{Engine, Error, ErrorKind};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long the result of a self-test holds.
const MAX_AGE: Duration = Duration::from_secs(5);
/// How long a self-test may take: it waits before all others, but for the step that runs.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a step may run before nobody is sent here any more. The engine itself says that it is stuck much later.
const STUCK_AFTER_MS: f64 = 30_000.0;

/// What the last self-test said.
#[derive(Default)]
pub(crate) struct Readiness {
    last: Arc<Mutex<Option<Probed>>>,
}

struct Probed {
    at: Instant,
    result: Result<(), Error>,
}

impl Readiness {
    /// # Errors
    /// Whatever the self-test says, now or a moment ago; `DeadlineExceeded` while it does not end.
    async fn check(&self, engine: Engine) -> Result<(), Error> {
        // An engine that hangs sees no deadline.
        let late = |_| Err(Error::deadline_exceeded("the self-test did not end in time"));
        timeout(PROBE_TIMEOUT, self.probed(engine)).await.unwrap_or_else(late)
    }

    async fn probed(&self, engine: Engine) -> Result<(), Error> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some(probed) = last.as_ref().filter(|probed| probed.at.elapsed() < MAX_AGE) {
            return probed.result.clone();
        }
        // Whoever asks may go; the test ends, and stays the only one.
        let probe = spawn_blocking(move || {
            let result = engine.probe(PROBE_TIMEOUT);
            *last = Some(Probed { at: Instant::now(), result: result.clone() });
            result
        });
        probe.await.unwrap_or_else(|_| Err(Error::internal("a panic in the self-test")))
    }
}

/// `GET /health/live`
pub(crate) async fn live() -> Response {
    respond(StatusCode::OK, &json!({"status": "live"}))
}

/// `GET /health/ready`
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let mut checks = Map::new();
    let mut note = |name: &str, result: Result<(), String>| {
        let is_ok = result.is_ok();
        checks.insert(name.to_owned(), result.map_or_else(Value::from, |()| Value::from("ok")));
        is_ok
    };
    let draining = "the server is about to close".to_owned();
    let mut is_ready = note("accepting", if app.is_draining() { Err(draining) } else { Ok(()) });
    match app.host.engine() {
        Err(error) => is_ready &= note("engine", Err(error.message().to_owned())),
        Ok(engine) => {
            is_ready &= note("engine", Ok(()));
            let moving = moving(&engine);
            let is_moving = note("steps", moving);
            is_ready &= is_moving;
            if is_ready {
                is_ready &= note("self_test", self_test(&app, engine).await);
            }
        }
    }
    let status = if is_ready { "ready" } else { "unready" };
    let body = json!({"status": status, "checks": checks});
    match is_ready {
        true => respond(StatusCode::OK, &body),
        false => {
            let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, &body);
            response.headers_mut().insert(RETRY_AFTER, RETRY_CLOSED.as_secs().into());
            response
        }
    }
}

fn moving(engine: &Engine) -> Result<(), String> {
    match engine.stats().running_step_ms.filter(|age_ms| *age_ms > STUCK_AFTER_MS) {
        None => Ok(()),
        Some(age_ms) => Err(format!("a step has been running for {:.0} s", age_ms / 1e3)),
    }
}

/// A queue that is full says nothing against the engine: whoever is sent here is told when to come again.
async fn self_test(app: &App, engine: Engine) -> Result<(), String> {
    match app.readiness.check(engine).await {
        Err(error) if error.kind() != ErrorKind::Overloaded => Err(error.message().to_owned()),
        _ => Ok(()),
    }
}

fn respond(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
