//! `pyrex_request_options_t`: how a prompt is answered.

use crate::abi::{Growing, array, optional_text, read_growing, texts};
use crate::guard::Result;
use crate::options::{millis, some};
use crate::status::Failure;
use pyrex_core::{Grammar, Input, Request, SamplingParams};
use std::ffi::{c_char, c_void};
use std::time::Instant;

/// Added to the logit of a token. This struct never grows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_logit_bias_t {
    /// The token.
    pub token_id: u32,
    /// From -100 to 100.
    pub bias: f32,
}

/// How a prompt is answered. Zero means the default everywhere, which is greedy decoding until the model stops: begin with a
/// zeroed struct and set `struct_size`. All that it points to is copied.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_request_options_t {
    /// sizeof(pyrex_request_options_t).
    pub struct_size: usize,
    /// Divides the logits. 0: always take the likeliest token.
    pub temperature: f32,
    /// Keep the likeliest tokens up to this mass, above 0 and up to 1. 0: all.
    pub top_p: f32,
    /// Keep tokens at least this likely, relative to the likeliest. 0: all.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of every token of prompt and answer so far. 0: none.
    pub repetition_penalty: f32,
    /// Taken off the logits of every token of the answer so far, from -2 to 2.
    pub presence_penalty: f32,
    /// As above, as many times as the token is there.
    pub frequency_penalty: f32,
    /// Keep so many of the likeliest tokens. 0: all.
    pub top_k: u64,
    /// The tokens depend on the seed and their positions alone; used if `has_seed`.
    pub seed: u64,
    /// 0: a fresh seed is drawn.
    pub has_seed: i32,
    /// Higher is served first, from -128 to 127; equals in the order they came.
    pub priority: i32,
    /// Among the first so many tokens is no stop token.
    pub min_tokens: u64,
    /// The most tokens to choose, the stop token included. 0: as many as there is room for.
    pub max_tokens: u64,
    /// How many answers to choose. They share the computed prompt, and differ only if tokens are drawn. 0: one.
    pub num_completions: u64,
    /// Texts that end the answer; they are not part of it.
    pub stop: *const *const c_char,
    /// How many.
    pub num_stop: usize,
    /// Tokens that end the answer beside the model's own; their text is not part of it.
    pub stop_token_ids: *const u32,
    /// How many.
    pub num_stop_token_ids: usize,
    /// Added to the logits of these tokens.
    pub logit_bias: *const pyrex_logit_bias_t,
    /// How many.
    pub num_logit_bias: usize,
    /// Anything but 0: go on past the model's stop tokens, to measure.
    pub ignore_eos: i32,
    /// Anything but 0: tell how likely each token was.
    pub logprobs: i32,
    /// How many of the likeliest tokens to tell with it, up to 20; only with `logprobs`.
    pub top_logprobs: u64,
    /// The whole answer is JSON of this schema. At most one of this and the next two is not NULL.
    pub json_schema: *const c_char,
    /// The whole answer matches this regular expression.
    pub regex: *const c_char,
    /// The whole answer is of this grammar, in llguidance's variant of Lark.
    pub lark: *const c_char,
    /// When the answer is of no use any more, from now: it then fails with PYREX_DEADLINE_EXCEEDED. 0: never.
    pub timeout_ms: u64,
    /// Only requests of the same salt share computed prefixes, so that no tenant can tell what another asked. NULL: "".
    pub cache_salt: *const c_char,
    /// Handed back in every event and to the notify function.
    pub user_data: *mut c_void,
}

// SAFETY: numbers and pointers, 4-byte fields in pairs.
unsafe impl Growing for pyrex_request_options_t {
    const NAME: &str = "pyrex_request_options_t";
}

/// The request for `input` as `options` want it, and the pointer of the host.
///
/// # Safety
/// `options` is NULL or points to a struct as the header describes it.
pub(crate) unsafe fn read_request(
    input: Input,
    options: *const pyrex_request_options_t,
) -> Result<(Request, *mut c_void)> {
    // SAFETY: the caller's promise.
    let (given, sampling, grammar, cache_salt) = unsafe {
        let given = read_growing(options)?;
        (given, sampling(&given)?, grammar(&given)?, optional_text("cache_salt", given.cache_salt)?)
    };
    let priority = given
        .priority
        .try_into()
        .map_err(|_| Failure::invalid(format!("priority is {}, expected -128 to 127", given.priority)))?;
    let request = Request {
        sampling,
        constraint: grammar.map(Into::into),
        num_completions: some(given.num_completions).unwrap_or(1),
        priority,
        deadline: millis(given.timeout_ms).and_then(|timeout| Instant::now().checked_add(timeout)),
        cache_salt: cache_salt.unwrap_or_default().to_owned(),
        ..Request::new(input)
    };
    Ok((request, given.user_data))
}

/// # Safety
/// The pointers of `given` are as the header describes them.
unsafe fn sampling(given: &pyrex_request_options_t) -> Result<SamplingParams> {
    // SAFETY: the caller's promise.
    let (stop, stop_token_ids, logit_bias) = unsafe {
        (
            texts("a stop string", array("stop", given.stop, given.num_stop)?)?,
            array("stop_token_ids", given.stop_token_ids, given.num_stop_token_ids)?.to_vec(),
            array("logit_bias", given.logit_bias, given.num_logit_bias)?,
        )
    };
    let nonzero = |number: f32| (number != 0.0).then_some(number);
    if given.logprobs == 0 && given.top_logprobs != 0 {
        let found = given.top_logprobs;
        return Err(Failure::invalid(format!(
            "top_logprobs is {found} without logprobs, expected logprobs to be 1"
        )));
    }
    Ok(SamplingParams {
        temperature: given.temperature,
        top_k: some(given.top_k),
        top_p: nonzero(given.top_p),
        min_p: nonzero(given.min_p),
        repetition_penalty: nonzero(given.repetition_penalty).unwrap_or(1.0),
        presence_penalty: given.presence_penalty,
        frequency_penalty: given.frequency_penalty,
        logit_bias: logit_bias.iter().map(|entry| (entry.token_id, entry.bias)).collect(),
        seed: (given.has_seed != 0).then_some(given.seed),
        min_tokens: some(given.min_tokens).unwrap_or(0),
        max_tokens: some(given.max_tokens),
        stop,
        stop_token_ids,
        ignore_eos: given.ignore_eos != 0,
        logprobs: (given.logprobs != 0).then(|| some(given.top_logprobs).unwrap_or(0)),
    })
}

/// # Safety
/// As [`sampling`].
unsafe fn grammar(given: &pyrex_request_options_t) -> Result<Option<Grammar>> {
    // SAFETY: the caller's promise.
    let (schema, regex, lark) = unsafe {
        (
            optional_text("json_schema", given.json_schema)?,
            optional_text("regex", given.regex)?,
            optional_text("lark", given.lark)?,
        )
    };
    match (schema, regex, lark) {
        (None, None, None) => Ok(None),
        (Some(schema), None, None) => Ok(Some(Grammar::JsonSchema(schema.to_owned()))),
        (None, Some(regex), None) => Ok(Some(Grammar::Regex(regex.to_owned()))),
        (None, None, Some(lark)) => Ok(Some(Grammar::Lark(lark.to_owned()))),
        _ => {
            Err(Failure::invalid("more than one of json_schema, regex and lark is set, expected at most one"))
        }
    }
}
