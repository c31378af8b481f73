//! The events of a streamed response.

use super::ResponseObject;
use super::object::Item;
use crate::reply::write;
use serde::Serialize;
use utoipa::ToSchema;

/// An event of a streamed response; its name stands before its data too.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type")]
pub(crate) enum ResponseEvent<'a> {
    /// The first event.
    #[serde(rename = "response.created")]
    Created { sequence_number: u64, response: ResponseObject<'a> },
    /// The second.
    #[serde(rename = "response.in_progress")]
    InProgress { sequence_number: u64, response: ResponseObject<'a> },
    /// The last, if all went well.
    #[serde(rename = "response.completed")]
    Completed { sequence_number: u64, response: ResponseObject<'a> },
    /// The last, if the answer was cut off.
    #[serde(rename = "response.incomplete")]
    Incomplete { sequence_number: u64, response: ResponseObject<'a> },
    /// The last, if an error ended it.
    #[serde(rename = "response.failed")]
    Failed { sequence_number: u64, response: ResponseObject<'a> },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    OutputItemAdded { sequence_number: u64, output_index: usize, item: &'a Item },
    /// An item is there.
    #[serde(rename = "response.output_item.done")]
    OutputItemDone { sequence_number: u64, output_index: usize, item: &'a Item },
    /// The text of an item begins.
    #[serde(rename = "response.content_part.added")]
    ContentPartAdded {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        part: Part<'a>,
    },
    /// The text of an item is there.
    #[serde(rename = "response.content_part.done")]
    ContentPartDone {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        part: Part<'a>,
    },
    /// More of a message.
    #[serde(rename = "response.output_text.delta")]
    OutputTextDelta {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
        #[schema(value_type = Vec<Object>)]
        logprobs: [u8; 0],
    },
    /// All of a message.
    #[serde(rename = "response.output_text.done")]
    OutputTextDone {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        text: &'a str,
        #[schema(value_type = Vec<Object>)]
        logprobs: [u8; 0],
    },
    /// More of the reasoning.
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningTextDelta {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
    },
    /// All of the reasoning.
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningTextDone {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        text: &'a str,
    },
    /// More of a call's arguments.
    #[serde(rename = "response.function_call_arguments.delta")]
    FunctionCallArgumentsDelta { sequence_number: u64, item_id: &'a str, output_index: usize, delta: &'a str },
    /// All of a call's arguments.
    #[serde(rename = "response.function_call_arguments.done")]
    FunctionCallArgumentsDone {
        sequence_number: u64,
        item_id: &'a str,
        output_index: usize,
        name: &'a str,
        arguments: &'a str,
    },
}

/// The text of an item.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part<'a> {
    /// Of a message.
    OutputText {
        text: &'a str,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: [u8; 0],
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        logprobs: [u8; 0],
    },
    /// Of the model's reasoning.
    ReasoningText { text: &'a str },
}

impl<'a> Part<'a> {
    pub(super) fn output_text(text: &'a str) -> Self {
        Self::OutputText { text, annotations: [], logprobs: [] }
    }

    pub(super) fn of(item: &'a Item) -> Self {
        match item {
            Item::Reasoning { .. } => Self::ReasoningText { text: item.text() },
            _ => Self::output_text(item.text()),
        }
    }
}

impl ResponseEvent<'_> {
    /// Appends the event to a stream.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(b"\ndata: ");
        write(out, self);
        out.extend_from_slice(b"\n\n");
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
            Self::OutputItemAdded { .. } => "response.output_item.added",
            Self::OutputItemDone { .. } => "response.output_item.done",
            Self::ContentPartAdded { .. } => "response.content_part.added",
            Self::ContentPartDone { .. } => "response.content_part.done",
            Self::OutputTextDelta { .. } => "response.output_text.delta",
            Self::OutputTextDone { .. } => "response.output_text.done",
            Self::ReasoningTextDelta { .. } => "response.reasoning_text.delta",
            Self::ReasoningTextDone { .. } => "response.reasoning_text.done",
            Self::FunctionCallArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::FunctionCallArgumentsDone { .. } => "response.function_call_arguments.done",
        }
    }
}
