//! [`Adjustment`]: what bias and penalties do to the logits of one completion.

use crate::engine::sampling::SamplingParams;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bias, penalties, and the tokens that they count.
#[derive(Clone, Debug)]
pub(super) struct Adjustment {
    rules: Arc<Rules>,
    /// How many times the answer has each token; empty where no penalty asks.
    counts: BTreeMap<u32, u32>,
}

#[derive(Debug)]
struct Rules {
    logit_bias: Vec<(u32, f32)>,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    /// Every id of the prompt once, in order; empty where no penalty asks.
    prompt_ids: Vec<u32>,
}

impl Adjustment {
    pub(super) fn new(params: &SamplingParams, prompt: &[u32]) -> Self {
        let mut prompt_ids = if params.repetition_penalty == 1.0 { Vec::new() } else { prompt.to_vec() };
        prompt_ids.sort_unstable();
        prompt_ids.dedup();
        let rules = Rules {
            logit_bias: params.logit_bias.clone(),
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            prompt_ids,
        };
        Self { rules: Arc::new(rules), counts: BTreeMap::new() }
    }

    /// Whether it never changes a logit.
    pub(super) fn is_neutral(&self) -> bool {
        self.rules.logit_bias.is_empty() && !self.rules.counts_tokens()
    }

    /// Takes a token of the answer.
    pub(super) fn count(&mut self, token_id: u32) {
        if self.rules.counts_tokens() {
            *self.counts.entry(token_id).or_default() += 1;
        }
    }

    /// Changes `logits` `[V]`. Ids outside of them are passed over.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        let rules = &*self.rules;
        for (token_id, bias) in &rules.logit_bias {
            change(logits, *token_id, |logit| logit + bias);
        }
        if rules.repetition_penalty != 1.0 {
            let penalty = rules.repetition_penalty;
            let said = self.counts.keys().filter(|id| rules.prompt_ids.binary_search(id).is_err());
            for token_id in rules.prompt_ids.iter().chain(said) {
                change(
                    logits,
                    *token_id,
                    |logit| if logit < 0.0 { logit * penalty } else { logit / penalty },
                );
            }
        }
        for (token_id, count) in &self.counts {
            let penalty = rules.frequency_penalty * *count as f32 + rules.presence_penalty;
            change(logits, *token_id, |logit| logit - penalty);
        }
    }
}

impl Rules {
    fn counts_tokens(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

fn change(logits: &mut [f32], token_id: u32, by: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token_id as usize) {
        *logit = by(*logit);
    }
}
