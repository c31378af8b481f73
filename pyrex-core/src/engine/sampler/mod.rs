//! [`Sampler`]: from logits to the next token.
//!
//! What a request asks of its answer is done to the logits in this order:
//!
//! 1. `logit_bias` is added (Transformers' `SequenceBiasLogitsProcessor` for single tokens; the range is OpenAI's);
//! 2. `repetition_penalty`, over the ids of prompt and answer (Transformers' `RepetitionPenaltyLogitsProcessor`);
//! 3. `frequency_penalty` and `presence_penalty`, over the ids of the answer (OpenAI's definition; after the
//!    repetition penalty as in vLLM, for Transformers has neither);
//! 4. what the constraint does not allow is hidden, and stop ids before `min_tokens` (Transformers'
//!    `PrefixConstrainedLogitsProcessor` and `MinNewTokensLengthLogitsProcessor`; nothing above shows a hidden token);
//! 5. temperature, top-k, top-p, min-p (Transformers' order of warpers).
//!
//! Greedy decoding then takes the likeliest token, the lowest id among equals; otherwise one token is drawn from what
//! is left. The draw comes from a counter-based generator, Philox4x32-10 with the seed as its key and the position, the
//! completion's index and the token as its counter. It has no state: a request's tokens depend on its seed and positions,
//! never on its neighbours.

mod adjust;
mod choice;
mod logprobs;
#[cfg(test)]
mod tests;

pub use choice::argmax;
pub use logprobs::TokenLogprobs;

use super::constraint::{Guarded, TokenConstraint, TokenMask};
use super::sampling::SamplingParams;
use crate::error::{Error, Result};
use crate::ops::sampling::Draw;
use adjust::Adjustment;
use choice::Choice;
use std::fmt;
use std::sync::Arc;

/// Chooses the tokens of one completion, and remembers them.
pub struct Sampler {
    choice: Choice,
    adjustment: Adjustment,
    /// The model's own, which end what a constraint allows.
    stop_ids: Arc<[u32]>,
    /// No id of `early_stop_ids` is chosen before so many tokens.
    min_tokens: usize,
    early_stop_ids: Arc<[u32]>,
    num_tokens: usize,
    constraint: Option<Guarded>,
    num_logprobs: Option<usize>,
    /// `[V]`: the logits of the present token while they are worked on.
    scratch: Vec<f32>,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token_id: u32,
    /// How likely it was and what else might have been, if that was asked for.
    pub logprobs: Option<TokenLogprobs>,
    /// The constraint is complete and allows nothing more but the end: no token need follow.
    pub ends: bool,
}

impl Sampler {
    /// The sampler of a request with valid `params`, for a model that stops at `stop_ids`. `prompt` counts for the
    /// repetition penalty; `seed` is used where `params` names none.
    pub fn new(
        params: &SamplingParams,
        stop_ids: &[u32],
        prompt: Arc<[u32]>,
        seed: u64,
        constraint: Option<Box<dyn TokenConstraint>>,
    ) -> Self {
        let ends: &[u32] = if params.ignore_eos { &[] } else { stop_ids };
        Self {
            choice: Choice::new(params, params.seed.unwrap_or(seed)),
            adjustment: Adjustment::new(params, &prompt),
            stop_ids: stop_ids.into(),
            min_tokens: params.min_tokens,
            early_stop_ids: ends.iter().chain(&params.stop_token_ids).copied().collect(),
            num_tokens: 0,
            constraint: constraint.map(Guarded::new),
            num_logprobs: params.logprobs,
            scratch: Vec::new(),
        }
    }

    /// The sampler of completion `index` of the same request, before any token was chosen: it has its own stream of
    /// random numbers. Completion 0 is the request's sampler itself.
    pub fn fork(&self, index: u32) -> Self {
        Self {
            choice: self.choice.with_index(index),
            adjustment: self.adjustment.clone(),
            stop_ids: self.stop_ids.clone(),
            min_tokens: self.min_tokens,
            early_stop_ids: self.early_stop_ids.clone(),
            num_tokens: self.num_tokens,
            constraint: self.constraint.as_ref().map(Guarded::fork),
            num_logprobs: self.num_logprobs,
            scratch: Vec::new(),
        }
    }

