//! [`Live`]: what the engine keeps of a request beside its sequence, from the end of preparing to the final event.

use super::event::{Event, FinishReason, Outlet, Timings, Usage};
use super::handle::Canceller;
use super::output::Output;
use super::sampler::{Sampled, Sampler};
use crate::prompt::Patches;
use candle_core::Tensor;
use std::time::Instant;

/// A request that the core answers.
pub(crate) struct Live {
    /// Its images, until they are encoded.
    pub(crate) patches: Vec<Patches>,
    /// `[S, C]`: its image features, from their encoding to the end of the prompt.
    pub(crate) features: Option<Tensor>,
    pub(crate) sampler: Sampler,
    pub(crate) output: Output,
    pub(crate) outlet: Outlet,
    pub(crate) canceller: Canceller,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    pub(crate) submitted: Instant,
}

impl Live {
    /// Adds the time of one forward pass to the phase it belongs to.
    pub(crate) fn note_forward(&mut self, forward_ms: f64) {
        match self.output.num_tokens() {
            0 => self.timings.prefill_ms += forward_ms,
            _ => self.timings.decode_ms += forward_ms,
        }
    }

    /// Tells the caller the next token, and returns why it was the last, if it was.
    pub(crate) fn tell(&mut self, sampled: &Sampled) -> Option<FinishReason> {
        if self.output.num_tokens() == 0 {
            self.timings.ttft_ms = super::elapsed_ms(self.submitted);
            self.features = None;
        }
        let token_id = sampled.token_id;
        let delta = if sampled.ends { self.output.push_last(token_id) } else { self.output.push(token_id) };
        self.usage.completion_tokens = self.output.num_tokens();
        self.outlet.send(Event::Token { token_id, text: delta.text });
        delta.finish
    }

    /// Tells the caller that the answer is whole.
    pub(crate) fn finish(self, reason: FinishReason) {
        self.outlet.end(Event::Finished { reason, usage: self.usage, timings: self.timings });
    }
}
