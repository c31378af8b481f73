//! The preparing thread: prompts become ids and patches here, away from the caller and from the device.

use super::Board;
use super::constraint::{Constraint, Constraints, TokenConstraint};
use super::core::{Arrival, Command};
use super::event::{Event, Outlet, Timings, Usage};
use super::handle::Canceller;
use super::live::Live;
use super::options::EngineConfig;
use super::output::Output;
use super::request::Input;
use super::sampler::Sampler;
use super::sampling::SamplingParams;
use crate::error::{Error, Result};
use crate::models::{ModelSpec, Processor};
use crate::prompt::EncodedPrompt;
use crate::schedule::{Sequence, SequenceId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

/// A request that was submitted.
pub(crate) struct Job {
    pub(crate) input: Input,
    pub(crate) ticket: Ticket,
}

/// A request without what it asks.
pub(crate) struct Ticket {
    pub(crate) id: SequenceId,
    pub(crate) sampling: SamplingParams,
    pub(crate) constraint: Option<Constraint>,
    /// Used where the sampling names no seed.
    pub(crate) seed: u64,
    pub(crate) outlet: Outlet,
    pub(crate) canceller: Canceller,
    pub(crate) submitted: Instant,
}

/// What the preparing thread knows.
pub(crate) struct Intake {
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) spec: ModelSpec,
    pub(crate) constraints: Constraints,
    pub(crate) config: EngineConfig,
    pub(crate) load_ms: f64,
    pub(crate) commands: Sender<Command>,
    pub(crate) board: Arc<Board>,
}

impl Intake {
    /// Prepares requests in the order they come, until nobody can submit any more.
    pub(crate) fn run(self, jobs: Receiver<Job>) {
        for Job { input, ticket } in jobs {
            match self.prepare(input, &ticket) {
                // The core is gone if this fails; the arrival's outlet then says so.
                Ok(prepared) => {
                    drop(self.commands.send(Command::Add(Box::new(self.arrival(ticket, prepared)))))
                }
                Err(error) => ticket.outlet.end(Event::Failed(error)),
            }
        }
    }

    fn prepare(&self, input: Input, ticket: &Ticket) -> Result<Prepared> {
        self.board.check_open()?;
        if ticket.canceller.is_cancelled() {
            return Err(Error::cancelled("the request was cancelled before it began"));
        }
        let started = Instant::now();
        let encoded = match input {
            Input::Encoded(encoded) => encoded,
            Input::Prompt(prompt) => catch_unwind(AssertUnwindSafe(|| self.processor.encode(&prompt)))
                .unwrap_or_else(|panic| {
                    Err(Error::internal(super::panic_message("preparing a prompt", &*panic)))
                })?,
        };
        check_encoded(&encoded, &self.spec)?;
        let max_tokens = self.room(encoded.input_ids.len(), ticket.sampling.max_tokens)?;
        let constraint =
            ticket.constraint.as_ref().map(|constraint| self.constraints.open(constraint)).transpose()?;
        Ok(Prepared { encoded, constraint, max_tokens, preprocess_ms: super::elapsed_ms(started) })
    }

    /// How many tokens may be generated after a prompt of `prompt_tokens`.
    fn room(&self, prompt_tokens: usize, max_tokens: Option<usize>) -> Result<usize> {
        let max_model_len = self.config.max_model_len;
        let room = max_model_len.saturating_sub(prompt_tokens);
        match max_tokens.unwrap_or(room.max(1)) {
            max_tokens if max_tokens <= room => Ok(max_tokens),
            max_tokens => Err(Error::invalid_request(format_args!(
                "the prompt has {prompt_tokens} tokens and up to {max_tokens} may follow, expected at most {max_model_len} together (max_model_len)"
            ))),
        }
    }

    fn arrival(&self, mut ticket: Ticket, prepared: Prepared) -> Arrival {
        let Prepared { encoded, constraint, max_tokens, preprocess_ms } = prepared;
        let EncodedPrompt { input_ids, images } = encoded;
        let (spans, patches): (Vec<_>, Vec<_>) =
            images.into_iter().map(|image| (image.tokens, image.patches)).unzip();
        let image_tokens = spans.iter().map(|span| span.len()).sum();
        let prompt_token_ids: Arc<[u32]> = Arc::from(input_ids.as_slice());
        ticket.outlet.send(Event::Started { prompt_token_ids: prompt_token_ids.clone(), image_tokens });
        let sampling = &ticket.sampling;
        let sampler = Sampler::new(sampling, &self.spec.stop_ids, prompt_token_ids, ticket.seed, constraint);
        let live = Live {
            patches,
            features: None,
            sampler,
            output: Output::new(sampling, &self.spec, self.processor.detokenizer(), max_tokens),
            outlet: ticket.outlet,
            canceller: ticket.canceller,
            usage: Usage { prompt_tokens: input_ids.len(), image_tokens, completion_tokens: 0 },
            timings: Timings { load_ms: self.load_ms, preprocess_ms, ..Timings::default() },
            submitted: ticket.submitted,
        };
        Arrival { sequence: Sequence::new(ticket.id, input_ids, spans), live }
    }
}

struct Prepared {
    encoded: EncodedPrompt,
    constraint: Option<Box<dyn TokenConstraint>>,
    max_tokens: usize,
    preprocess_ms: f64,
}

/// Ids are in the vocabulary and images in the prompt, in order: nothing below checks that again.
fn check_encoded(encoded: &EncodedPrompt, spec: &ModelSpec) -> Result<()> {
    let num_tokens = encoded.input_ids.len();
    if num_tokens == 0 {
        return Err(Error::invalid_request("the prompt has no tokens, expected at least one"));
    }
    if let Some(token_id) = encoded.input_ids.iter().find(|&&token_id| token_id as usize >= spec.vocab_size) {
        let vocab_size = spec.vocab_size;
        return Err(Error::invalid_request(format_args!(
            "token id {token_id}, expected one below {vocab_size}"
        )));
    }
    let mut end = 0;
    for tokens in encoded.images.iter().map(|image| &image.tokens) {
        if tokens.start < end || tokens.is_empty() || tokens.end > num_tokens {
            return Err(Error::invalid_request(format_args!(
                "an image at tokens {tokens:?}, expected a span within {end}..{num_tokens}"
            )));
        }
        end = tokens.end;
    }
    Ok(())
}
