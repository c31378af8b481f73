//! The preparing thread: prompts become ids and patches here, away from the caller and from the device.

use super::constraint::TokenConstraint;
use super::control::RequestControl;
use super::core::{Arrival, Command};
use super::event::{Event, Outlet, Timings, Usage};
use super::live::{Choice, Live};
use super::lobby::{Lobby, Stage};
use super::options::EngineConfig;
use super::output::Output;
use super::reasoning::{Reasoning, Thinking};
use super::request::Input;
use super::sampler::Sampler;
use super::sampling::SamplingParams;
use crate::error::{Error, Result};
use crate::models::{ModelSpec, Processor};
use crate::prompt::{EncodedImage, EncodedPrompt};
use crate::schedule::{Digests, ImageSpan, Sequence, SequenceId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;
use tracing::Span;

/// A request that was submitted.
pub(crate) struct Job {
    pub(crate) input: Input,
    pub(crate) ticket: Ticket,
}

/// A request without what it asks.
pub(crate) struct Ticket {
    pub(crate) id: SequenceId,
    pub(crate) sampling: SamplingParams,
    pub(crate) num_completions: usize,
    pub(crate) constraint: Option<Box<dyn TokenConstraint>>,
    pub(crate) reasoning: Option<Reasoning>,
    pub(crate) cache_salt: String,
    /// Used where the sampling names no seed.
    pub(crate) seed: u64,
    pub(crate) outlet: Outlet,
    pub(crate) control: RequestControl,
    pub(crate) submitted: Instant,
    pub(crate) span: Span,
}

/// What the preparing thread knows.
pub(crate) struct Intake {
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) spec: ModelSpec,
    pub(crate) config: EngineConfig,
    pub(crate) load_ms: f64,
    pub(crate) digests: Digests,
    pub(crate) commands: Sender<Command>,
    pub(crate) lobby: Arc<Lobby>,
}

impl Intake {
    /// Prepares requests in the order of service, until the engine closes.
    pub(crate) fn run(self) {
        while let Some(Job { input, ticket }) = self.lobby.next() {
            let span = tracing::debug_span!(parent: &ticket.span, "prepare").entered();
            let prepared = self.prepare(input, &ticket);
            drop(span);
            match prepared {
                // The core is gone if this fails; the arrival's outlet then says so.
                Ok(prepared) => {
                    drop(self.commands.send(Command::Add(Box::new(self.arrival(ticket, prepared)))))
                }
                Err(error) => ticket.outlet.end(Event::Failed(error)),
            }
        }
    }

    fn prepare(&self, input: Input, ticket: &Ticket) -> Result<Prepared> {
        ticket.control.check(Instant::now())?;
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
        Ok(Prepared { encoded, max_tokens, preprocess_ms: super::elapsed_ms(started) })
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
        let Prepared { encoded: EncodedPrompt { input_ids, images }, max_tokens, preprocess_ms } = prepared;
        let spans: Vec<ImageSpan> = images.iter().map(|image| self.span(image)).collect();
        let image_tokens = spans.iter().map(|image| image.tokens.len()).sum();
        let prompt_token_ids: Arc<[u32]> = Arc::from(input_ids.as_slice());
        if let Some(guest) = ticket.outlet.guest() {
            guest.move_to(Stage::Prepared);
        }
        ticket.outlet.send(Event::Started { prompt_token_ids: prompt_token_ids.clone(), image_tokens });
        let (params, stop_ids) = (&ticket.sampling, &self.spec.stop_ids);
        let constraint = self.thinking(ticket.reasoning, &prompt_token_ids, ticket.constraint);
        let sampler = Sampler::new(params, stop_ids, prompt_token_ids, ticket.seed, constraint);
        let choice = |index| Choice {
            sampler: sampler.fork(index),
            output: Output::new(params, &self.spec, self.processor.detokenizer(), max_tokens),
            finish: None,
        };
        let live = Live {
            id: ticket.id,
            images: images.into_iter().map(|image| image.patches).collect(),
            choices: (0..ticket.num_completions as u32).map(choice).collect(),
            outlet: ticket.outlet,
            control: ticket.control,
            usage: Usage { prompt_tokens: input_ids.len(), image_tokens, ..Usage::default() },
            timings: Timings { load_ms: self.load_ms, preprocess_ms, ..Timings::default() },
            submitted: ticket.submitted,
            paused_since: None,
            queue_span: Some(tracing::debug_span!(parent: &ticket.span, "queue")),
            span: ticket.span,
        };
        let root = self.digests.of(&[b"salt", ticket.cache_salt.as_bytes()]);
        Arrival { sequence: Sequence::new(ticket.id, input_ids, spans, root), live }
    }

    /// The constraint, behind the reasoning that the request allows for.
    fn thinking(
        &self,
        reasoning: Option<Reasoning>,
        prompt_token_ids: &[u32],
        constraint: Option<Box<dyn TokenConstraint>>,
    ) -> Option<Box<dyn TokenConstraint>> {
        let format = self.processor.answer_format();
        let (Some(reasoning), Some(marks)) = (reasoning, format.reasoning()) else { return constraint };
        let is_open = format.begins_reasoning(prompt_token_ids);
        let thinking = Thinking::new(reasoning, marks, is_open, constraint);
        Some(Box::new(thinking.with_stop_ids(&self.spec.stop_ids)))
    }

    /// An image's digest covers what the vision tower reads: the pixels as they were prepared, their grid, and how many soft
    /// tokens they become. Another size or budget is another image.
    fn span(&self, image: &EncodedImage) -> ImageSpan {
        let EncodedImage { tokens, patches } = image;
        let shape = [patches.columns, patches.rows, tokens.len()].map(|len| (len as u64).to_le_bytes());
        ImageSpan {
            tokens: tokens.clone(),
            digest: self.digests.of(&[b"image", shape.as_flattened(), &patches.pixels]),
        }
    }
}

struct Prepared {
    encoded: EncodedPrompt,
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
