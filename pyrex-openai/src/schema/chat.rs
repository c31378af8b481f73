//! The body of `/v1/chat/completions`.

use super::bounded::{Bias, TokenId};
use super::sampling::{ResponseFormat, Stop, StreamOptions, StructuredOutputs, request};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use utoipa::ToSchema;

request! {
    /// A conversation to go on with.
    ChatCompletionRequest {
        /// The turns in order.
        #[schema(min_items = 1)]
        messages: Vec<Message>,
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
        /// Tell how likely each token was.
        logprobs: Option<bool>,
        /// And how likely this many of the likeliest were.
        #[schema(minimum = 0, maximum = 20)]
        top_logprobs: Option<u32>,
        response_format: Option<ResponseFormat>,
        structured_outputs: Option<StructuredOutputs>,
        /// What the model may call.
        tools: Option<Vec<Tool>>,
        tool_choice: Option<ToolChoice>,
        /// Whether there may be several calls in one answer.
        parallel_tool_calls: Option<bool>,
        /// Whether the model thinks before it answers: `none` for no, all others for yes.
        #[schema(inline)]
        reasoning_effort: Option<Effort>,
        /// The most tokens of its reasoning.
        #[schema(minimum = 0)]
        thinking_token_budget: Option<u64>,
        /// Further variables of the model's template.
        #[schema(value_type = Option<Object>)]
        chat_template_kwargs: Option<Map<String, Value>>,
        /// Whether the template ends where the model is to go on; true unless given.
        add_generation_prompt: Option<bool>,
    }
}

/// A turn of a conversation.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Message {
    /// Of somebody who asks.
    Asked(AskedMessage),
    /// Of the model.
    Said(SaidMessage),
    /// Of a tool.
    Brought(BroughtMessage),
}

/// A turn of somebody who asks.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedMessage {
    #[schema(inline)]
    role: AskedRole,
    content: Content,
    name: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AskedRole {
    System,
    Developer,
    User,
}

/// An earlier turn of the model.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaidMessage {
    #[schema(inline)]
    role: SaidRole,
    content: Option<Content>,
    name: Option<String>,
    /// What it said to itself before.
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<CallOfTool>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SaidRole {
    Assistant,
}

/// What a tool brought.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BroughtMessage {
    #[schema(inline)]
    role: BroughtRole,
    content: Content,
    name: Option<String>,
    /// Of which call.
    tool_call_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BroughtRole {
    Tool,
}

/// What a turn says.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    /// One text.
    Text(String),
    /// Texts and images in their order.
    Parts(Vec<ContentPart>),
}

/// A piece of a turn.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ContentPart {
    /// Text.
    Text(TextPart),
    /// An image.
    Image(ImagePart),
}

/// Text.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextPart {
    #[schema(inline)]
    r#type: TextKind,
    text: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TextKind {
    Text,
}

/// An image.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImagePart {
    #[schema(inline)]
    r#type: ImageKind,
    image_url: ImageUrl,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImageKind {
    ImageUrl,
}

/// Where an image is.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageUrl {
    /// A data URL, or where the server is allowed to fetch from.
    #[schema(example = "data:image/png;base64,YWI=")]
    url: String,
    #[schema(inline)]
    detail: Option<Detail>,
}

/// How closely to look: the model decides.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Detail {
    Auto,
}

/// A tool that the model may call.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    #[schema(inline)]
    r#type: ToolKind,
    function: ToolFunction,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolKind {
    Function,
}

/// A function and what it takes.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolFunction {
    name: ToolName,
    description: Option<String>,
    /// A JSON schema.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
    /// Changes nothing.
    strict: Option<bool>,
}

/// What a tool is called.
#[derive(Serialize, ToSchema)]
#[schema(pattern = "^[a-zA-Z0-9_.-]{1,64}$", example = "look")]
pub(crate) struct ToolName(String);

/// Which tools the model calls.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ToolChoice {
    /// Those it wants to, none, or at least one.
    Mode(#[schema(inline)] ToolMode),
    /// This one.
    Named(NamedTool),
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolMode {
    Auto,
    None,
    Required,
}

/// One tool.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTool {
    #[schema(inline)]
    r#type: ToolKind,
    function: NamedFunction,
}

/// One function.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFunction {
    name: ToolName,
}

/// A call in an earlier turn.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallOfTool {
    id: String,
    #[schema(inline)]
    r#type: ToolKind,
    function: CalledTool,
}

/// What was called.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalledTool {
    name: String,
    /// A JSON object in a string.
    #[schema(example = "{}")]
    arguments: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}
