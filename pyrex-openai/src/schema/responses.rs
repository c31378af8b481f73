//! The body of `/v1/responses`.

use super::bounded::{Bias, TokenId, bounded, list};
use super::chat::{Detail, Effort, ToolKind, ToolMode, ToolName};
use super::sampling::{PlainFormat, SchemaKind, Stop, request};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

request! {
    /// What to respond to.
    ResponseRequest {
        input: ResponseInput,
        /// Said before the input.
        instructions: Option<String>,
        /// The most tokens to say.
        #[schema(minimum = 1)]
        max_output_tokens: Option<u64>,
        stream_options: Option<ResponseStreamOptions>,
        text: Option<ResponseText>,
        /// What the model may call.
        tools: Option<Vec<FlatTool>>,
        tool_choice: Option<FlatToolChoice>,
        /// Whether there may be several calls in one answer.
        parallel_tool_calls: Option<bool>,
        reasoning: Option<ResponseReasoning>,
        /// The most tokens of its reasoning.
        #[schema(minimum = 0)]
        thinking_token_budget: Option<u64>,
    }
}

/// Nothing to choose.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseStreamOptions {}

/// A question, or a conversation in items.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ResponseInput {
    /// A question.
    Text(String),
    /// The items in order.
    Items(InputItems),
}

bounded! {
    /// Items of a conversation.
    InputItems, list::<InputItem>(Some(1), None), InputItem
}

/// An item of a conversation.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum InputItem {
    /// What somebody said.
    Message(MessageItem),
    /// A tool that the model called.
    Call(CallItem),
    /// What a tool brought.
    Output(OutputItem),
    /// What the model said to itself.
    Reasoning(ReasoningItem),
}

/// What somebody said.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageItem {
    #[schema(inline)]
    r#type: Option<MessageKind>,
    id: Option<String>,
    #[schema(inline)]
    status: Option<ItemStatus>,
    #[schema(inline)]
    role: ItemRole,
    content: ItemContent,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageKind {
    Message,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemStatus {
    InProgress,
    Completed,
    Incomplete,
}

/// What an item says.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ItemContent {
    /// One text.
    Text(String),
    /// Texts and images in their order.
    Parts(Vec<ItemPart>),
}

/// A piece of an item.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ItemPart {
    /// Text of somebody who asks.
    Asked(InputTextPart),
    /// Text of the model.
    Said(OutputTextPart),
    /// An image.
    Image(InputImagePart),
}

/// Text of somebody who asks.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputTextPart {
    #[schema(inline)]
    r#type: InputTextKind,
    text: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputTextKind {
    InputText,
}

/// Text of the model.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputTextPart {
    #[schema(inline)]
    r#type: OutputTextKind,
    text: String,
    /// As it was written: empty.
    #[schema(max_items = 0)]
    annotations: Option<Vec<String>>,
    /// As they were written: empty.
    #[schema(max_items = 0)]
    logprobs: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputTextKind {
    OutputText,
}

/// An image.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputImagePart {
    #[schema(inline)]
    r#type: InputImageKind,
    /// A data URL, or where the server is allowed to fetch from.
    #[schema(example = "data:image/png;base64,YWI=")]
    image_url: String,
    #[schema(inline)]
    detail: Option<Detail>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputImageKind {
    InputImage,
}

/// A tool that the model called.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallItem {
    #[schema(inline)]
    r#type: CallKind,
    id: Option<String>,
    #[schema(inline)]
    status: Option<ItemStatus>,
    call_id: String,
    name: String,
    /// A JSON object in a string.
    #[schema(example = "{}")]
    arguments: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallKind {
    FunctionCall,
}

/// What a tool brought.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputItem {
    #[schema(inline)]
    r#type: OutputKind,
    id: Option<String>,
    #[schema(inline)]
    status: Option<ItemStatus>,
    call_id: String,
    output: ItemContent,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputKind {
    FunctionCallOutput,
}

/// What the model said to itself.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasoningItem {
    #[schema(inline)]
    r#type: ReasoningKind,
    id: Option<String>,
    #[schema(inline)]
    status: Option<ItemStatus>,
    /// As it was written: empty.
    #[schema(max_items = 0)]
    summary: Option<Vec<String>>,
    content: Option<Vec<ReasoningPart>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasoningKind {
    Reasoning,
}

/// Text of the model's reasoning.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasoningPart {
    #[schema(inline)]
    r#type: ReasoningTextKind,
    text: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasoningTextKind {
    ReasoningText,
}

/// What the text of the answer must look like.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseText {
    format: Option<TextFormat>,
}

/// What an answer must look like.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TextFormat {
    /// Text, or any JSON object.
    Plain(PlainFormat),
    /// JSON of a schema.
    Schema(FlatSchemaFormat),
}

/// JSON of a schema.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlatSchemaFormat {
    #[schema(inline)]
    r#type: SchemaKind,
    name: String,
    description: Option<String>,
    #[schema(value_type = Object)]
    schema: Map<String, Value>,
    /// Changes nothing: an answer is always held to its schema.
    strict: Option<bool>,
}

/// A tool that the model may call.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlatTool {
    #[schema(inline)]
    r#type: ToolKind,
    name: ToolName,
    description: Option<String>,
    /// A JSON schema.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
    /// Changes nothing.
    strict: Option<bool>,
}

/// Which tools the model calls.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FlatToolChoice {
    /// Those it wants to, none, or at least one.
    Mode(#[schema(inline)] ToolMode),
    /// This one.
    Named(NamedFlatTool),
}

/// One tool.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFlatTool {
    #[schema(inline)]
    r#type: ToolKind,
    name: ToolName,
}

/// Whether the model thinks before it answers.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseReasoning {
    /// `none` for no, all others for yes.
    #[schema(inline)]
    effort: Option<Effort>,
}
