//! Events as terms.

use crate::atoms;
use crate::error::Told;
use pyrex_core::{Event, FinishReason, Timings, Usage};
use rustler::{Atom, Encoder, Env, NifMap, Term};

/// Events on their way to Elixir.
pub(crate) struct Events(pub(crate) Vec<Event>);

/// How many of the events are tokens.
pub(crate) fn num_tokens(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Token { .. })).count()
}

impl Encoder for Events {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.0.iter().map(|event| encode(env, event)).collect::<Vec<_>>().encode(env)
    }
}

fn encode<'a>(env: Env<'a>, event: &Event) -> Term<'a> {
    match event {
        Event::Started { prompt_token_ids, image_tokens } => {
            (atoms::started(), &prompt_token_ids[..], image_tokens).encode(env)
        }
        Event::Token { index, token_id, text, logprobs, finish } => {
            let logprobs = logprobs.as_ref().map(|logprobs| (logprobs.logprob, &logprobs.top));
            (atoms::token(), index, token_id, text, logprobs, finish.map(reason)).encode(env)
        }
        Event::Finished { reason: ended, usage, timings } => {
            (atoms::finished(), reason(*ended), UsageMap::from(*usage), TimingsMap::from(*timings))
                .encode(env)
        }
        Event::Failed(error) => (atoms::failed(), Told(error.clone())).encode(env),
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
