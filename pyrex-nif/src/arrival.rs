//! [`OtpHost`]: requests of HTTP clients belong to processes of OTP.
//!
//! A request that was read is announced to the process of the server, which has it admitted and owned, or refused. Its tokens
//! go from the engine to the socket; the process that owns it hears of the prompt, the first token and the end.

use crate::atoms;
use crate::engine::EngineResource;
use crate::error;
use crate::mailbox::Mailbox;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use pyrex_core::{Engine, Error, Event, Request, RequestControl, Result};
use pyrex_server::{Accepted, Arrival, Host, Permit, Rejected};
use rustler::{Atom, LocalPid, NifResult, OwnedEnv, Resource, ResourceArc, Term};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The host of a server whose requests `owner` hears of.
pub(crate) struct OtpHost {
    owner: LocalPid,
    id: u64,
    engine: Mutex<Option<ResourceArc<EngineResource>>>,
}

/// A request that somebody waits for to be taken.
pub(crate) struct ArrivalResource {
    /// It may be submitted more than once, if engines change.
    request: Mutex<Request>,
    waiting: Mutex<Option<Waiting>>,
}

struct Waiting {
    answer: oneshot::Sender<Result<Accepted, Rejected>>,
    permit: Permit,
}

#[rustler::resource_impl]
impl Resource for ArrivalResource {}

impl OtpHost {
    pub(crate) fn new(owner: LocalPid, id: u64) -> Arc<Self> {
        Arc::new(Self { owner, id, engine: Mutex::new(None) })
    }

    /// Bodies are read for this engine from now on.
    pub(crate) fn set_engine(&self, engine: Option<ResourceArc<EngineResource>>) {
        let before = std::mem::replace(&mut *self.lock(), engine);
        drop(before);
    }

    async fn announce(&self, arrival: Arrival) -> Result<Accepted, Rejected> {
        let Arrival { request, tenant, id, endpoint } = arrival;
        let permit = tenant.admit()?;
        let (answer, told) = oneshot::channel();
        let waiting = Mutex::new(Some(Waiting { answer, permit }));
        let arrival = ResourceArc::new(ArrivalResource { request: Mutex::new(request), waiting });
        let about = (tenant.name(), id.as_str(), endpoint);
        // If nobody is there to hear of it, the last who could answer is gone with the message.
        let _ = OwnedEnv::new()
            .send_and_clear(&self.owner, |_| (atoms::pyrex_arrival(), self.id, arrival, about));
        told.await.unwrap_or_else(|_| Err(Error::closed("nobody takes requests now").into()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<ResourceArc<EngineResource>>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for OtpHost {
    fn engine(&self) -> Result<Engine> {
        self.lock()
            .as_ref()
            .map_or_else(|| Err(Error::closed("no engine is open now")), |engine| engine.engine())
    }

    fn submit(&self, arrival: Arrival) -> BoxFuture<'_, Result<Accepted, Rejected>> {
        Box::pin(self.announce(arrival))
    }
}

impl ArrivalResource {
    /// Submits the request, and hands its events to who waits; `mailbox` hears what an owner must know.
    pub(crate) fn submit(&self, engine: &Engine, mailbox: &Arc<Mailbox>) -> Result<RequestControl> {
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handle = engine.submit(request)?;
        let control = handle.control();
        let watched = Watched { events: handle.into_stream(), mailbox: mailbox.clone(), spoke: false };
        if let Some(Waiting { answer, permit }) = self.taken() {
            // A client that left meanwhile drops the events, which cancels them.
            let _ = answer.send(Ok(Accepted::new(watched, permit)));
        }
        Ok(control)
    }

    fn taken(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Refuses a request that was not submitted.
#[rustler::nif]
fn arrival_reject(
    arrival: ResourceArc<ArrivalResource>,
    kind: Term<'_>,
    message: String,
    retry_after_ms: Option<u64>,
) -> NifResult<Atom> {
    let rejected = Rejected {
        error: error::of_kind(&kind.atom_to_string()?, message),
        retry_after: retry_after_ms.map(Duration::from_millis),
    };
    if let Some(Waiting { answer, .. }) = arrival.taken() {
        // A client that left is told nothing.
        let _ = answer.send(Err(rejected));
    }
    Ok(atoms::ok())
}

/// Events on their way to a socket.
struct Watched<S> {
    events: S,
    mailbox: Arc<Mailbox>,
    spoke: bool,
}

impl<S> Watched<S> {
    fn see(&mut self, event: &Event) {
        let is_token = matches!(event, Event::Token { .. });
        if is_token && std::mem::replace(&mut self.spoke, true) {
            self.mailbox.count_sent();
        } else {
            self.mailbox.push(event.clone());
        }
    }
}

impl<S: Stream<Item = Event> + Unpin> Stream for Watched<S> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = Pin::new(&mut self.events).poll_next(context);
        if let Poll::Ready(Some(event)) = &event {
            self.see(event);
        }
        event
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        // Nothing, if the end was seen.
        self.mailbox.push(Event::Failed(Error::cancelled("the request was cancelled: its client left")));
    }
}
