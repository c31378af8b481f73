//! The three endpoints that answer: a body is read, policy goes over the request, the host takes it, its events become an
//! [`Answer`].

use crate::answer::{Answer, Meter};
use crate::fetch::Fetcher;
use crate::host::Arrival;
use crate::problem::Problem;
use crate::router::{App, unix_seconds};
use crate::tenant::Tenant;
use crate::visit::Tally;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pyrex_core::{Content, Engine, Error, ImageBytes, Input, Part, Prompt, SamplingParams};
use pyrex_openai::{Asked, Context, Endpoint, Reply, Served, read_at};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Bodies up to this length are read where they arrive: less than a tenth of a millisecond of work.
const MAX_INLINE_LEN: usize = 8 << 10;
/// Bodies whose images are being fetched at a time: they wait, and compute nothing.
const MAX_FETCHING: usize = 32;

/// What reads bodies.
pub(crate) struct Reading {
    fetcher: Fetcher,
    /// How many long bodies are read at a time: as many as there are cores, for that is all work and memory.
    places: Semaphore,
    fetching: Semaphore,
}

impl Reading {
    pub(crate) fn new(fetcher: Fetcher) -> Self {
        let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { fetcher, places: Semaphore::new(num_cores), fetching: Semaphore::new(MAX_FETCHING) }
    }
}

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
    let (mut asked, reply) = app.read(endpoint, body, engine, &tally, &tenant).await?;
    app.limit_time(&mut asked);
    let meter = Meter::new(&app.metrics, tally.clone(), tenant.name());
    let arrival = Arrival { request: asked.request, tenant, id: tally.id.clone(), endpoint: path };
    let accepted = app.host.submit(arrival).await?;
    let keep_alive = Duration::from_millis(app.config.limits.keep_alive_ms);
    Ok(Answer::new(accepted, reply, meter, keep_alive).into_response().await)
}

impl App {
    /// The whole body of a request, if it is JSON and not too long.
    ///
    /// # Errors
    /// 415, 413, 408 if it does not come in time, 400 if it breaks off.
    pub(crate) async fn body(&self, request: Request, tally: &Tally) -> Result<Bytes, Problem> {
        check_headers(request.headers())?;
        let most = self.config.limits.max_body_bytes;
        let too_long = || {
            let what = format!("the body is longer than {most} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", what)
        };
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        if announced.is_some_and(|len: u64| len > most as u64) {
            return Err(too_long());
        }
        let within = Duration::from_millis(self.config.limits.body_timeout_ms);
        let collected = timeout(within, Limited::new(request.into_body(), most).collect()).await;
        let late = |_| {
            let what = format!("the body did not come within {} ms", within.as_millis());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", what)
        };
        let bytes = match collected.map_err(late)? {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_long()),
            Err(_) => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "body_broken", "the body breaks off"));
            }
        };
        tally.request_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Reads a body, here if that is soon done, and on a thread that may wait if it is long or an image must be fetched.
    async fn read(
        self: &Arc<Self>,
        endpoint: Endpoint,
        body: Bytes,
        engine: Engine,
        tally: &Tally,
        tenant: &Tenant,
    ) -> Result<(Asked, Reply), Problem> {
        let served = Served { id: tally.id.clone(), created: unix_seconds(), model: self.model.clone() };
        let reader = Reader { app: self.clone(), endpoint, body, engine, served, tenant: tenant.clone() };
        let is_short = reader.body.len() <= MAX_INLINE_LEN;
        if is_short {
            let has_url = Cell::new(false);
            let postpone = |url: &str| match self.reading.fetcher.fetches(url) {
                true => {
                    has_url.set(true);
                    Err(Error::internal("fetched later"))
                }
                false => self.reading.fetcher.fetch(url),
            };
            let read = reader.read(&postpone);
            if !has_url.get() {
                return read;
            }
        }
        let _place = match is_short {
            true => place(&self.reading.fetching).await,
            false => place(&self.reading.places).await,
        };
        let span = tracing::Span::current();
        let ended = |_| Err(Error::internal("a panic while the body was read").into());
        spawn_blocking(move || span.in_scope(|| reader.read_and_fetch())).await.unwrap_or_else(ended)
    }

    /// The sooner of the server's limit and the client's.
    fn limit_time(&self, asked: &mut Asked) {
        let limit = Duration::from_millis(self.config.limits.request_timeout_ms);
        let deadlines = [asked.request.deadline, Instant::now().checked_add(limit)];
        asked.request.deadline = deadlines.into_iter().flatten().min();
    }
}

async fn place(places: &Semaphore) -> SemaphorePermit<'_> {
    places.acquire().await.expect("nobody closes it")
}

/// Only what says that it is JSON: a page of another origin can send a form or a text without asking, but not this.
fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let found = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_type);
    let refuse =
        |what: &str| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what));
    match found.as_deref() {
        Some("application/json") => {}
        Some(_) => return refuse("`content-type` is another one, expected application/json"),
        None => return refuse("`content-type` is missing, expected application/json"),
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("`content-encoding` is not supported, expected the body as it is")
        }
        _ => Ok(()),
    }
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
    fn read_and_fetch(&self) -> Result<(Asked, Reply), Problem> {
        let (most, num_fetched) = (self.app.config.limits.max_images, Cell::new(0));
        let fetch = |url: &str| {
            num_fetched.set(num_fetched.get() + 1);
            match num_fetched.get() > most {
                true => Err(too_many_images(most)),
                false => self.app.reading.fetcher.fetch(url),
            }
        };
        self.read(&fetch)
    }

    fn read(
        &self,
        fetch: &dyn Fn(&str) -> pyrex_core::Result<ImageBytes>,
    ) -> Result<(Asked, Reply), Problem> {
        let defaults = SamplingParams::from_model(self.engine.spec());
        let context = Context { defaults: &defaults, fetch };
        let mut asked = read_at(self.endpoint, &self.body, &context)?;
        self.app.check_model(asked.model.as_deref())?;
        let most = self.app.config.limits.max_images;
        if num_images(&asked.request.input) > most {
            return Err(too_many_images(most).into());
        }
        self.apply_policy(&mut asked)?;
        let reply = Reply::new(&mut asked, &self.engine, self.served.clone())?;
        Ok((asked, reply))
    }

    fn apply_policy(&self, asked: &mut Asked) -> Result<(), Problem> {
        let highest = self.tenant.priority();
        let found = asked.priority.unwrap_or(highest);
        if found > highest {
            let what = format!("priority: is {found}, expected at most {highest}, which is this tenant's");
            return Err(Problem::at(StatusCode::BAD_REQUEST, "invalid_request", what, Some("priority")));
        }
        asked.request.priority = found;
        let own = Some(asked.request.cache_salt.as_str()).filter(|salt| !salt.is_empty());
        asked.request.cache_salt = self.tenant.salt_with(own);
        Ok(())
    }
}

fn too_many_images(most: usize) -> Error {
    Error::invalid_request(format_args!("the request has more than {most} images"))
}

fn num_images(input: &Input) -> usize {
    let is_image = |part: &&Part| matches!(part, Part::Image(_));
    match input {
        Input::Prompt(Prompt::Chat(chat)) => {
            let parts = chat.messages.iter().filter_map(|message| match &message.content {
                Content::Parts(parts) => Some(parts),
                _ => None,
            });
            parts.flatten().filter(is_image).count()
        }
        _ => 0,
    }
}
