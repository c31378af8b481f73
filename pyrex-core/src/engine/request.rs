//! [`Request`]: what a caller asks.

use super::constraint::Constraint;
use super::sampling::SamplingParams;
use crate::prompt::{Chat, EncodedPrompt, Prompt};

/// A prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub input: Input,
    /// How the answer is chosen, and when it ends.
    pub sampling: SamplingParams,
    /// What the answer must look like, if the caller cares.
    pub constraint: Option<Constraint>,
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
        Self { input: input.into(), sampling: SamplingParams::default(), constraint: None }
    }

    /// The same request with other sampling.
    pub fn with_sampling(self, sampling: SamplingParams) -> Self {
        Self { sampling, ..self }
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
