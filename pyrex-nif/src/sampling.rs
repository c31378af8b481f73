//! How a prompt is answered: the map of options of a request.

use crate::terms::{bad_value, optional, required};
use pyrex_core::{Constraint, Grammar, Input, Request, SamplingParams};
use rustler::{NifResult, Term};
use std::time::{Duration, Instant};

/// The request for `input` as the map `options` wants it.
pub(crate) fn request(input: Input, options: Term<'_>) -> NifResult<Request> {
    let timeout = optional::<u64>(options, "timeout_ms")?.map(Duration::from_millis);
    Ok(Request {
        sampling: params(options)?,
        constraint: optional(options, "constraint")?.map(constraint).transpose()?,
        num_completions: optional(options, "n")?.unwrap_or(1),
        priority: optional(options, "priority")?.unwrap_or(0),
        deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        cache_salt: optional(options, "cache_salt")?.unwrap_or_default(),
        ..Request::new(input)
    })
}

fn params(options: Term<'_>) -> NifResult<SamplingParams> {
    let defaults = SamplingParams::default();
    let number = |name: &str| Ok(optional::<f64>(options, name)?.map(|number| number as f32));
    let bias = optional::<Vec<(u32, f64)>>(options, "logit_bias")?.unwrap_or_default();
    Ok(SamplingParams {
        temperature: number("temperature")?.unwrap_or(defaults.temperature),
        top_k: optional(options, "top_k")?,
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        repetition_penalty: number("repetition_penalty")?.unwrap_or(defaults.repetition_penalty),
        presence_penalty: number("presence_penalty")?.unwrap_or(defaults.presence_penalty),
        frequency_penalty: number("frequency_penalty")?.unwrap_or(defaults.frequency_penalty),
        logit_bias: bias.into_iter().map(|(token_id, bias)| (token_id, bias as f32)).collect(),
        seed: optional(options, "seed")?,
        min_tokens: optional(options, "min_tokens")?.unwrap_or(0),
        max_tokens: optional(options, "max_tokens")?,
        stop: optional(options, "stop")?.unwrap_or_default(),
        stop_token_ids: optional(options, "stop_token_ids")?.unwrap_or_default(),
        ignore_eos: required(options, "ignore_eos")?,
        logprobs: optional(options, "logprobs")?,
    })
}

fn constraint(term: Term<'_>) -> NifResult<Constraint> {
    let (kind, text) = term.decode::<(Term<'_>, String)>()?;
    let grammar = match kind.atom_to_string()?.as_str() {
        "json_schema" => Grammar::JsonSchema(text),
        "regex" => Grammar::Regex(text),
        "lark" => Grammar::Lark(text),
        _ => return Err(bad_value("constraint")),
    };
    Ok(grammar.into())
}
