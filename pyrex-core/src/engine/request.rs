//! [`Request`]: what a caller asks.

use super::sampling::SamplingParams;
use crate::prompt::{Chat, EncodedPrompt, Prompt};

/// A prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub input: Input,
    /// How the answer is chosen, and when it ends.
    pub sampling: SamplingParams,
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
    /// A request with the default sampling: greedy.
    pub fn new(input: impl Into<Input>) -> Self {
        Self { input: input.into(), sampling: SamplingParams::default() }
    }

    /// The same request with other sampling.
    pub fn with_sampling(self, sampling: SamplingParams) -> Self {
        Self { sampling, ..self }
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
