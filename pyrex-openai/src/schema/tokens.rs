//! The bodies of `/tokenize` and `/detokenize`.

use super::bounded::TokenId;
use super::chat::{Effort, Message, Tool, ToolChoice};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What is to be tokenized.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TokenizeRequest {
    /// A text.
    Text(TokenizeText),
    /// A conversation.
    Chat(TokenizeChat),
}

/// A text to tokenize.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeText {
    model: Option<String>,
    prompt: String,
    /// Whether what a prompt begins with is put before it; true unless given.
    add_special_tokens: Option<bool>,
}

/// A conversation to tokenize.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeChat {
    model: Option<String>,
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    /// Changes nothing: a conversation has them.
    add_special_tokens: Option<bool>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    #[schema(inline)]
    reasoning_effort: Option<Effort>,
    #[schema(minimum = 0)]
    thinking_token_budget: Option<u64>,
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
    add_generation_prompt: Option<bool>,
}

/// Ids to say.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<TokenId>,
}
