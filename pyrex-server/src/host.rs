//! [`Host`]: who owns requests. The router asks it for everything that an engine does, so that it runs over a plain engine
//! ([`EngineHost`]) and over one whose requests belong to processes of OTP.

use crate::tenant::{Tenant, Throttled};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use pyrex_core::{Engine, Error, ErrorKind, Event, Request};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Who owns requests.
pub trait Host: Send + Sync + 'static {
    /// The engine that answers now.
    ///
    /// # Errors
    /// `Closed` while there is none: clients are told to come again.
    fn engine(&self) -> pyrex_core::Result<Engine>;

    /// Takes a request in, or says why not.
    fn submit(&self, arrival: Arrival) -> BoxFuture<'_, Result<Accepted, Rejected>>;
}

/// A request that was read, and that policy has gone over.
pub struct Arrival {
    /// What is asked.
    pub request: Request,
    /// On whose account.
    pub tenant: Tenant,
    /// What it is called in logs and in the answer.
    pub id: String,
    /// The path it was sent to.
    pub endpoint: &'static str,
}

/// The events of a request. Dropping it cancels the request, and gives back whatever it held.
pub struct Accepted {
    events: BoxStream<'static, Event>,
}

/// Why a request was not taken.
#[derive(Debug)]
pub struct Rejected {
    /// What is wrong.
    pub error: Error,
    /// When it could be taken, if waiting helps.
    pub retry_after: Option<Duration>,
}

impl Accepted {
    /// `events` ends after its final event, and cancels the request when it is dropped; `guard` is kept as long.
    pub fn new<G: Send + Unpin + 'static>(
        events: impl Stream<Item = Event> + Send + Unpin + 'static,
        guard: G,
    ) -> Self {
        Self { events: Box::pin(Held { events, _guard: guard }) }
    }
}

impl Stream for Accepted {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.as_mut().poll_next(context)
    }
}

/// Fields are dropped in this order: whoever is admitted next finds the request gone.
struct Held<S, G> {
    events: S,
    _guard: G,
}

impl<S: Stream<Item = Event> + Unpin, G: Unpin> Stream for Held<S, G> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        Pin::new(&mut self.events).poll_next(context)
    }
}

impl From<Throttled> for Rejected {
    fn from(Throttled { retry_after, what }: Throttled) -> Self {
        Self { error: Error::overloaded(what), retry_after: Some(retry_after) }
    }
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// The plain host: one engine, and the quotas of tenants.
pub struct EngineHost {
    engine: Engine,
    num_accepted: AtomicU64,
}

impl EngineHost {
    /// Requests go to this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine, num_accepted: AtomicU64::new(0) }
    }

    async fn take(&self, arrival: Arrival) -> Result<Accepted, Rejected> {
        let Arrival { request, tenant, .. } = arrival;
        let permit = tenant.admit()?;
        let handle = match request.constraint {
            None => self.engine.submit(request),
            // A grammar is compiled by whoever submits.
            Some(_) => {
                let (engine, span) = (self.engine.clone(), tracing::Span::current());
                let submit = move || span.in_scope(|| engine.submit(request));
                let ended = |_| Err(Error::internal("a panic while a grammar was compiled"));
                tokio::task::spawn_blocking(submit).await.unwrap_or_else(ended)
            }
        };
        let handle = handle.map_err(|error| self.rejected(error))?;
        self.num_accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Accepted::new(handle.into_stream(), permit))
    }

    fn rejected(&self, error: Error) -> Rejected {
        let retry_after = match error.kind() {
            ErrorKind::Overloaded => Some(self.until_there_is_room()),
            _ => None,
        };
        Rejected { error, retry_after }
    }

    /// How long the queue as it stands takes: the tokens of its requests, if they are like those that came before, at the rate
    /// of the last seconds. A second at least, for who asks again sooner finds the same queue; a minute at most, for then it is
    /// a guess.
    fn until_there_is_room(&self) -> Duration {
        let stats = self.engine.stats();
        let num_accepted = self.num_accepted.load(Ordering::Relaxed).max(1);
        let tokens_each = stats.generated_tokens as f64 / num_accepted as f64;
        let seconds = stats.num_waiting as f64 * tokens_each / stats.tokens_per_second.max(1e-3);
        Duration::from_secs(seconds.clamp(1.0, 60.0).ceil() as u64)
    }
}

impl Host for EngineHost {
    fn engine(&self) -> pyrex_core::Result<Engine> {
        Ok(self.engine.clone())
    }

    fn submit(&self, arrival: Arrival) -> BoxFuture<'_, Result<Accepted, Rejected>> {
        Box::pin(self.take(arrival))
    }
}
