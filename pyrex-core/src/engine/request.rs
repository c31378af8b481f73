//! [`Request`]: what a caller asks.

use super::constraint::Constraint;
use super::options::EngineConfig;
use super::reasoning::Reasoning;
use super::sampling::SamplingParams;
use crate::error::{Error, Result};
use crate::models::ModelSpec;
use crate::prompt::{Chat, EncodedPrompt, Prompt};
use std::time::Instant;

/// A prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub input: Input,
    /// How the answer is chosen, and when it ends.
    pub sampling: SamplingParams,
    /// What the answer must look like, if the caller cares.
    pub constraint: Option<Constraint>,
    /// Lets the model think before the constraint holds, so long and no longer. Without it a constraint holds from the first
    /// token, and reasoning has no bound of its own.
    pub reasoning: Option<Reasoning>,
    /// How many answers to choose. They share the computed prompt, and differ only if tokens are drawn.
    pub num_completions: usize,
    /// Higher is served first; equals in the order they came.
    pub priority: i8,
    /// When the answer is of no use any more: the request then fails with
    /// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), wherever it is.
    pub deadline: Option<Instant>,
    /// Only requests of the same salt share computed prefixes: whoever can guess a prompt of another salt cannot tell, by
    /// how soon an answer comes, whether somebody asked it.
    pub cache_salt: String,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Input {
    /// Text and images, still to be encoded.
    Prompt(Prompt),
    /// Ids and patches, for callers that encode on their own.
    Encoded(EncodedPrompt),
}

impl Request {
    /// A request with the default sampling, greedy, and no constraint.
    pub fn new(input: impl Into<Input>) -> Self {
        Self {
            input: input.into(),
            sampling: SamplingParams::default(),
            constraint: None,
            reasoning: None,
            num_completions: 1,
            priority: 0,
            deadline: None,
            cache_salt: String::new(),
        }
    }

    /// The same request with other sampling.
    pub fn with_sampling(self, sampling: SamplingParams) -> Self {
        Self { sampling, ..self }
    }

    /// # Errors
    /// `InvalidRequest` naming what is wrong and what was expected.
    pub(crate) fn validate(&self, spec: &ModelSpec, config: &EngineConfig) -> Result<()> {
        let (found, most) = (self.num_completions, config.max_sequences);
        if found == 0 || found > most {
            return Err(Error::invalid_request(format_args!(
                "num_completions is {found}, expected 1 to {most} (max_sequences)"
            )));
        }
        self.sampling.validate_for(spec.vocab_size)
    }

    /// The same request for an answer that keeps to a grammar or to a constraint of the caller's.
    pub fn with_constraint(self, constraint: impl Into<Constraint>) -> Self {
        Self { constraint: Some(constraint.into()), ..self }
    }
}

impl From<Prompt> for Input {
    fn from(prompt: Prompt) -> Self {
        Self::Prompt(prompt)
    }
}

impl From<Chat> for Input {
    fn from(chat: Chat) -> Self {
        Self::Prompt(Prompt::Chat(chat))
    }
}

impl From<EncodedPrompt> for Input {
    fn from(encoded: EncodedPrompt) -> Self {
        Self::Encoded(encoded)
    }
}
