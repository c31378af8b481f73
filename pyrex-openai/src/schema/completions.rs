//! The body of `/v1/completions`.

use super::bounded::{Bias, OneText, OneTokenIds, TokenId, TokenIds};
use super::sampling::{ResponseFormat, Stop, StreamOptions, StructuredOutputs, request};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;

request! {
    /// A text to go on from.
    CompletionRequest {
        prompt: TextPrompt,
        /// The most tokens to say.
        #[schema(minimum = 1)]
        max_tokens: Option<u64>,
        /// The same by its newer name.
        #[schema(minimum = 1)]
        max_completion_tokens: Option<u64>,
        /// How many answers to choose.
        #[schema(minimum = 1)]
        n: Option<u32>,
        /// What `n` is, if it is given.
        #[schema(minimum = 1, maximum = 1)]
        best_of: Option<u32>,
        stream_options: Option<StreamOptions>,
        /// Tell how likely each token was, and how likely this many of the likeliest were.
        #[schema(minimum = 0, maximum = 20)]
        logprobs: Option<u32>,
        response_format: Option<ResponseFormat>,
        structured_outputs: Option<StructuredOutputs>,
    }
}

/// A text, or the ids of one; each may stand in a list of its own.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TextPrompt {
    /// A text.
    Text(String),
    /// Its ids.
    TokenIds(TokenIds),
    /// One text in a list.
    Texts(OneText),
    /// One list of ids in a list.
    Lists(OneTokenIds),
}
