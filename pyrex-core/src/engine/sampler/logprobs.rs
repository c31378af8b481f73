//! [`TokenLogprobs`]: how likely a token was.

use super::choice::greatest_candidates;

/// How likely a token was, and what else might have been.
///
/// A log-probability is the natural logarithm of the softmax of the model's own logits, before bias, penalties, constraint
/// and temperature (vLLM's `raw_logprobs`): it tells what the model thought, not what it was made to say.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was chosen; minus infinity if only a bias made it possible.
    pub logprob: f32,
    /// The likeliest tokens, likelier first and lower ids first among equals; those that were impossible are left out.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Those of `token_id` and of the `num_top` likeliest, from `logits` `[V]`; NaN counts as impossible.
    pub(super) fn new(logits: &[f32], token_id: u32, num_top: usize) -> Self {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Written so that one infinite logit has all of the mass.
        let log_weight = |logit: f32| match logit {
            _ if logit == greatest => 0.0,
            _ if logit < greatest => f64::from(logit) - f64::from(greatest),
            _ => f64::NEG_INFINITY,
        };
        let log_mass = logits.iter().map(|logit| log_weight(*logit).exp()).sum::<f64>().ln();
        let logprob = |logit: f32| (log_weight(logit) - log_mass) as f32;
        let top = greatest_candidates(logits, num_top).into_iter();
        Self {
            logprob: logits.get(token_id as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit)),
            top: top
                .map(|candidate| (candidate.token_id, logprob(logits[candidate.token_id as usize])))
                .collect(),
        }
    }
}
