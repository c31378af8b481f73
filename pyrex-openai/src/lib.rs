//! OpenAI's protocol without a transport: the bytes of a body become a [`Request`], its events the bytes of an answer.
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
//! # Asking
//!
//! A server reads what was sent to an [`Endpoint`] with [`read_at`], which names the field that it refuses; [`read`] takes the
//! body of either of the first two, for hosts that answer in their own way. Beyond OpenAI's own fields, both take vLLM's `top_k`,
//! `min_p`, `repetition_penalty`, `min_tokens`, `stop_token_ids`, `ignore_eos`, `priority`, `cache_salt`,
//! `chat_template_kwargs`, `add_generation_prompt`, `structured_outputs` and `thinking_token_budget`, and `timeout_ms`, which is
//! Pyrex's. Three things differ from where their names come from:
//!
//! - `priority` is that of [`Request`]: higher is served first. In vLLM lower is.
//! - `structured_outputs.grammar` is a [`Grammar::Lark`](pyrex_core::Grammar::Lark).
//! - Without `max_tokens` the caller's defaults hold, on all endpoints; OpenAI's completions end after 16 tokens.
//!
//! A `strict` of a tool or of a schema changes nothing: an answer is always held to the schema of its `response_format`, and
//! a tool is shown to the model as it is given.
//!
//! # Answering
//!
//! A [`Reply`] first settles what only the model can say, and refuses what it cannot do: tools that its template does not show,
//! reasoning that it does not have. Then it folds the request's events into bytes, whole or as server-sent events:
//!
//! - What the model says between the marks of its reasoning is `reasoning_content`, and its calls are `tool_calls`, whose
//!   arguments are streamed as they are said. They are JSON, unless the answer was cut off in the middle of a call; what looks
//!   like a call and is none is text.
//! - A `tool_choice` of `required` or of one tool holds the answer to calls by a grammar: that the names are right and that
//!   the arguments can be read is certain, that they keep to the tool's schema is the model's to see to.
//! - A `reasoning_effort` other than `none` lets the model think; how hard is its own choice, how long may be bounded.
//! - Nothing is written before the first token, so that what fails before it has a status of its own.
//!
//! ```
//! use pyrex_core::{Engine, Error, Result, SamplingParams};
//! use pyrex_openai::{Context, Endpoint, Reply, Served, read_at};
//!
//! fn answer(engine: &Engine, body: &[u8]) -> Result<(u16, Vec<u8>)> {
//!     let fetch = |_: &str| Err(Error::unsupported("is not a data URL"));
//!     let context = Context { defaults: &SamplingParams::from_model(engine.spec()), fetch: &fetch };
//!     let mut asked = read_at(Endpoint::Chat, body, &context)?;
//!     let served = Served { id: "1".to_owned(), created: 0, model: "shapes".to_owned() };
//!     let mut reply = Reply::new(&mut asked, engine, served)?;
//!     let mut bytes = Vec::new();
//!     for event in engine.submit(asked.request)? {
//!         reply.push(event, &mut bytes);
//!     }
//!     Ok((reply.status(), bytes))
//! }
//! ```
//!
//! What all bodies look like, in both directions, is in [`components`].

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
