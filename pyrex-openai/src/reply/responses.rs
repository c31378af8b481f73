//! The shape of `/v1/responses`: items, and in a stream the events of their growth.

mod event;
mod object;

pub(crate) use event::ResponseEvent;
pub(crate) use object::ResponseObject;

use super::speech::Speech;
use super::{Served, Shape, Token, write};
use crate::Asked;
use crate::responses::Echo;
use event::Part;
use object::{Failure, Incomplete, Item, ResponseUsage, Status};
use pyrex_core::{AnswerPiece, Engine, Error, FinishReason, SamplingParams, Usage};
use std::mem::take;

/// The answer of `/v1/responses`.
pub(crate) struct ResponsesReply {
    speech: Speech,
    response: Response,
    finish: Option<FinishReason>,
}

/// What every response repeats, and what was said so far.
struct Response {
    id: String,
    served: Served,
    echo: Box<Echo>,
    sampling: SamplingParams,
    one_call: bool,
    user: Option<String>,
    stream: bool,
    num_events: u64,
    items: Vec<Item>,
    is_open: bool,
}

impl ResponsesReply {
    pub(crate) fn new(asked: &Asked, echo: Box<Echo>, engine: &Engine, served: Served) -> Self {
        let response = Response {
            id: format!("resp_{}", served.id),
            served,
            echo,
            sampling: asked.request.sampling.clone(),
            one_call: asked.wishes.one_call,
            user: asked.user.clone(),
            stream: asked.stream,
            num_events: 0,
            items: Vec::new(),
            is_open: false,
        };
        Self { speech: Speech::new(&engine.answer_format()), response, finish: None }
    }
}

impl Shape for ResponsesReply {
    fn started(&mut self, prompt_token_ids: &[u32]) {
        self.speech.started(prompt_token_ids);
    }

    fn token(&mut self, mut token: Token, out: &mut Vec<u8>) {
        let Self { speech, response, finish } = self;
        if response.num_events == 0 {
            response.tell(out, |response, sequence_number| ResponseEvent::Created {
                sequence_number,
                response: response.object(Status::InProgress, None),
            });
            response.tell(out, |response, sequence_number| ResponseEvent::InProgress {
                sequence_number,
                response: response.object(Status::InProgress, None),
            });
        }
        *finish = token.finish;
        speech.push(&mut token, &mut |piece| response.take(piece, out));
    }

    fn finished(&mut self, usage: &Usage, out: &mut Vec<u8>) {
        let usage = ResponseUsage::new(usage, self.speech.num_reasoning_tokens());
        let response = &mut self.response;
        let status = match self.finish {
            Some(FinishReason::Length) => Status::Incomplete,
            _ => Status::Completed,
        };
        response.close(status, out);
        if !response.stream {
            return write(out, &response.object(status, Some(usage)));
        }
        response.tell(out, |response, sequence_number| {
            let response = response.object(status, Some(usage));
            match status {
                Status::Incomplete => ResponseEvent::Incomplete { sequence_number, response },
                _ => ResponseEvent::Completed { sequence_number, response },
            }
        });
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        let response = &mut self.response;
        response.close(Status::Incomplete, out);
        response.tell(out, |response, sequence_number| {
            let mut failed = response.object(Status::Failed, None);
            failed.error = Some(Failure::new(error));
            ResponseEvent::Failed { sequence_number, response: failed }
        });
    }
}

impl Response {
    /// Writes the next event, if this is a stream.
    fn tell<'a>(&'a mut self, out: &mut Vec<u8>, event: impl FnOnce(&'a Self, u64) -> ResponseEvent<'a>) {
        if self.stream {
            self.num_events += 1;
            let sequence_number = self.num_events - 1;
            event(self, sequence_number).write(out);
        }
    }

    fn object(&self, status: Status, usage: Option<ResponseUsage>) -> ResponseObject<'_> {
        let mut object = ResponseObject::new(self, status);
        object.usage = usage;
        object.incomplete_details = (status == Status::Incomplete).then(Incomplete::max_output_tokens);
        object
    }

    fn take(&mut self, piece: AnswerPiece, out: &mut Vec<u8>) {
        match piece {
            AnswerPiece::Call(name) => {
                let (id, call_id) = (self.item_id("fc"), self.item_id("call"));
                self.open(Item::call(id, call_id, name), out);
            }
            AnswerPiece::Arguments(json) => self.grow(&json, out),
            AnswerPiece::Text(text) => {
                if !matches!(self.last(), Some(Item::Message { .. })) {
                    self.open(Item::message(self.item_id("msg")), out);
                }
                self.grow(&text, out);
            }
            AnswerPiece::Reasoning(text) => {
                if !matches!(self.last(), Some(Item::Reasoning { .. })) {
                    self.open(Item::reasoning(self.item_id("rs")), out);
                }
                self.grow(&text, out);
            }
        }
    }

    /// The item that grows.
    fn last(&self) -> Option<&Item> {
        self.items.last().filter(|_| self.is_open)
    }

    /// The id of the next item.
    fn item_id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.served.id, self.items.len())
    }

    fn open(&mut self, item: Item, out: &mut Vec<u8>) {
        self.close(Status::Completed, out);
        self.items.push(item);
        self.is_open = true;
        let output_index = self.items.len() - 1;
        self.tell(out, |response, sequence_number| ResponseEvent::OutputItemAdded {
            sequence_number,
            output_index,
            item: &response.items[output_index],
        });
        if let Some(part) = self.items[output_index].begin_part() {
            self.tell(out, |response, sequence_number| ResponseEvent::ContentPartAdded {
                sequence_number,
                item_id: response.items[output_index].id(),
                output_index,
                content_index: 0,
                part,
            });
        }
    }

    fn grow(&mut self, delta: &str, out: &mut Vec<u8>) {
        let Some(item) = self.items.last_mut() else { return };
        item.push(delta);
        let output_index = self.items.len() - 1;
        if !self.stream {
            return;
        }
        self.num_events += 1;
        let sequence_number = self.num_events - 1;
        self.items[output_index].delta(sequence_number, output_index, delta).write(out);
    }

    /// Ends the item that grows, if there is one.
    fn close(&mut self, status: Status, out: &mut Vec<u8>) {
        if !take(&mut self.is_open) {
            return;
        }
        let output_index = self.items.len() - 1;
        self.items[output_index].set_status(status);
        self.tell(out, |response, sequence_number| {
            response.items[output_index].done(sequence_number, output_index)
        });
        if self.items[output_index].begin_part().is_some() {
            self.tell(out, |response, sequence_number| ResponseEvent::ContentPartDone {
                sequence_number,
                item_id: response.items[output_index].id(),
                output_index,
                content_index: 0,
                part: Part::of(&response.items[output_index]),
            });
        }
        self.tell(out, |response, sequence_number| ResponseEvent::OutputItemDone {
            sequence_number,
            output_index,
            item: &response.items[output_index],
        });
    }
}
