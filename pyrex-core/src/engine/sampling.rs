//! [`SamplingParams`]: how the answer of a request is chosen, and when it ends.
//!
//! What each number does to the logits, and in which order, is said in [`sampler`](super::sampler).

use crate::error::{Error, Result};
use crate::models::ModelSpec;
use std::fmt::Display;

/// How the next token is chosen, and when to stop.
///
/// The default is greedy decoding until the model stops, so that the same request gives the same answer;
/// [`from_model`](Self::from_model) gives what the checkpoint recommends.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token, and the filters and the seed do not matter.
    pub temperature: f32,
    /// Keep the `k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep the likeliest tokens up to this mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Keep tokens at least this likely, relative to the likeliest, in [0, 1].
    pub min_p: Option<f32>,
    /// Divides the positive and multiplies the negative logits of every token of prompt and answer so far; above 0, and 1 for none.
    pub repetition_penalty: f32,
    /// Taken off the logits of every token of the answer so far, in [-2, 2].
    pub presence_penalty: f32,
    /// Taken off the logits of every token of the answer so far, as many times as it is there, in [-2, 2].
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, in [-100, 100]; an id that is there twice gets both.
    pub logit_bias: Vec<(u32, f32)>,
    /// The tokens depend on the seed and their positions alone; a fresh seed is drawn if none is given.
    pub seed: Option<u64>,
    /// Among the first so many tokens is no stop token, and a stop string that is complete by then does not count.
    pub min_tokens: usize,
    /// The most tokens to choose, the stop token included; as many as the engine has room for if not given.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer beside the model's own; their text is not part of it.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's stop tokens, to measure.
    pub ignore_eos: bool,
    /// Tell how likely each token was, and how likely this many of the likeliest were; 0 for the token alone.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            min_tokens: 0,
            max_tokens: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// The most stop strings a request may have.
    pub const MAX_STOP_STRINGS: usize = 64;
    /// The most bytes a stop string may have: so much text may be held back.
    pub const MAX_STOP_STRING_BYTES: usize = 1024;
    /// The most stop tokens a request may name.
    pub const MAX_STOP_TOKEN_IDS: usize = 1024;
    /// The most entries of [`logit_bias`](Self::logit_bias).
    pub const MAX_LOGIT_BIASES: usize = 4096;
    /// The most alternatives that [`logprobs`](Self::logprobs) may ask for.
    pub const MAX_LOGPROBS: usize = 20;

    /// What the checkpoint's `generation_config.json` recommends.
    pub fn from_model(spec: &ModelSpec) -> Self {
        let defaults = spec.sampling;
        Self {
            temperature: defaults.temperature.unwrap_or(0.0),
            top_k: defaults.top_k,
            top_p: defaults.top_p,
            ..Self::default()
        }
    }

    /// Whether the likeliest token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks everything, token ids against a vocabulary of `vocab_size`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn validate_for(&self, vocab_size: usize) -> Result<()> {
        self.validate()?;
        let known =
            |id: &u32, name| check((*id as usize) < vocab_size, name, id, &format!("one below {vocab_size}"));
        self.stop_token_ids.iter().try_for_each(|id| known(id, "a stop token id"))?;
        self.logit_bias.iter().try_for_each(|(id, _)| known(id, "a token id of logit_bias"))
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// `InvalidRequest` naming the parameter, what it is and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.validate_filters()?;
        self.validate_ends()?;
        let r = self.repetition_penalty;
        check(r.is_finite() && r > 0.0, "repetition_penalty", &r, "a number above 0")?;
        for (name, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check((-2.0..=2.0).contains(&penalty), name, &penalty, "a number from -2 to 2")?;
        }
        at_most(self.logit_bias.len(), Self::MAX_LOGIT_BIASES, "logit_bias", "entries")?;
        for (token_id, bias) in &self.logit_bias {
            let name = format!("logit_bias of token {token_id}");
            check((-100.0..=100.0).contains(bias), &name, bias, "a number from -100 to 100")?;
        }
        let num_logprobs = self.logprobs.unwrap_or(0);
        let expected = format!("at most {}", Self::MAX_LOGPROBS);
        check(num_logprobs <= Self::MAX_LOGPROBS, "logprobs", &num_logprobs, &expected)
    }

    fn validate_filters(&self) -> Result<()> {
        let t = self.temperature;
        check(t.is_finite() && t >= 0.0, "temperature", &t, "a number of at least 0")?;
        if let Some(k) = self.top_k {
            check(k > 0, "top_k", &k, "at least 1")?;
        }
        if let Some(p) = self.top_p {
            check(p > 0.0 && p <= 1.0, "top_p", &p, "a number above 0 and up to 1")?;
        }
        if let Some(p) = self.min_p {
            check((0.0..=1.0).contains(&p), "min_p", &p, "a number from 0 to 1")?;
        }
        Ok(())
    }

    fn validate_ends(&self) -> Result<()> {
        if let Some(n) = self.max_tokens {
            check(n > 0, "max_tokens", &n, "at least 1")?;
            let expected = format!("at most max_tokens, which is {n}");
            check(self.min_tokens <= n, "min_tokens", &self.min_tokens, &expected)?;
        }
        at_most(self.stop.len(), Self::MAX_STOP_STRINGS, "stop", "strings")?;
        for stop in &self.stop {
            check(!stop.is_empty(), "a stop string", &"empty", "at least one character")?;
            at_most(stop.len(), Self::MAX_STOP_STRING_BYTES, "a stop string", "bytes")?;
        }
        at_most(self.stop_token_ids.len(), Self::MAX_STOP_TOKEN_IDS, "stop_token_ids", "ids")
    }
}

