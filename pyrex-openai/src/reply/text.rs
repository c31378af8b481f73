//! The shape of `/v1/completions`: text as it is said.

use super::logprobs::{TextLogprobs, Words};
use super::usage::UsageObject;
use super::{Served, Shape, Token, write, write_done, write_event, write_failure};
use crate::Asked;
use pyrex_core::{Engine, Error, FinishReason, Usage};
use serde::Serialize;
use utoipa::ToSchema;

/// The answer of `/v1/completions`.
pub(crate) struct TextReply {
    id: String,
    served: Served,
    stream: bool,
    include_usage: bool,
    words: Option<Words>,
    choices: Vec<Choice>,
}

/// One completion so far: all of it, or how much of it was streamed.
#[derive(Default)]
struct Choice {
    text: String,
    num_chars: usize,
    logprobs: TextLogprobs,
    finish_reason: Option<TextFinish>,
}

/// A whole completion, or one piece of a stream: both have the same shape.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextCompletion<'a> {
    /// Names the answer.
    id: &'a str,
    #[schema(inline)]
    object: TextCompletionObject,
    /// When it was asked, in seconds since 1970.
    created: u64,
    /// The model that answers.
    model: &'a str,
    choices: &'a [TextChoice<'a>],
    /// There in a whole completion, and in a stream if `stream_options.include_usage` is true; null in all pieces but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    usage: Option<Option<UsageObject>>,
}

/// One completion, or more of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextChoice<'a> {
    text: &'a str,
    index: usize,
    /// How likely each token was, if that was asked for.
    logprobs: Option<&'a TextLogprobs>,
    /// Null in all pieces of a stream but the completion's last.
    finish_reason: Option<TextFinish>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TextFinish {
    /// The model came to its end, or to a stop string.
    Stop,
    /// No more tokens were to be said.
    Length,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TextCompletionObject {
    TextCompletion,
}

impl TextReply {
    pub(crate) fn new(asked: &Asked, engine: &Engine, served: Served) -> Self {
        let request = &asked.request;
        Self {
            id: format!("cmpl-{}", served.id),
            served,
            stream: asked.stream,
            include_usage: asked.include_usage,
            words: request.sampling.logprobs.map(|_| Words::new(engine)),
            choices: (0..request.num_completions).map(|_| Choice::default()).collect(),
        }
    }

    fn completion<'a>(
        &'a self,
        choices: &'a [TextChoice<'a>],
        usage: Option<Option<UsageObject>>,
    ) -> TextCompletion<'a> {
        let Served { created, model, .. } = &self.served;
        let object = TextCompletionObject::TextCompletion;
        TextCompletion { id: &self.id, object, created: *created, model, choices, usage }
    }

    fn choice(&self, index: usize) -> TextChoice<'_> {
        let Choice { text, logprobs, finish_reason, .. } = &self.choices[index];
        let logprobs = self.words.as_ref().map(|_| logprobs);
        TextChoice { text, index, logprobs, finish_reason: *finish_reason }
    }
}

impl Shape for TextReply {
    fn started(&mut self, _prompt_token_ids: &[u32]) {}

    fn token(&mut self, token: Token, out: &mut Vec<u8>) {
        let Token { index, token_id, text, logprobs, finish } = token;
        let choice = &mut self.choices[index];
        if let (Some(words), Some(logprobs)) = (&self.words, &logprobs) {
            choice.logprobs.push(words, token_id, logprobs, choice.num_chars);
        }
        choice.num_chars += text.chars().count();
        choice.text += &text;
        choice.finish_reason = finish.map(|reason| match reason {
            FinishReason::Length => TextFinish::Length,
            _ => TextFinish::Stop,
        });
        if self.stream && (!text.is_empty() || logprobs.is_some() || finish.is_some()) {
            let usage = self.include_usage.then_some(None);
            write_event(out, &self.completion(&[self.choice(index)], usage));
            let choice = &mut self.choices[index];
            choice.text.clear();
            choice.logprobs = TextLogprobs::default();
        }
    }

    fn finished(&mut self, usage: &Usage, out: &mut Vec<u8>) {
        let usage = UsageObject::new(usage, 0);
        if !self.stream {
            let choices: Vec<_> = (0..self.choices.len()).map(|index| self.choice(index)).collect();
            return write(out, &self.completion(&choices, Some(Some(usage))));
        }
        if self.include_usage {
            write_event(out, &self.completion(&[], Some(Some(usage))));
        }
        write_done(out);
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        write_failure(out, error);
    }
}
