//! `/tokenize` and `/detokenize`: what a model reads of a text or a conversation, and what ids say.

use crate::body::chat;
use crate::messages::messages;
use crate::object::{Misfit, Object, flag, list, text, token_id};
use crate::refusal::Refusal;
use crate::reply::write;
use crate::wishes::Wishes;
use crate::{Context, parse};
use pyrex_core::{Engine, Prompt};
use serde::Serialize;
use utoipa::ToSchema;

/// What is to be tokenized.
#[derive(Clone, Debug)]
pub struct Tokenize {
    /// The model that reads it, as the client calls it.
    pub model: Option<String>,
    prompt: Prompt,
    /// Whether what a prompt begins with is put before a text; a conversation has it anyway.
    as_prompt: bool,
}

/// What is to be said.
#[derive(Clone, Debug)]
pub struct Detokenize {
    /// The model that says it, as the client calls it.
    pub model: Option<String>,
    token_ids: Vec<u32>,
}

/// What a model reads.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// Ids, the image placeholder's repeated where an image is.
    tokens: Vec<u32>,
    /// How many they are.
    count: usize,
    /// How many tokens a prompt and its answer may have together.
    max_model_len: usize,
}

/// What ids say.
#[derive(Serialize, ToSchema)]
pub(crate) struct Detokenized {
    /// Their text, special tokens left out.
    prompt: String,
}

/// Reads the body of `/tokenize`, which has a `prompt` or the `messages` of a conversation.
///
/// # Errors
/// As [`read_at`](crate::read_at).
pub fn read_tokenize(body: &[u8], context: &Context<'_>) -> Result<Tokenize, Refusal> {
    let mut body = Object::new(parse(body)?)?;
    let as_prompt = body.take("add_special_tokens", flag)?.unwrap_or(true);
    let (prompt, messages) =
        (body.take("prompt", text)?, body.take("messages", |value| messages(value, context.fetch))?);
    let prompt = match (prompt, messages) {
        (Some(text), None) => Prompt::Text(text),
        (None, Some(messages)) => Prompt::Chat(chat(&mut body, messages, &mut Wishes::default())?),
        (found, _) => {
            let found =
                if found.is_some() { "both messages and a prompt" } else { "neither messages nor a prompt" };
            return Err(Misfit::wrong(format_args!("has {found}, expected one")).into());
        }
    };
    let model = body.take("model", text)?;
    body.finish(&[
        "continue_final_message: false",
        "return_token_strs: false",
        "chat_template",
        "mm_processor_kwargs",
    ])?;
    Ok(Tokenize { model, prompt, as_prompt })
}

/// Reads the body of `/detokenize`, which has `tokens`.
///
/// # Errors
/// As [`read_at`](crate::read_at).
pub fn read_detokenize(body: &[u8]) -> Result<Detokenize, Refusal> {
    let mut body = Object::new(parse(body)?)?;
    let token_ids = body.require("tokens", |tokens| list(tokens, token_id))?;
    let model = body.take("model", text)?;
    body.finish(&[])?;
    Ok(Detokenize { model, token_ids })
}

impl Tokenize {
    /// What is to be tokenized.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// The body of the answer.
    ///
    /// # Errors
    /// Whatever encoding the prompt says.
    pub fn body(&self, engine: &Engine) -> Result<Vec<u8>, Refusal> {
        let tokens = match &self.prompt {
            Prompt::Text(text) if !self.as_prompt => engine.tokenize(text)?,
            prompt => engine.encode(prompt)?.input_ids,
        };
        let max_model_len = engine.config().max_model_len;
        let mut body = Vec::new();
        write(&mut body, &Tokens { count: tokens.len(), tokens, max_model_len });
        Ok(body)
    }
}

impl Detokenize {
    /// The body of the answer.
    ///
    /// # Errors
    /// `InvalidRequest` if an id is not in the vocabulary.
    pub fn body(&self, engine: &Engine) -> Result<Vec<u8>, Refusal> {
        let vocab_size = engine.spec().vocab_size;
        if let Some(index) = self.token_ids.iter().position(|id| *id as usize >= vocab_size) {
            let what = format_args!("is {}, expected one below {vocab_size}", self.token_ids[index]);
            return Err(Misfit::wrong(what).within_item(index).within("tokens").into());
        }
        let mut body = Vec::new();
        write(&mut body, &Detokenized { prompt: engine.detokenize(&self.token_ids) });
        Ok(body)
    }
}
