//! [`Live`]: what the engine keeps of a request beside its sequences, from the end of preparing to the final event.

use super::control::RequestControl;
use super::event::{Event, FinishReason, Outlet, Timings, Usage};
use super::lobby::Stage;
use super::output::Output;
use super::sampler::{Sampled, Sampler};
use crate::prompt::Patches;
use crate::schedule::SequenceId;
use std::time::Instant;
use tracing::Span;

/// A request that the core answers.
pub(crate) struct Live {
    /// Its first sequence; the others have the same id but for the index.
    pub(crate) id: SequenceId,
    /// Its images, for as long as it may have to read them again.
    pub(crate) images: Vec<Patches>,
    /// One per completion. Until the prompt is computed, only the first has a sequence.
    pub(crate) choices: Vec<Choice>,
    pub(crate) outlet: Outlet,
    pub(crate) control: RequestControl,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    pub(crate) submitted: Instant,
    /// Since when nobody reads its events.
    pub(crate) paused_since: Option<Instant>,
    pub(crate) span: Span,
    /// Open while the request waits for its first step.
    pub(crate) queue_span: Option<Span>,
}

/// One completion.
pub(crate) struct Choice {
    pub(crate) sampler: Sampler,
    pub(crate) output: Output,
    pub(crate) finish: Option<FinishReason>,
}

impl Live {
    /// Its sequences, those that have ended included.
    pub(crate) fn sequence_ids(&self) -> impl Iterator<Item = SequenceId> + use<> {
        let id = self.id;
        (0..self.choices.len() as u32).map(move |index| SequenceId { index, ..id })
    }

    /// Whether the prompt is computed and every completion has its own sequence.
    pub(crate) fn has_begun(&self) -> bool {
        self.usage.completion_tokens > 0
    }

    /// Notes that a step took it up, at this position.
    pub(crate) fn note_start(&mut self, position: usize) {
        if let Some(guest) = self.outlet.guest() {
            guest.move_to(Stage::Running);
        }
        if self.queue_span.take().is_some() {
            self.timings.queue_ms = super::elapsed_ms(self.submitted);
            self.usage.cached_tokens = position;
        }
    }

    /// Adds the time of one forward pass to the phase it belongs to.
    pub(crate) fn note_forward(&mut self, forward_ms: f64) {
        match self.has_begun() {
            false => self.timings.prefill_ms += forward_ms,
            true => self.timings.decode_ms += forward_ms,
        }
    }

    /// Tells the caller the next token of one completion, and returns why it was the last, if it was.
    pub(crate) fn tell(&mut self, index: usize, sampled: Sampled) -> Option<FinishReason> {
        if !self.has_begun() {
            self.timings.ttft_ms = super::elapsed_ms(self.submitted);
        }
        let choice = &mut self.choices[index];
        let delta = match sampled.ends {
            true => choice.output.push_last(sampled.token_id),
            false => choice.output.push(sampled.token_id),
        };
        choice.finish = delta.finish;
        self.usage.completion_tokens += 1;
        let Sampled { token_id, logprobs, .. } = sampled;
        self.outlet.send(Event::Token { index, token_id, text: delta.text, logprobs, finish: delta.finish });
        delta.finish
    }

    /// Whether every completion has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// Tells the caller that the answer is whole.
    pub(crate) fn finish(self) {
        let reason = self.choices.first().and_then(|choice| choice.finish).unwrap_or(FinishReason::Length);
        self.outlet.end(Event::Finished { reason, usage: self.usage, timings: self.timings });
    }
}
