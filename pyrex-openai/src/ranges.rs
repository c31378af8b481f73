//! What the engine would refuse, refused by the name of its field and before anything is made for an answer.

use crate::{Asked, Endpoint, Refusal};
use pyrex_core::{Engine, Error, SamplingParams};

/// Puts one parameter of the first into the second.
type Put = fn(&SamplingParams, &mut SamplingParams);

/// Each field, and the parameter that it is read into.
const FIELDS: &[(&str, Put)] = &[
    ("temperature", |from, into| into.temperature = from.temperature),
    ("top_k", |from, into| into.top_k = from.top_k),
    ("top_p", |from, into| into.top_p = from.top_p),
    ("min_p", |from, into| into.min_p = from.min_p),
    ("repetition_penalty", |from, into| into.repetition_penalty = from.repetition_penalty),
    ("presence_penalty", |from, into| into.presence_penalty = from.presence_penalty),
    ("frequency_penalty", |from, into| into.frequency_penalty = from.frequency_penalty),
    ("logit_bias", |from, into| into.logit_bias.clone_from(&from.logit_bias)),
    (MAX_TOKENS, |from, into| into.max_tokens = from.max_tokens),
    ("min_tokens", |from, into| (into.min_tokens, into.max_tokens) = (from.min_tokens, from.max_tokens)),
    ("stop", |from, into| into.stop.clone_from(&from.stop)),
    ("stop_token_ids", |from, into| into.stop_token_ids.clone_from(&from.stop_token_ids)),
    (LOGPROBS, |from, into| into.logprobs = from.logprobs),
];
const MAX_TOKENS: &str = "max_tokens";
const LOGPROBS: &str = "logprobs";

/// Checks every number against what this engine takes.
///
/// # Errors
/// `InvalidRequest` as the engine says it, and the field.
pub(crate) fn check(asked: &Asked, engine: &Engine) -> Result<(), Refusal> {
    let (found, most) = (asked.request.num_completions, engine.config().max_sequences);
    if !(1..=most).contains(&found) {
        let error = Error::invalid_request(format_args!("n is {found}, expected 1 to {most}"));
        return Err(Refusal::new(error, Some("n".to_owned())));
    }
    FIELDS.iter().try_for_each(|(field, put)| {
        let mut alone = SamplingParams::default();
        put(&asked.request.sampling, &mut alone);
        let field = name(field, asked.endpoint).to_owned();
        alone.validate_for(engine.spec().vocab_size).map_err(|error| Refusal::new(error, Some(field)))
    })
}

/// What an endpoint calls a field.
fn name(field: &'static str, endpoint: Endpoint) -> &'static str {
    match (field, endpoint) {
        (MAX_TOKENS, Endpoint::Responses) => "max_output_tokens",
        (LOGPROBS, Endpoint::Chat | Endpoint::Responses) => "top_logprobs",
        _ => field,
    }
}
