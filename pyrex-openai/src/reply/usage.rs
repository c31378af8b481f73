//! What an answer took, as the endpoints tell it.

use pyrex_core::Usage;
use serde::Serialize;
use utoipa::ToSchema;

/// What an answer took, in tokens.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct UsageObject {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// Of the prompt.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Those that an earlier request had computed.
    cached_tokens: usize,
    /// Those of its images.
    image_tokens: usize,
}

/// Of the answer.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct CompletionDetails {
    /// Those of the model's reasoning.
    reasoning_tokens: usize,
}

impl UsageObject {
    pub(crate) fn new(usage: &Usage, reasoning_tokens: usize) -> Self {
        let Usage { prompt_tokens, image_tokens, cached_tokens, completion_tokens } = *usage;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens, image_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens },
        }
    }
}
