//! [`SamplingParams`]: how the answer of a request is chosen, and when it ends.

use crate::error::{Error, Result};
use crate::models::ModelSpec;

/// How the next token is chosen, and when to stop.
///
/// The default is greedy decoding until the model stops, so that the same request gives the same answer;
/// [`from_model`](Self::from_model) gives what the checkpoint recommends.
/// Filters apply in the reference's order: temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token, and nothing below matters but the ends.
    pub temperature: f32,
    /// Keep the `k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep the likeliest tokens up to this mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Keep tokens at least this likely, relative to the likeliest, in [0, 1].
    pub min_p: Option<f32>,
    /// The tokens depend on the seed and their positions alone; a fresh seed is drawn if none is given.
    pub seed: Option<u64>,
    /// The most tokens to choose, the stop token included; as many as the engine has room for if not given.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Go on past the model's stop tokens, to measure.
    pub ignore_eos: bool,
}

impl SamplingParams {
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

    /// # Errors
    /// `InvalidRequest` naming the parameter, what it is and what it may be.
    pub fn validate(&self) -> Result<()> {
        let check = |holds: bool, name: &str, found: &dyn std::fmt::Display, expected: &str| {
            let message = format_args!("{name} is {found}, expected {expected}");
            if holds { Ok(()) } else { Err(Error::invalid_request(message)) }
        };
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
        if let Some(n) = self.max_tokens {
            check(n > 0, "max_tokens", &n, "at least 1")?;
        }
        check(self.stop.iter().all(|s| !s.is_empty()), "a stop string", &"empty", "at least one character")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_parameters_are_named_with_their_value() {
        let good = SamplingParams::default();
        let check = |bad: SamplingParams, needle: &str| {
            let error = bad.validate().expect_err(needle);
            assert!(error.message().starts_with(needle), "{error}");
        };
        good.validate().expect("the default is valid");
        for temperature in [-1.0, f32::NAN, f32::INFINITY] {
            check(SamplingParams { temperature, ..good.clone() }, "temperature is");
        }
        for top_p in [0.0, -0.5, 1.5, f32::NAN] {
            check(SamplingParams { top_p: Some(top_p), ..good.clone() }, "top_p is");
        }
        for min_p in [-0.1, 1.1, f32::NAN] {
            check(SamplingParams { min_p: Some(min_p), ..good.clone() }, "min_p is");
        }
        check(SamplingParams { top_k: Some(0), ..good.clone() }, "top_k is 0");
        check(SamplingParams { max_tokens: Some(0), ..good.clone() }, "max_tokens is 0");
        check(SamplingParams { stop: vec![String::new()], ..good }, "a stop string is empty");
    }
}
