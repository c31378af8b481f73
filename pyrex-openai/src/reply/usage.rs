//! What an answer took, as the endpoints tell it.

use pyrex_core::Usage;
use serde::Serialize;

/// What an answer took, in tokens.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct UsageObject {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
    image_tokens: usize,
}

#[derive(Clone, Copy, Serialize)]
struct CompletionDetails {
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
