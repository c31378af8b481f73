//! A response and the items of its output.

use super::Response;
use super::event::{Part, ResponseEvent};
use crate::responses::Echo;
use pyrex_core::{Error, Usage};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A response.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResponseObject<'a> {
    /// Names the response.
    id: &'a str,
    #[schema(inline)]
    object: ResponseName,
    /// When it was asked, in seconds since 1970.
    created_at: u64,
    status: Status,
    /// Always false.
    background: bool,
    /// Why it failed, if it did.
    pub(super) error: Option<Failure<'a>>,
    /// Why it is not complete, if it is not.
    pub(super) incomplete_details: Option<Incomplete>,
    /// As it was asked.
    instructions: Option<&'a str>,
    /// As it was asked.
    max_output_tokens: Option<usize>,
    /// Always empty.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// The model that answers.
    model: &'a str,
    /// What it said.
    output: &'a [Item],
    /// As it was asked.
    parallel_tool_calls: bool,
    /// Always null: nothing is stored.
    previous_response_id: Option<&'a str>,
    reasoning: ReasoningObject<'a>,
    /// Always false.
    store: bool,
    /// As it was asked, or the model's own.
    temperature: f32,
    /// As it was asked.
    #[schema(value_type = Object)]
    text: &'a Value,
    /// As it was asked.
    tool_choice: &'a Value,
    /// As they were asked.
    #[schema(value_type = Vec<Object>)]
    tools: &'a [Value],
    /// As it was asked, or the model's own.
    top_p: f32,
    #[schema(inline)]
    truncation: Truncation,
    /// What it took, once it is complete.
    pub(super) usage: Option<ResponseUsage>,
    /// As it was asked.
    user: Option<&'a str>,
}

/// How hard the model was to think.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReasoningObject<'a> {
    /// As it was asked.
    effort: Option<&'a str>,
    /// Always null.
    summary: Option<&'a str>,
}

/// How far a response or an item has come.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It grows.
    InProgress,
    /// All of it is there.
    Completed,
    /// It was cut off.
    Incomplete,
    /// An error ended it.
    Failed,
}

/// Why a response failed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Failure<'a> {
    #[schema(inline)]
    code: FailureCode,
    message: &'a str,
}

/// Why a response is not complete.
#[derive(Serialize, ToSchema)]
pub(crate) struct Incomplete {
    #[schema(inline)]
    reason: IncompleteReason,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureCode {
    ServerError,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IncompleteReason {
    MaxOutputTokens,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseName {
    Response,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Truncation {
    Disabled,
}

/// What a response took, in tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

/// Of the input.
#[derive(Serialize, ToSchema)]
pub(crate) struct InputDetails {
    /// Those that an earlier request had computed.
    cached_tokens: usize,
    /// Those of its images.
    image_tokens: usize,
}

/// Of the output.
#[derive(Serialize, ToSchema)]
pub(crate) struct OutputDetails {
    /// Those of the model's reasoning.
    reasoning_tokens: usize,
}

/// One item of what the model said.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    /// What it said to whoever asked.
    Message {
        id: String,
        status: Status,
        #[schema(inline)]
        role: crate::reply::chat::AssistantRole,
        content: Vec<OwnPart>,
    },
    /// A tool that it called.
    FunctionCall { id: String, call_id: String, name: String, arguments: String, status: Status },
    /// What it said to itself.
    Reasoning {
        id: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        summary: [u8; 0],
        content: Vec<OwnPart>,
        status: Status,
    },
}

/// A part of an item.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OwnPart {
    /// Text of a message.
    OutputText {
        text: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: [u8; 0],
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        logprobs: [u8; 0],
    },
    /// Text of the model's reasoning.
    ReasoningText { text: String },
}

impl<'a> ResponseObject<'a> {
    pub(super) fn new(response: &'a Response, status: Status) -> Self {
        let Echo { instructions, tools, tool_choice, text, effort } = &*response.echo;
        Self {
            id: &response.id,
            object: ResponseName::Response,
            created_at: response.served.created,
            status,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: instructions.as_deref(),
            max_output_tokens: response.sampling.max_tokens,
            metadata: Map::new(),
            model: &response.served.model,
            output: &response.items,
            parallel_tool_calls: !response.one_call,
            previous_response_id: None,
            reasoning: ReasoningObject { effort: effort.as_deref(), summary: None },
            store: false,
            temperature: response.sampling.temperature,
            text,
            tool_choice,
            tools,
            top_p: response.sampling.top_p.unwrap_or(1.0),
            truncation: Truncation::Disabled,
            usage: None,
            user: response.user.as_deref(),
        }
    }
}

impl<'a> Failure<'a> {
    pub(super) fn new(error: &'a Error) -> Self {
        Self { code: FailureCode::ServerError, message: error.message() }
    }
}

impl Incomplete {
    pub(super) fn max_output_tokens() -> Self {
        Self { reason: IncompleteReason::MaxOutputTokens }
    }
}

impl ResponseUsage {
    pub(super) fn new(usage: &Usage, reasoning_tokens: usize) -> Self {
        let Usage { prompt_tokens, image_tokens, cached_tokens, completion_tokens } = *usage;
        Self {
            input_tokens: prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens, image_tokens },
            output_tokens: completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens },
            total_tokens: prompt_tokens + completion_tokens,
        }
    }
}

