//! Requests: submitted, taken from, cancelled.

use crate::atoms;
use crate::engine::EngineResource;
use crate::error::Told;
use crate::mailbox::Mailbox;
use crate::prompt::Asked;
use crate::reception::Submission;
use crate::sampling;
use crate::terms::{absent_or, bad_value};
use pyrex_core::{Error, Event, FinishReason, Timings, Usage};
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, NifMap, NifResult, Resource, ResourceArc, Term};
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

/// `{:prompt, prompt, options}` or `{:json, body, overrides}`.
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
        }),
        #[cfg(feature = "test-util")]
        "flood" => Ok(Submission::Flood { num_tokens: asked.decode()?, every_us: options.decode()? }),
        _ => Err(bad_value("request")),
    }
}

#[rustler::nif]
fn request_take(env: Env<'_>, request: ResourceArc<RequestResource>) -> Vec<Term<'_>> {
    request.mailbox.take().into_iter().map(|event| encode(env, event)).collect()
}

#[rustler::nif]
fn request_cancel(request: ResourceArc<RequestResource>) -> Atom {
    request.mailbox.cancel();
    atoms::ok()
}

fn encode(env: Env<'_>, event: Event) -> Term<'_> {
    match event {
        Event::Started { prompt_token_ids, image_tokens } => {
            (atoms::started(), &prompt_token_ids[..], image_tokens).encode(env)
        }
        Event::Token { index, token_id, text, logprobs, finish } => {
            let logprobs = logprobs.map(|logprobs| (logprobs.logprob, logprobs.top));
            (atoms::token(), index, token_id, text, logprobs, finish.map(reason)).encode(env)
        }
        Event::Finished { reason: ended, usage, timings } => {
            (atoms::finished(), reason(ended), UsageMap::from(usage), TimingsMap::from(timings)).encode(env)
        }
        Event::Failed(error) => (atoms::failed(), Told(error)).encode(env),
    }
}

fn reason(reason: FinishReason) -> Atom {
    match reason {
        FinishReason::Length => atoms::length(),
        _ => atoms::stop(),
    }
}

#[derive(NifMap)]
struct UsageMap {
    prompt_tokens: usize,
    image_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
}

impl From<Usage> for UsageMap {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, image_tokens, cached_tokens, completion_tokens } = usage;
        Self { prompt_tokens, image_tokens, cached_tokens, completion_tokens }
    }
}

#[derive(NifMap)]
struct TimingsMap {
    load_ms: f64,
    preprocess_ms: f64,
    queue_ms: f64,
    encode_images_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    ttft_ms: f64,
}

impl From<Timings> for TimingsMap {
    fn from(timings: Timings) -> Self {
        let Timings { load_ms, preprocess_ms, queue_ms, encode_images_ms, prefill_ms, decode_ms, ttft_ms } =
            timings;
        Self { load_ms, preprocess_ms, queue_ms, encode_images_ms, prefill_ms, decode_ms, ttft_ms }
    }
}
