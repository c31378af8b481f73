//! The shape of `/v1/chat/completions`.

use super::logprobs::{ChatLogprobs, Words};
use super::usage::UsageObject;
use super::{Served, Shape, Token, write, write_done, write_event, write_failure};
use crate::Asked;
use pyrex_core::{Engine, Error, FinishReason, Usage};
use serde::Serialize;

/// The answer of `/v1/chat/completions`.
pub(crate) struct ChatReply {
    head: Head,
    stream: bool,
    words: Option<Words>,
    choices: Vec<Choice>,
}

/// What every piece of a stream begins with.
struct Head {
    id: String,
    served: Served,
    include_usage: bool,
}

/// One completion so far.
#[derive(Default)]
struct Choice {
    began: bool,
    text: String,
    logprobs: ChatLogprobs,
    finish: Option<FinishReason>,
}

#[derive(Serialize)]
struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChatChoice<'a>>,
    usage: UsageObject,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: usize,
    message: AnswerMessage<'a>,
    logprobs: Option<&'a ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct AnswerMessage<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
}

#[derive(Serialize)]
struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<&'a ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl ChatReply {
    pub(crate) fn new(asked: &Asked, engine: &Engine, served: Served) -> Self {
        let request = &asked.request;
        Self {
            head: Head { id: format!("chatcmpl-{}", served.id), served, include_usage: asked.include_usage },
            stream: asked.stream,
            words: request.sampling.logprobs.map(|_| Words::new(engine)),
            choices: (0..request.num_completions).map(|_| Choice::default()).collect(),
        }
    }
}

impl Head {
    fn chunk<'a>(&'a self, choices: &'a [ChunkChoice<'a>], usage: Option<UsageObject>) -> ChatChunk<'a> {
        let Served { created, model, .. } = &self.served;
        let usage = self.include_usage.then_some(usage);
        let object = "chat.completion.chunk";
        ChatChunk { id: &self.id, object, created: *created, model, choices, usage }
    }

    fn write(&self, index: usize, delta: Delta<'_>, out: &mut Vec<u8>) {
        let choice = ChunkChoice { index, delta, logprobs: None, finish_reason: None };
        write_event(out, &self.chunk(&[choice], None));
    }
}

impl Shape for ChatReply {
    fn started(&mut self, _prompt_token_ids: &[u32]) {}

    fn token(&mut self, token: Token, out: &mut Vec<u8>) {
        let Token { index, token_id, text, logprobs, finish } = token;
        let choice = &mut self.choices[index];
        choice.finish = finish;
        if let (Some(words), Some(logprobs)) = (&self.words, &logprobs) {
            choice.logprobs.push(words, token_id, logprobs);
        }
        if !self.stream {
            choice.text += &text;
            return;
        }
        if !std::mem::replace(&mut choice.began, true) {
            self.head.write(index, Delta { role: Some("assistant"), content: Some("") }, out);
        }
        let finish_reason = finish.map(FinishReason::name);
        if !text.is_empty() || logprobs.is_some() {
            let delta = Delta { role: None, content: Some(&text) };
            let logprobs = self.words.as_ref().map(|_| &choice.logprobs);
            let said = ChunkChoice { index, delta, logprobs, finish_reason: None };
            write_event(out, &self.head.chunk(&[said], None));
            choice.logprobs = ChatLogprobs::default();
        }
        if finish.is_some() {
            let last = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
            write_event(out, &self.head.chunk(&[last], None));
        }
    }

    fn finished(&mut self, usage: &Usage, out: &mut Vec<u8>) {
        let usage = UsageObject::new(usage, 0);
        if self.stream {
            if self.head.include_usage {
                write_event(out, &self.head.chunk(&[], Some(usage)));
            }
            return write_done(out);
        }
        let choices = self.choices.iter().enumerate().map(|(index, choice)| ChatChoice {
            index,
            message: AnswerMessage { role: "assistant", content: Some(&choice.text), refusal: None },
            logprobs: self.words.as_ref().map(|_| &choice.logprobs),
            finish_reason: choice.finish.map(FinishReason::name),
        });
        let Served { created, model, .. } = &self.head.served;
        let (id, object, choices) = (&*self.head.id, "chat.completion", choices.collect());
        write(out, &ChatCompletion { id, object, created: *created, model, choices, usage });
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        write_failure(out, error);
    }
}