    /// Chooses the token at `position` from `logits` `[V]`, and takes it into account from then on.
    ///
    /// # Errors
    /// `Internal` if no logit is a number above minus infinity, `InvalidRequest` if the constraint allows none of the
    /// others, and whatever the constraint says.
    pub fn sample(&mut self, logits: &[f32], position: usize) -> Result<Sampled> {
        let chosen = if self.takes_logits_as_they_are() {
            self.choice.choose(logits, position)
        } else {
            let mut adjusted = std::mem::take(&mut self.scratch);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust(&mut adjusted)?;
            let chosen = self.choice.choose(&adjusted, position);
            self.scratch = adjusted;
            chosen
        };
        let token_id = chosen.ok_or_else(|| nothing_left(logits, position))?;
        let logprobs = self.num_logprobs.map(|num_top| TokenLogprobs::new(logits, token_id, num_top));
        let ends = self.remember(token_id)?;
        Ok(Sampled { token_id, logprobs, ends })
    }

    /// How the token at `position` is drawn, if nothing but its logits decides that; `None` where they must be worked on, or told.
    pub fn draw(&self, position: usize) -> Option<Draw> {
        let plain = self.takes_logits_as_they_are() && self.num_logprobs.is_none();
        plain.then(|| self.choice.at(position))
    }

    /// Takes the token that was drawn at `position` as [`draw`](Self::draw) said.
    ///
    /// # Errors
    /// `Internal` if no logit was a number above minus infinity, and whatever the constraint says.
    pub(crate) fn take(&mut self, token_id: u32, position: usize) -> Result<Sampled> {
        if token_id == NOTHING_DRAWN {
            return Err(nothing_left(&[], position));
        }
        let ends = self.remember(token_id)?;
        Ok(Sampled { token_id, logprobs: None, ends })
    }

    fn takes_logits_as_they_are(&self) -> bool {
        self.constraint.is_none() && self.adjustment.is_neutral() && self.num_tokens >= self.min_tokens
    }

    fn adjust(&mut self, logits: &mut [f32]) -> Result<()> {
        self.adjustment.apply(logits);
        let early: &[u32] = if self.num_tokens < self.min_tokens { &self.early_stop_ids } else { &[] };
        let Some(constraint) = &mut self.constraint else {
            early.iter().for_each(|id| hide(logits, *id));
            return Ok(());
        };
        let mut mask = TokenMask::new(logits.len());
        if constraint.is_complete()? {
            self.stop_ids.iter().for_each(|id| mask.allow(*id));
        } else {
            constraint.allowed(&mut mask)?;
        }
        // Where a constraint allows nothing but the end, the answer ends, however short it is.
        let allowed = mask.clone();
        early.iter().for_each(|id| mask.forbid(*id));
        let mask = if mask.is_empty() { allowed } else { mask };
        mask.hide_others(logits);
        Ok(())
    }

    /// Counts a chosen token, and returns whether the constraint says that the answer ends with it.
    fn remember(&mut self, token_id: u32) -> Result<bool> {
        self.num_tokens += 1;
        self.adjustment.count(token_id);
        match &mut self.constraint {
            None => Ok(false),
            Some(_) if self.stop_ids.contains(&token_id) => Ok(true),
            Some(constraint) => constraint.accept(token_id),
        }
    }
}

/// What is drawn where no logit is above minus infinity.
const NOTHING_DRAWN: u32 = u32::MAX;

/// Draws on the host what a device would draw.
pub(crate) fn draw_on_host(logits: &[f32], draw: &Draw) -> u32 {
    Choice::from(draw).choose(logits, draw.position as usize).unwrap_or(NOTHING_DRAWN)
}

fn hide(logits: &mut [f32], token_id: u32) {
    if let Some(logit) = logits.get_mut(token_id as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

fn nothing_left(logits: &[f32], position: usize) -> Error {
    let vocab_size = logits.len();
    match argmax(logits) {
        None => Error::internal(format_args!(
            "none of the {vocab_size} logits for position {position} is a number above minus infinity"
        )),
        Some(_) => Error::invalid_request(format_args!(
            "none of the {vocab_size} tokens is allowed at position {position}"
        )),
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler")
            .field("choice", &self.choice)
            .field("num_tokens", &self.num_tokens)
            .field("constrained", &self.constraint.is_some())
            .finish_non_exhaustive()
    }
}