impl Item {
    pub(super) fn message(id: String) -> Self {
        let part = OwnPart::OutputText { text: String::new(), annotations: [], logprobs: [] };
        let role = crate::reply::chat::AssistantRole::Assistant;
        Self::Message { id, status: Status::InProgress, role, content: vec![part] }
    }

    pub(super) fn call(id: String, call_id: String, name: String) -> Self {
        Self::FunctionCall { id, call_id, name, arguments: String::new(), status: Status::InProgress }
    }

    pub(super) fn reasoning(id: String) -> Self {
        let part = OwnPart::ReasoningText { text: String::new() };
        Self::Reasoning { id, summary: [], content: vec![part], status: Status::InProgress }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::FunctionCall { id, .. } | Self::Reasoning { id, .. } => id,
        }
    }

    /// What was said in it so far.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::FunctionCall { arguments, .. } => arguments,
            Self::Message { content, .. } | Self::Reasoning { content, .. } => match content.first() {
                Some(OwnPart::OutputText { text, .. } | OwnPart::ReasoningText { text }) => text,
                None => "",
            },
        }
    }

    pub(super) fn push(&mut self, more: &str) {
        match self {
            Self::FunctionCall { arguments, .. } => arguments.push_str(more),
            Self::Message { content, .. } | Self::Reasoning { content, .. } => {
                if let Some(OwnPart::OutputText { text, .. } | OwnPart::ReasoningText { text }) =
                    content.first_mut()
                {
                    text.push_str(more);
                }
            }
        }
    }

    pub(super) fn set_status(&mut self, new: Status) {
        match self {
            Self::Message { status, .. }
            | Self::FunctionCall { status, .. }
            | Self::Reasoning { status, .. } => {
                *status = new;
            }
        }
    }

    /// The part that its text is in, still empty; a call has none.
    pub(super) fn begin_part(&self) -> Option<Part<'static>> {
        match self {
            Self::Message { .. } => Some(Part::output_text("")),
            Self::Reasoning { .. } => Some(Part::ReasoningText { text: "" }),
            Self::FunctionCall { .. } => None,
        }
    }

    /// The event of more of its text.
    pub(super) fn delta<'a>(
        &'a self,
        sequence_number: u64,
        output_index: usize,
        delta: &'a str,
    ) -> ResponseEvent<'a> {
        let (item_id, content_index) = (self.id(), 0);
        match self {
            Self::Message { .. } => ResponseEvent::OutputTextDelta {
                sequence_number,
                item_id,
                output_index,
                content_index,
                delta,
                logprobs: [],
            },
            Self::Reasoning { .. } => ResponseEvent::ReasoningTextDelta {
                sequence_number,
                item_id,
                output_index,
                content_index,
                delta,
            },
            Self::FunctionCall { .. } => {
                ResponseEvent::FunctionCallArgumentsDelta { sequence_number, item_id, output_index, delta }
            }
        }
    }

    /// The event of all of its text.
    pub(super) fn done(&self, sequence_number: u64, output_index: usize) -> ResponseEvent<'_> {
        let (item_id, content_index, text) = (self.id(), 0, self.text());
        match self {
            Self::Message { .. } => ResponseEvent::OutputTextDone {
                sequence_number,
                item_id,
                output_index,
                content_index,
                text,
                logprobs: [],
            },
            Self::Reasoning { .. } => ResponseEvent::ReasoningTextDone {
                sequence_number,
                item_id,
                output_index,
                content_index,
                text,
            },
            Self::FunctionCall { name, .. } => ResponseEvent::FunctionCallArgumentsDone {
                sequence_number,
                item_id,
                output_index,
                name,
                arguments: text,
            },
        }
    }
}
