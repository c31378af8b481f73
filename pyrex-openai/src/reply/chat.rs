//! The shape of `/v1/chat/completions`.

use super::logprobs::{ChatLogprobs, Words};
use super::speech::Speech;
use super::usage::UsageObject;
use super::{Served, Shape, Token, write, write_done, write_event, write_failure};
use crate::Asked;
use pyrex_core::{AnswerPiece, Engine, Error, FinishReason, Usage};
use serde::Serialize;
use std::mem::take;
use utoipa::ToSchema;

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
struct Choice {
    speech: Speech,
    said: Said,
}

/// What was said, or how much of it was streamed.
#[derive(Default)]
struct Said {
    index: usize,
    began: bool,
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    num_calls: usize,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<ChatFinish>,
}

/// A conversation's answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatCompletion<'a> {
    /// Names the answer.
    id: &'a str,
    #[schema(inline)]
    object: ChatCompletionObject,
    /// When it was asked, in seconds since 1970.
    created: u64,
    /// The model that answers.
    model: &'a str,
    /// As many as were asked for.
    choices: Vec<ChatChoice<'a>>,
    usage: UsageObject,
}

/// One answer of a conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChoice<'a> {
    index: usize,
    message: AnswerMessage<'a>,
    /// How likely each token was, if that was asked for.
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<ChatFinish>,
}

/// What the model said.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnswerMessage<'a> {
    #[schema(inline)]
    role: AssistantRole,
    /// Null if it only called tools.
    content: Option<&'a str>,
    /// Always null: a model's refusal is text.
    refusal: Option<&'a str>,
    /// What it said to itself before, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    /// The tools it called, if it did.
    #[serde(skip_serializing_if = "<[ToolCall]>::is_empty")]
    tool_calls: &'a [ToolCall],
}

/// A call of a tool.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolCall {
    id: String,
    #[schema(inline)]
    r#type: FunctionType,
    function: CalledFunction,
}

/// What is called.
#[derive(Serialize, ToSchema)]
pub(crate) struct CalledFunction {
    name: String,
    /// A JSON object; what was said of it if the answer was cut off.
    arguments: String,
}

/// A piece of a streamed answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChunk<'a> {
    /// Names the answer.
    id: &'a str,
    #[schema(inline)]
    object: ChatChunkObject,
    /// When it was asked, in seconds since 1970.
    created: u64,
    /// The model that answers.
    model: &'a str,
    /// Of which completion it is more; none in the piece that has the usage.
    choices: &'a [ChunkChoice<'a>],
    /// There if `stream_options.include_usage` is true, and null in all pieces but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    usage: Option<Option<UsageObject>>,
}

/// More of one completion.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs>,
    /// Null in all pieces but the completion's last.
    finish_reason: Option<ChatFinish>,
}

/// What is added.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    role: Option<AssistantRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

/// More of a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallDelta<'a> {
    /// Which of the answer's calls.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    r#type: Option<FunctionType>,
    function: FunctionDelta<'a>,
}

/// A name, or more of the arguments.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// Why an answer ended.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChatFinish {
    /// The model came to its end, or to a stop string.
    Stop,
    /// No more tokens were to be said.
    Length,
    /// The model waits for what its calls bring.
    ToolCalls,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) enum ChatCompletionObject {
    #[serde(rename = "chat.completion")]
    ChatCompletion,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) enum ChatChunkObject {
    #[serde(rename = "chat.completion.chunk")]
    ChatCompletionChunk,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssistantRole {
    Assistant,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FunctionType {
    Function,
}

impl ChatReply {
    pub(crate) fn new(asked: &Asked, engine: &Engine, served: Served) -> Self {
        let request = &asked.request;
        let format = engine.answer_format();
        let choice = |index| Choice { speech: Speech::new(&format), said: Said { index, ..Said::default() } };
        Self {
            head: Head { id: format!("chatcmpl-{}", served.id), served, include_usage: asked.include_usage },
            stream: asked.stream,
            words: request.sampling.logprobs.map(|_| Words::new(engine)),
            choices: (0..request.num_completions).map(choice).collect(),
        }
    }
}

impl Head {
    fn chunk<'a>(&'a self, choices: &'a [ChunkChoice<'a>], usage: Option<UsageObject>) -> ChatChunk<'a> {
        let Served { created, model, .. } = &self.served;
        ChatChunk {
            id: &self.id,
            object: ChatChunkObject::ChatCompletionChunk,
            created: *created,
            model,
            choices,
            usage: self.include_usage.then_some(usage),
        }
    }

    fn call_id(&self, index: usize, call_index: usize) -> String {
        format!("call_{}_{index}_{call_index}", self.served.id)
    }
}

