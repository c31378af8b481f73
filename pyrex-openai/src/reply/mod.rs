//! [`Reply`]: folds the events of one request into the bytes of its answer, streamed or whole.
//!
//! Each endpoint's shape is a file: [`chat`], [`text`] and [`responses`]. A shape writes what it hears into the caller's buffer and knows
//! no connection.

mod chat;
mod list;
mod logprobs;
mod responses;
mod speech;
mod text;
mod usage;

pub use list::{model_body, models_body};

/// What is written, for a document of the API.
pub(crate) mod schemas {
    pub(crate) use super::chat::{ChatChunk, ChatCompletion};
    pub(crate) use super::list::{Model, ModelList};
    pub(crate) use super::responses::{ResponseEvent, ResponseObject};
    pub(crate) use super::text::TextCompletion;
}

use crate::ranges;
use crate::refusal::{ErrorBody, Refusal, status};
use crate::wishes::settle;
use crate::{Asked, Endpoint};
use chat::ChatReply;
use pyrex_core::{Engine, Error, Event, FinishReason, TokenLogprobs, Usage};
use responses::ResponsesReply;
use serde::Serialize;
use text::TextReply;

/// Who answers, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Names the answer among all, without the prefix that its endpoint puts before it.
    pub id: String,
    /// When it was asked, in seconds since 1970.
    pub created: u64,
    /// The model as the client is to call it.
    pub model: String,
}

/// The answer to one request as it grows.
///
/// Nothing is written before the first token: a request that fails before it is answered with its status and a plain error,
/// even if it was to be a stream.
pub struct Reply {
    shape: Box<dyn Shape>,
    stream: bool,
    began: bool,
    status: u16,
}

/// One token as a shape hears of it.
pub(crate) struct Token {
    pub(crate) index: usize,
    pub(crate) token_id: u32,
    pub(crate) text: String,
    pub(crate) logprobs: Option<TokenLogprobs>,
    pub(crate) finish: Option<FinishReason>,
}

/// How an endpoint writes its answers.
pub(crate) trait Shape: Send {
    /// Hears what the model reads.
    fn started(&mut self, prompt_token_ids: &[u32]);

    /// Takes a token; a stream writes it.
    fn token(&mut self, token: Token, out: &mut Vec<u8>);

    /// Writes the end, or the whole.
    fn finished(&mut self, usage: &Usage, out: &mut Vec<u8>);

    /// Ends a stream that has begun.
    fn failed(&mut self, error: &Error, out: &mut Vec<u8>);
}

impl Reply {
    /// The reply to what was asked. Settles what `asked.request` leaves to the model that answers, so the request is
    /// submitted after this.
    ///
    /// # Errors
    /// `Unsupported` for what this model cannot do and `InvalidRequest` for numbers that the engine does not take, by the
    /// name of the field.
    pub fn new(asked: &mut Asked, engine: &Engine, served: Served) -> Result<Self, Refusal> {
        ranges::check(asked, engine)?;
        settle(asked, engine)?;
        let shape: Box<dyn Shape> = match (asked.endpoint, asked.echo.take()) {
            (Endpoint::Completions, _) => Box::new(TextReply::new(asked, engine, served)),
            (_, Some(echo)) => Box::new(ResponsesReply::new(asked, echo, engine, served)),
            (_, None) => Box::new(ChatReply::new(asked, engine, served)),
        };
        Ok(Self { shape, stream: asked.stream, began: false, status: 200 })
    }

    /// Takes the next event, and appends to `out` what the client is to be sent now, possibly nothing.
    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Started { prompt_token_ids, .. } => self.shape.started(&prompt_token_ids),
            Event::Token { index, token_id, text, logprobs, finish } => {
                self.began = true;
                self.shape.token(Token { index, token_id, text, logprobs, finish }, out);
            }
            Event::Finished { usage, .. } => self.shape.finished(&usage, out),
            Event::Failed(error) if self.stream && self.began => self.shape.failed(&error, out),
            Event::Failed(error) => {
                self.stream = false;
                self.status = status(error.kind());
                write(out, &ErrorBody::new(&error, None));
            }
        }
    }

    /// The HTTP status, settled once the first bytes are there.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The media type, settled once the first bytes are there.
    pub fn content_type(&self) -> &'static str {
        if self.stream { "text/event-stream" } else { "application/json" }
    }
}

/// Appends a value as JSON.
pub(crate) fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("keys are strings, and memory takes every byte");
}

/// Appends one event of a stream.
pub(crate) fn write_event(out: &mut Vec<u8>, value: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    write(out, value);
    out.extend_from_slice(b"\n\n");
}

/// Appends the event that ends a stream.
pub(crate) fn write_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// Appends the end of a stream that fails.
pub(crate) fn write_failure(out: &mut Vec<u8>, error: &Error) {
    write_event(out, &ErrorBody::new(error, None));
    write_done(out);
}
