//! How an answer is chosen and when it ends. The types are checked here, the ranges by [`SamplingParams::validate`].

use crate::object::{
    Misfit, Object, Read, clip, count, expected, flag, list, number, object, text, token_id, whole,
};
use pyrex_core::SamplingParams;
use serde_json::Value;

/// Takes what all endpoints share. `logprobs` is a flag in one and a number in the other: see [`chat_logprobs`].
pub(crate) fn params(body: &mut Object, defaults: &SamplingParams) -> Read<SamplingParams> {
    let mut params = defaults.clone();
    body.set("temperature", &mut params.temperature, number)?;
    body.set("top_k", &mut params.top_k, top_k)?;
    body.set("top_p", &mut params.top_p, some(number))?;
    body.set("min_p", &mut params.min_p, some(number))?;
    body.set("repetition_penalty", &mut params.repetition_penalty, number)?;
    body.set("presence_penalty", &mut params.presence_penalty, number)?;
    body.set("frequency_penalty", &mut params.frequency_penalty, number)?;
    body.set("logit_bias", &mut params.logit_bias, logit_bias)?;
    body.set("seed", &mut params.seed, some(seed))?;
    body.set("min_tokens", &mut params.min_tokens, count)?;
    body.set("stop", &mut params.stop, stop)?;
    body.set("stop_token_ids", &mut params.stop_token_ids, |ids| list(ids, token_id))?;
    body.set("ignore_eos", &mut params.ignore_eos, flag)?;
    Ok(params)
}

/// Takes a conversation's two fields for the one number that the engine knows.
pub(crate) fn chat_logprobs(body: &mut Object, logprobs: &mut Option<usize>) -> Read<()> {
    let num_alternatives = body.take("top_logprobs", count)?;
    match (body.take("logprobs", flag)?, num_alternatives) {
        (Some(true), _) => *logprobs = Some(num_alternatives.unwrap_or(0)),
        (_, Some(1..)) => {
            return Err(Misfit::wrong("is given, expected logprobs to be true").within("top_logprobs"));
        }
        (Some(false), _) => *logprobs = None,
        (None, _) => {}
    }
    Ok(())
}

/// Takes a text completion's number.
pub(crate) fn text_logprobs(body: &mut Object, logprobs: &mut Option<usize>) -> Read<()> {
    body.set("logprobs", logprobs, some(count))
}

fn some<T>(read: impl FnOnce(Value) -> Read<T>) -> impl FnOnce(Value) -> Read<Option<T>> {
    |value| read(value).map(Some)
}

fn top_k(value: Value) -> Read<Option<usize>> {
    if value == -1 || value == 0 {
        return Ok(None);
    }
    whole(value, "a whole number of at least -1").map(Some)
}

/// OpenAI's seeds are signed: each is another seed of ours.
fn seed(value: Value) -> Read<u64> {
    match value.as_i64() {
        Some(signed) => Ok(signed as u64),
        None => whole(value, "a whole number of 64 bits"),
    }
}

fn logit_bias(value: Value) -> Read<Vec<(u32, f32)>> {
    let bias = |(key, bias): (String, Value)| {
        // Only a number's own spelling, or two fields could name one token.
        let token_id = key.parse::<u32>().ok().filter(|id| id.to_string() == key);
        let Some(token_id) = token_id else {
            return Err(Misfit::wrong(format_args!("has the key {:?}, expected token ids", clip(&key))));
        };
        number(bias).map(|bias| (token_id, bias)).map_err(|misfit| misfit.within(&key))
    };
    object(value)?.into_iter().map(bias).collect()
}

/// Takes both names of the one number.
pub(crate) fn max_tokens(body: &mut Object) -> Read<Option<usize>> {
    match (body.take("max_tokens", count)?, body.take("max_completion_tokens", count)?) {
        (Some(old), Some(new)) if old != new => Err(Misfit::wrong(format_args!(
            "has a max_tokens of {old} and a max_completion_tokens of {new}, expected one number"
        ))),
        (old, new) => Ok(new.or(old)),
    }
}

fn stop(value: Value) -> Read<Vec<String>> {
    match value {
        Value::String(one) => Ok(vec![one]),
        Value::Array(_) => list(value, text),
        other => Err(expected(&other, "a string or a list of strings")),
    }
}
