//! How a body becomes what is asked: taken whole, within limits, and read where that hurts nobody.
//!
//! Short bodies are read where they arrive. Long ones (JSON, base64) and those whose images must be fetched are read on
//! threads that may wait, so that no connection stands still for another's work.

use crate::fetch::Fetcher;
use crate::problem::Problem;
use crate::router::App;
use crate::visit::Tally;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pyrex_core::{Content, Error, ImageBytes, Part, Prompt};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Bodies up to this length are read where they arrive: less than a tenth of a millisecond of work.
pub(crate) const MAX_INLINE_LEN: usize = 8 << 10;
/// Bodies whose images are being fetched at a time: they wait, and compute nothing.
const MAX_FETCHING: usize = 32;

/// Brings the image that a URL leads to.
pub(crate) type Fetch<'a> = &'a dyn Fn(&str) -> pyrex_core::Result<ImageBytes>;

/// What reads bodies.
pub(crate) struct Reading {
    fetcher: Arc<Fetcher>,
    max_images: usize,
    /// How many long bodies are read at a time: as many as there are cores, for that is all work and memory.
    places: Semaphore,
    fetching: Semaphore,
}

impl Reading {
    pub(crate) fn new(fetcher: Fetcher, max_images: usize) -> Self {
        let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Semaphore::new(num_cores);
        Self { fetcher: Arc::new(fetcher), max_images, places, fetching: Semaphore::new(MAX_FETCHING) }
    }

    /// Reads a short body: here, unless an image must be fetched for it.
    ///
    /// # Errors
    /// Whatever `read` says.
    pub(crate) async fn short<T: Send + 'static>(
        &self,
        read: impl Fn(Fetch<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        match self.without_waiting(&read) {
            Some(result) => result,
            None => self.elsewhere(&self.fetching, read).await,
        }
    }

    /// What `read` says, unless an image must be fetched first.
    fn without_waiting<T>(
        &self,
        read: &impl Fn(Fetch<'_>) -> Result<T, Problem>,
    ) -> Option<Result<T, Problem>> {
        let has_url = Cell::new(false);
        let postpone = |url: &str| match self.fetcher.fetches(url) {
            true => {
                has_url.set(true);
                Err(Error::internal("fetched later"))
            }
            false => self.fetcher.fetch(url),
        };
        let result = read(&postpone);
        (!has_url.get()).then_some(result)
    }

    /// Reads a body that takes its time, on another thread.
    ///
    /// # Errors
    /// Whatever `read` says.
    pub(crate) async fn long<T: Send + 'static>(
        &self,
        read: impl Fn(Fetch<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.elsewhere(&self.places, read).await
    }

    async fn elsewhere<T: Send + 'static>(
        &self,
        places: &Semaphore,
        read: impl Fn(Fetch<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let _place = places.acquire().await.expect("nobody closes it");
        let (fetcher, most, span) = (self.fetcher.clone(), self.max_images, tracing::Span::current());
        let work = move || {
            let num_fetched = Cell::new(0);
            let fetch = |url: &str| {
                num_fetched.set(num_fetched.get() + 1);
                if num_fetched.get() > most { Err(too_many_images(most)) } else { fetcher.fetch(url) }
            };
            span.in_scope(|| read(&fetch))
        };
        let ended = |_| Err(Error::internal("a panic while the body was read").into());
        spawn_blocking(work).await.unwrap_or_else(ended)
    }

    /// # Errors
    /// `InvalidRequest` if there are more images than one request may have.
    pub(crate) fn check_images(&self, prompt: &Prompt) -> pyrex_core::Result<()> {
        let Prompt::Chat(chat) = prompt else { return Ok(()) };
        let parts = chat.messages.iter().filter_map(|message| match &message.content {
            Content::Parts(parts) => Some(parts),
            _ => None,
        });
        match parts.flatten().filter(|part| matches!(part, Part::Image(_))).count() > self.max_images {
            true => Err(too_many_images(self.max_images)),
            false => Ok(()),
        }
    }
}

fn too_many_images(most: usize) -> Error {
    Error::invalid_request(format_args!("the request has more than {most} images"))
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
