//! The three endpoints that answer: a body is read, policy goes over the request, the host takes it, its events become an
//! [`Answer`].

use crate::answer::{Answer, Meter};
use crate::host::Arrival;
use crate::problem::Problem;
use crate::reading::{Fetch, MAX_INLINE_LEN};
use crate::router::{App, unix_seconds};
use crate::tenant::Tenant;
use crate::visit::Tally;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use pyrex_core::{Engine, Input, SamplingParams};
use pyrex_openai::{Asked, Context, Endpoint, Reply, Served, read_at};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `POST /v1/chat/completions`
pub(crate) async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    generate(app, request, (Endpoint::Chat, "/v1/chat/completions")).await
}

/// `POST /v1/completions`
pub(crate) async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    generate(app, request, (Endpoint::Completions, "/v1/completions")).await
}

/// `POST /v1/responses`
pub(crate) async fn responses(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    generate(app, request, (Endpoint::Responses, "/v1/responses")).await
}

async fn generate(
    app: Arc<App>,
    request: Request,
    (endpoint, path): (Endpoint, &'static str),
) -> Result<Response, Problem> {
    let tally = Tally::of(&request);
    let tenant = app.identify(&request, &tally)?;
    app.check_open()?;
    let engine = app.host.engine()?;
    let body = app.body(request, &tally).await?;
    let is_short = body.len() <= MAX_INLINE_LEN;
    let served = Served { id: tally.id.clone(), created: unix_seconds(), model: app.model.clone() };
    let reader = Reader { app: app.clone(), endpoint, body, engine, served, tenant: tenant.clone() };
    let read = move |fetch: Fetch<'_>| reader.read(fetch);
    let (asked, reply) = match is_short {
        true => app.reading.short(read).await?,
        false => app.reading.long(read).await?,
    };
    let meter = Meter::new(&app.metrics, tally.clone(), tenant.name());
    let arrival = Arrival { request: asked.request, tenant, id: tally.id.clone(), endpoint: path };
    let accepted = app.host.submit(arrival).await?;
    let keep_alive = Duration::from_millis(app.config.limits.keep_alive_ms);
    Ok(Answer::new(accepted, reply, meter, keep_alive).into_response().await)
}

/// A body and all that it takes to make a request of it.
struct Reader {
    app: Arc<App>,
    endpoint: Endpoint,
    body: Bytes,
    engine: Engine,
    served: Served,
    tenant: Tenant,
}

impl Reader {
    fn read(&self, fetch: Fetch<'_>) -> Result<(Asked, Reply), Problem> {
        let defaults = SamplingParams::from_model(self.engine.spec());
        let mut asked = read_at(self.endpoint, &self.body, &Context { defaults: &defaults, fetch })?;
        self.app.check_model(asked.model.as_deref())?;
        if let Input::Prompt(prompt) = &asked.request.input {
            self.app.reading.check_images(prompt)?;
        }
        self.apply_policy(&mut asked)?;
        let reply = Reply::new(&mut asked, &self.engine, self.served.clone())?;
        Ok((asked, reply))
    }

    /// What the tenant may have, and no more time than the server gives.
    fn apply_policy(&self, asked: &mut Asked) -> Result<(), Problem> {
        let highest = self.tenant.priority();
        let found = asked.priority.unwrap_or(highest);
        if found > highest {
            let what = format!("priority: is {found}, expected at most {highest}, which is this tenant's");
            return Err(Problem::at(StatusCode::BAD_REQUEST, "invalid_request", what, Some("priority")));
        }
        let request = &mut asked.request;
        request.priority = found;
        let own = Some(request.cache_salt.as_str()).filter(|salt| !salt.is_empty());
        request.cache_salt = self.tenant.salt_with(own);
        let limit = Duration::from_millis(self.app.config.limits.request_timeout_ms);
        let deadlines = [request.deadline, Instant::now().checked_add(limit)];
        request.deadline = deadlines.into_iter().flatten().min();
        Ok(())
    }
}