impl Said {
    /// Keeps a piece.
    fn keep(&mut self, head: &Head, piece: AnswerPiece) {
        match piece {
            AnswerPiece::Text(text) => self.text += &text,
            AnswerPiece::Reasoning(text) => self.reasoning += &text,
            AnswerPiece::Call(name) => {
                let function = CalledFunction { name, arguments: String::new() };
                let id = head.call_id(self.index, self.num_calls);
                self.calls.push(ToolCall { id, r#type: FunctionType::Function, function });
                self.num_calls += 1;
            }
            AnswerPiece::Arguments(json) => {
                if let Some(call) = self.calls.last_mut() {
                    call.function.arguments += &json;
                }
            }
        }
    }

    /// Writes a piece.
    fn stream(&mut self, head: &Head, piece: &AnswerPiece, out: &mut Vec<u8>) {
        let nothing = Delta::default();
        let delta = match piece {
            AnswerPiece::Text(text) => Delta { content: Some(text), ..nothing },
            AnswerPiece::Reasoning(text) => Delta { reasoning_content: Some(text), ..nothing },
            AnswerPiece::Call(name) => {
                self.num_calls += 1;
                let function = FunctionDelta { name: Some(name), arguments: "" };
                let id = head.call_id(self.index, self.num_calls - 1);
                Delta { tool_calls: Some([self.call(Some(id), function)]), ..nothing }
            }
            AnswerPiece::Arguments(json) => {
                let function = FunctionDelta { name: None, arguments: json };
                Delta { tool_calls: Some([self.call(None, function)]), ..nothing }
            }
        };
        self.write(head, delta, out);
    }

    fn call<'a>(&self, id: Option<String>, function: FunctionDelta<'a>) -> CallDelta<'a> {
        let r#type = id.is_some().then_some(FunctionType::Function);
        CallDelta { index: self.num_calls.saturating_sub(1), id, r#type, function }
    }

    /// Writes more of this completion, and with it how likely the present token was.
    fn write(&mut self, head: &Head, delta: Delta<'_>, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.began, true) {
            let role = Delta { role: Some(AssistantRole::Assistant), content: Some(""), ..Delta::default() };
            let first = ChunkChoice { index: self.index, delta: role, logprobs: None, finish_reason: None };
            write_event(out, &head.chunk(&[first], None));
        }
        let logprobs = self.logprobs.take();
        let more = ChunkChoice { index: self.index, delta, logprobs, finish_reason: self.finish_reason };
        write_event(out, &head.chunk(&[more], None));
    }

    fn finish(&self, reason: FinishReason) -> ChatFinish {
        match reason {
            FinishReason::Length => ChatFinish::Length,
            _ if self.num_calls > 0 => ChatFinish::ToolCalls,
            _ => ChatFinish::Stop,
        }
    }

    fn message(&self) -> AnswerMessage<'_> {
        let only_calls = self.text.is_empty() && !self.calls.is_empty();
        AnswerMessage {
            role: AssistantRole::Assistant,
            content: (!only_calls).then_some(&self.text),
            refusal: None,
            reasoning_content: (!self.reasoning.is_empty()).then_some(&self.reasoning),
            tool_calls: &self.calls,
        }
    }
}

impl Shape for ChatReply {
    fn started(&mut self, prompt_token_ids: &[u32]) {
        self.choices.iter_mut().for_each(|choice| choice.speech.started(prompt_token_ids));
    }

    fn token(&mut self, mut token: Token, out: &mut Vec<u8>) {
        let Self { head, stream, words, choices } = self;
        let Choice { speech, said } = &mut choices[token.index];
        if let (Some(words), Some(logprobs)) = (words, &token.logprobs) {
            said.logprobs.get_or_insert_default().push(words, token.token_id, logprobs);
        }
        if !*stream {
            speech.push(&mut token, &mut |piece| said.keep(head, piece));
            said.finish_reason = token.finish.map(|reason| said.finish(reason));
            return;
        }
        speech.push(&mut token, &mut |piece| said.stream(head, &piece, out));
        if said.logprobs.is_some() {
            said.write(head, Delta { content: Some(""), ..Delta::default() }, out);
        }
        if let Some(reason) = token.finish {
            said.finish_reason = Some(said.finish(reason));
            said.write(head, Delta::default(), out);
        }
    }

    fn finished(&mut self, usage: &Usage, out: &mut Vec<u8>) {
        let reasoning = self.choices.iter().map(|choice| choice.speech.num_reasoning_tokens()).sum();
        let usage = UsageObject::new(usage, reasoning);
        if self.stream {
            if self.head.include_usage {
                write_event(out, &self.head.chunk(&[], Some(usage)));
            }
            return write_done(out);
        }
        let logprobs: Vec<_> =
            self.choices.iter_mut().map(|choice| take(&mut choice.said.logprobs)).collect();
        let choices = self.choices.iter().zip(logprobs).map(|(Choice { said, .. }, logprobs)| ChatChoice {
            index: said.index,
            message: said.message(),
            logprobs,
            finish_reason: said.finish_reason,
        });
        let Served { created, model, .. } = &self.head.served;
        let whole = ChatCompletion {
            id: &self.head.id,
            object: ChatCompletionObject::ChatCompletion,
            created: *created,
            model,
            choices: choices.collect(),
            usage,
        };
        write(out, &whole);
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        write_failure(out, error);
    }
}
