//! The shapes of all bodies, for a document of the API.
//!
//! What is written is described by the types that are written. What is read has types of its own here, which say what the
//! readers take and are never made: `schema/tests.rs` holds the two together, field by field and range by range.

// Nobody makes a value of these types.
#![allow(dead_code)]

mod bounded;
mod chat;
mod completions;
mod responses;
mod sampling;
#[cfg(test)]
mod tests;
mod tokens;

use crate::refusal::ErrorBody;
use crate::reply::schemas::{
    ChatChunk, ChatCompletion, Model, ModelList, ResponseEvent, ResponseObject, TextCompletion,
};
use crate::tokens::{Detokenized, Tokens};
use chat::ChatCompletionRequest;
use completions::CompletionRequest;
use responses::ResponseRequest;
use tokens::{DetokenizeRequest, TokenizeRequest};
use utoipa::OpenApi;
use utoipa::openapi::Components;

/// The schemas of all bodies by name, for the `components` of an OpenAPI document.
///
/// Requests: `ChatCompletionRequest`, `CompletionRequest`, `ResponseRequest`, `TokenizeRequest`, `DetokenizeRequest`. Replies:
/// `ChatCompletion` and `ChatChunk`, `TextCompletion`, `ResponseObject` and `ResponseEvent`, `ModelList`, `Model`, `Tokens`,
/// `Detokenized`, and `ErrorBody` for whatever goes wrong.
pub fn components() -> Components {
    Schemas::openapi().components.unwrap_or_default()
}

#[derive(OpenApi)]
#[openapi(components(schemas(
    ChatCompletionRequest,
    CompletionRequest,
    ResponseRequest,
    TokenizeRequest,
    DetokenizeRequest,
    ChatCompletion,
    ChatChunk,
    TextCompletion,
    ResponseObject,
    ResponseEvent,
    ModelList,
    Model,
    Tokens,
    Detokenized,
    ErrorBody,
)))]
struct Schemas;
