//! Requests: submitted, taken from, cancelled.

use crate::atoms;
use crate::engine::EngineResource;
use crate::error::Told;
use crate::event::Events;
use crate::mailbox::{Consumer, Mailbox, Wanted};
use crate::prompt::Asked;
use crate::reception::Submission;
use crate::reply::{Wish, Written};
use crate::sampling;
use crate::terms::{absent_or, bad_value};
use pyrex_core::Error;
use rustler::{Atom, Env, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term};
use std::sync::Arc;

/// A request. It is cancelled when its owner dies, and when nobody refers to it any more.
pub(crate) struct RequestResource {
    mailbox: Arc<Mailbox>,
    /// Keeps the engine open: its owner's variable may be gone before the last event.
    _engine: ResourceArc<EngineResource>,
}

#[rustler::resource_impl]
impl Resource for RequestResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.mailbox.cancel();
    }
}

impl Drop for RequestResource {
    fn drop(&mut self) {
        self.mailbox.cancel();
    }
}

#[rustler::nif]
fn request_submit<'a>(
    env: Env<'a>,
    engine: ResourceArc<EngineResource>,
    request: Term<'a>,
    id: u64,
    owner: LocalPid,
) -> NifResult<Result<ResourceArc<RequestResource>, Told>> {
    let submission = submission(request)?;
    let (reception, max_events) = match engine.reception() {
        Ok(open) => open,
        Err(error) => return Ok(Err(error.into())),
    };
    let mailbox = Mailbox::new(owner, id, max_events);
    let request = ResourceArc::new(RequestResource { mailbox: mailbox.clone(), _engine: engine });
    if env.monitor(&request, &owner).is_none() {
        return Ok(Err(Error::cancelled("the owner of the request is dead").into()));
    }
    reception.admit(submission, mailbox);
    Ok(Ok(request))
}

/// `{:prompt, prompt, options}`, `{:json, body, overrides}` or `{:arrival, arrival, nil}`.
fn submission(term: Term<'_>) -> NifResult<Submission> {
    let (kind, asked, options) = term.decode::<(Term<'_>, Term<'_>, Term<'_>)>()?;
    match kind.atom_to_string()?.as_str() {
        "prompt" => {
            let Asked(input) = asked.decode()?;
            Ok(Submission::Request(Box::new(sampling::request(input, options)?)))
        }
        "json" => Ok(Submission::Json {
            body: crate::bytes::KeptBinary::new(term.get_env(), asked.decode()?),
            priority: absent_or(options, "priority")?,
            cache_salt: absent_or(options, "cache_salt")?,
            timeout_ms: absent_or(options, "timeout_ms")?,
            wish: absent_or::<Term<'_>>(options, "reply")?.map(Wish::decode).transpose()?,
        }),
        "arrival" => asked.decode().map(Submission::Arrival),
        #[cfg(feature = "test-util")]
        "flood" => Ok(Submission::Flood { num_tokens: asked.decode()?, every_us: options.decode()? }),
        _ => Err(bad_value("request")),
    }
}

/// `next`, who wants the events that come if none wait, is a pair of a consumer and its tag, or nil for the owner.
#[rustler::nif]
fn request_take(
    request: ResourceArc<RequestResource>,
    next: Option<(LocalPid, Term<'_>)>,
) -> (usize, Events) {
    let by = next.map_or(Wanted::ByOwner, |(pid, tag)| Wanted::By(Consumer::new(pid, tag)));
    let (num_sent, events) = request.mailbox.take(by);
    (num_sent, Events(events))
}

/// Making an answer of many events takes longer than a scheduler may.
#[rustler::nif(schedule = "DirtyCpu")]
fn request_take_written(request: ResourceArc<RequestResource>) -> (Events, Option<Written>) {
    let (events, written) = request.mailbox.take_written();
    (Events(events), written)
}

#[rustler::nif]
fn request_cancel(request: ResourceArc<RequestResource>) -> Atom {
    request.mailbox.cancel();
    atoms::ok()
}

/// Cancels, and does not wait for the engine to say so.
#[rustler::nif]
fn request_expire(request: ResourceArc<RequestResource>, message: String) -> Atom {
    request.mailbox.fail(Error::deadline_exceeded(message));
    atoms::ok()
}