fn check(holds: bool, name: &str, found: &dyn Display, expected: &str) -> Result<()> {
    let message = format_args!("{name} is {found}, expected {expected}");
    if holds { Ok(()) } else { Err(Error::invalid_request(message)) }
}

fn at_most(found: usize, most: usize, name: &str, unit: &str) -> Result<()> {
    let message = format_args!("{name} has {found} {unit}, expected at most {most}");
    if found <= most { Ok(()) } else { Err(Error::invalid_request(message)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bad: SamplingParams, needle: &str) {
        let error = bad.validate_for(100).expect_err(needle);
        assert!(error.message().starts_with(needle), "{error}");
    }

    #[test]
    fn bad_filters_are_named_with_their_value() {
        let good = SamplingParams::default();
        good.validate_for(100).expect("the default is valid");
        for temperature in [-1.0, f32::NAN, f32::INFINITY] {
            refused(SamplingParams { temperature, ..good.clone() }, "temperature is");
        }
        for top_p in [0.0, -0.5, 1.5, f32::NAN] {
            refused(SamplingParams { top_p: Some(top_p), ..good.clone() }, "top_p is");
        }
        for min_p in [-0.1, 1.1, f32::NAN] {
            refused(SamplingParams { min_p: Some(min_p), ..good.clone() }, "min_p is");
        }
        refused(SamplingParams { top_k: Some(0), ..good }, "top_k is 0");
    }

    #[test]
    fn bad_ends_are_named_with_their_value() {
        let good = SamplingParams::default();
        refused(SamplingParams { max_tokens: Some(0), ..good.clone() }, "max_tokens is 0");
        let ends = SamplingParams { min_tokens: 5, max_tokens: Some(4), ..good.clone() };
        refused(ends, "min_tokens is 5, expected at most max_tokens, which is 4");
        refused(SamplingParams { stop: vec![String::new()], ..good.clone() }, "a stop string is empty");
        refused(SamplingParams { stop: vec!["x".repeat(1025)], ..good.clone() }, "a stop string has 1025");
        refused(SamplingParams { stop: vec!["x".into(); 65], ..good.clone() }, "stop has 65 strings");
        let ids = SamplingParams { stop_token_ids: vec![99, 100], ..good.clone() };
        refused(ids, "a stop token id is 100, expected one below 100");
        refused(SamplingParams { stop_token_ids: vec![0; 1025], ..good }, "stop_token_ids has 1025 ids");
    }

    #[test]
    fn bad_penalties_and_biases_are_named_with_their_value() {
        let good = SamplingParams::default();
        for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            refused(SamplingParams { repetition_penalty: penalty, ..good.clone() }, "repetition_penalty is");
        }
        for penalty in [-2.1, 2.1, f32::NAN] {
            refused(SamplingParams { presence_penalty: penalty, ..good.clone() }, "presence_penalty is");
            refused(SamplingParams { frequency_penalty: penalty, ..good.clone() }, "frequency_penalty is");
        }
        let biased = |logit_bias| SamplingParams { logit_bias, ..good.clone() };
        for bias in [-100.5, 101.0, f32::NAN] {
            refused(biased(vec![(7, bias)]), "logit_bias of token 7 is");
        }
        refused(biased(vec![(100, 1.0)]), "a token id of logit_bias is 100, expected one below 100");
        refused(biased(vec![(0, 1.0); 4097]), "logit_bias has 4097 entries");
        refused(SamplingParams { logprobs: Some(21), ..good.clone() }, "logprobs is 21, expected at most 20");
        biased(vec![(99, 100.0), (0, -100.0)]).validate_for(100).expect("the bounds are valid");
    }
}
