//! OpenAI's protocol without a transport: the bytes of a body become a [`Request`].
//!
//! ```
//! use pyrex_core::SamplingParams;
//!
//! let body = br#"{"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 16}"#;
//! let asked = pyrex_openai::read(body, &SamplingParams::default())?;
//! assert_eq!(asked.request.sampling.max_tokens, Some(16));
//! # Ok::<(), pyrex_core::Error>(())
//! ```
//!
//! Nothing is ignored: a field that nobody knows, that Pyrex cannot serve, or that is there twice is refused by its path, and
//! so is a value of the wrong type. A field that is null counts as absent, a known one or not. Whether a number is in range
//! is the engine's to say.
//!
//! Beyond OpenAI's own fields, `read` takes vLLM's `top_k`, `min_p`, `repetition_penalty`, `min_tokens`, `stop_token_ids`,
//! `ignore_eos`, `priority`, `cache_salt`, `chat_template_kwargs`, `add_generation_prompt` and `structured_outputs`, and
//! `timeout_ms`, which is Pyrex's. Three things differ from where their names come from:
//!
//! - `priority` is that of [`Request`]: higher is served first. In vLLM lower is.
//! - `structured_outputs.grammar` is a [`Grammar::Lark`](pyrex_core::Grammar::Lark).
//! - Without `max_tokens` the caller's defaults hold, on both endpoints; OpenAI's completions end after 16 tokens.
//!
//! A `strict` of a tool or of a schema changes nothing: an answer is always held to the schema of its `response_format`, and
//! a tool is shown to the model as it is given.

#![forbid(unsafe_code)]

mod body;
mod format;
mod image;
mod json;
mod messages;
mod object;
mod ranges;
mod refusal;
mod reply;
mod responses;
mod sampling;
mod schema;
#[cfg(test)]
mod tests;
mod tokens;
mod tools;
mod unserved;
mod wishes;

pub use refusal::{Refusal, error_body, status};
pub use reply::{Reply, Served, model_body, models_body};
pub use schema::components;
pub use tokens::{Detokenize, Tokenize, read_detokenize, read_tokenize};

use image::fetch_nothing;
use object::Object;
use pyrex_core::{Error, ImageBytes, Request, Result, SamplingParams};
use responses::Echo;
use serde_json::Value;
use wishes::Wishes;

/// Where a body was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
}

/// How a body is read.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// How the answer is chosen where the body does not say.
    pub defaults: &'a SamplingParams,
    /// Brings the image that an http, https or file URL leads to; data URLs never reach it.
    pub fetch: &'a dyn Fn(&str) -> Result<ImageBytes>,
}

/// What a client asks, and how it wants to hear the answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The prompt and how to answer it.
    pub request: Request,
    /// The model that should answer, as the client calls it.
    pub model: Option<String>,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// Whether a stream ends with what the answer took.
    pub include_usage: bool,
    /// The priority that the body names: a server may have another one for those that name none.
    pub priority: Option<i8>,
    /// Who asks, as the client calls them.
    pub user: Option<String>,
    endpoint: Endpoint,
    wishes: Wishes,
    echo: Option<Box<Echo>>,
}

/// Reads the body of `/v1/chat/completions`, which has `messages`, or of `/v1/completions`, which has `prompt`.
///
/// `defaults` says how the answer is chosen where the body does not. Nothing is fetched. The time of `timeout_ms` runs from
/// this call.
///
/// # Errors
/// `Unsupported` for what OpenAI or vLLM know and Pyrex does not serve, `InvalidRequest` for everything else, with the path
/// of what is wrong, what was found there and what was expected.
pub fn read(body: &[u8], defaults: &SamplingParams) -> Result<Asked> {
    Ok(body::either(parse(body)?, &Context { defaults, fetch: &fetch_nothing })?)
}

/// Reads a body that was sent to `endpoint`. The time of `timeout_ms` runs from this call.
///
/// # Errors
/// As [`read`], and whatever fetching an image says.
pub fn read_at(endpoint: Endpoint, body: &[u8], context: &Context<'_>) -> Result<Asked, Refusal> {
    let body = Object::new(parse(body)?)?;
    match endpoint {
        Endpoint::Chat => Ok(body::of_chat(body, context)?),
        Endpoint::Completions => Ok(body::of_completions(body, context)?),
        Endpoint::Responses => Ok(responses::asked(body, context)?),
    }
}

fn parse(body: &[u8]) -> Result<Value> {
    json::parse(body).map_err(|error| Error::invalid_request(format_args!("the body: {error}")))
}
