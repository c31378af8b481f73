//! An answer as Gemma 4 writes it: reasoning in a channel, calls of tools, text around them.
//!
//! ```text
//! <|channel>thought\n … \n<channel|>            reasoning
//! <|tool_call>call:NAME{key:value,…}<tool_call|>  a call; strings stand between <|"|>, keys are bare
//! ```
//!
//! Models say strange things, and an answer may be cut anywhere. Nothing of its text is lost:
//!
//! - what stands where a call's `call:NAME{` should be is text, and so is what follows a call's last brace;
//! - what cannot be read among a call's arguments is text too, and the arguments stay JSON: the call's end mark closes what is
//!   open, a word that is no JSON is a string;
//! - a call without an end mark has the arguments that were said, which may not be whole.
//!
//! Source: the published template (`reference/README.md` says where it is), read backwards.

mod arguments;
mod grammar;
#[cfg(test)]
mod tests;

use crate::models::answer::{AnswerFormat, AnswerParser, AnswerPiece, CallRules, ReasoningMarks, Tell};
use arguments::Arguments;
use std::sync::Arc;

/// What the model writes before a channel's text, and after it.
const HEADER: &str = "thought\n";
const FOOTER: char = '\n';
/// What stands before a tool's name.
const CALL: &str = "call:";
/// A longer name is none.
const MAX_NAME_BYTES: usize = 256;

/// Gemma 4's [`AnswerFormat`]: the ids of its marks, as far as the vocabulary has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gemma4Answers {
    /// `<|channel>` and `<channel|>`.
    pub channel: Option<[u32; 2]>,
    /// `<|tool_call>` and `<tool_call|>`.
    pub call: Option<[u32; 2]>,
    /// `<|"|>`.
    pub quote: Option<u32>,
    /// `<|turn>` and `<turn|>`: no reasoning goes on behind one.
    pub turn: Option<[u32; 2]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    OpenChannel,
    CloseChannel,
    OpenCall,
    CloseCall,
    Quote,
}

impl Gemma4Answers {
    /// The format of a vocabulary.
    pub fn new(token_to_id: &dyn Fn(&str) -> Option<u32>) -> Self {
        let pair = |open, close| Some([token_to_id(open)?, token_to_id(close)?]);
        Self {
            channel: pair("<|channel>", "<channel|>"),
            call: pair("<|tool_call>", "<tool_call|>"),
            quote: token_to_id("<|\"|>"),
            turn: pair("<|turn>", "<turn|>"),
        }
    }

    fn mark(&self, token_id: u32) -> Option<Mark> {
        let at = |pair: Option<[u32; 2]>| pair?.iter().position(|id| *id == token_id);
        match (at(self.channel), at(self.call)) {
            (Some(0), _) => Some(Mark::OpenChannel),
            (Some(_), _) => Some(Mark::CloseChannel),
            (_, Some(0)) => Some(Mark::OpenCall),
            (_, Some(_)) => Some(Mark::CloseCall),
            _ => (self.quote == Some(token_id)).then_some(Mark::Quote),
        }
    }
}

impl AnswerFormat for Gemma4Answers {
    fn parser(&self, prompt_token_ids: &[u32]) -> Box<dyn AnswerParser> {
        let state = match self.begins_reasoning(prompt_token_ids) {
            // The prompt has the channel's header already, or whatever else its writer wanted.
            true => State::Thought(Thought { header: None, held: false }),
            false => State::Text,
        };
        Box::new(Parser { format: Arc::new(self.clone()), state })
    }

    fn reasoning(&self) -> Option<ReasoningMarks> {
        self.channel.map(|[open, close]| ReasoningMarks { open, close })
    }

    fn begins_reasoning(&self, prompt_token_ids: &[u32]) -> bool {
        let Some([open, close]) = self.channel else { return false };
        let turn = self.turn.unwrap_or([open, close]);
        let ends = |id: &&u32| **id == open || **id == close || turn.contains(id);
        prompt_token_ids.iter().rev().find(ends) == Some(&open)
    }

    fn call_grammar(&self, rules: &CallRules<'_>) -> Option<String> {
        Some(grammar::calls(self.call?, self.quote?, rules))
    }

    fn marks(&self) -> Vec<u32> {
        self.call.into_iter().flatten().chain(self.quote).collect()
    }
}

struct Parser {
    format: Arc<Gemma4Answers>,
    state: State,
}

enum State {
    Text,
    Thought(Thought),
    /// What was said of a call before its first brace.
    Head(String),
    Call(Arguments),
}

/// A channel: what is left of its header, and whether a line break may be its footer.
struct Thought {
    header: Option<&'static str>,
    held: bool,
}

impl AnswerParser for Parser {
    fn push(&mut self, token_id: u32, text: String, tell: Tell<'_>) {
        if !text.is_empty() {
            self.say(text, tell);
        }
        if let Some(mark) = self.format.mark(token_id) {
            self.mark(mark, tell);
        }
    }

    fn finish(&mut self, tell: Tell<'_>) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => {}
            State::Thought(thought) => thought.cut(tell),
            State::Head(head) => tell_text(head, tell),
            State::Call(mut arguments) => {
                arguments.cut();
                arguments.tell(tell);
            }
        }
    }

    fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Thought(_))
    }
}

impl Parser {
    fn say(&mut self, text: String, tell: Tell<'_>) {
        match &mut self.state {
            State::Text => tell(AnswerPiece::Text(text)),
            State::Thought(thought) => thought.push(text, tell),
            State::Head(head) => {
                head.push_str(&text);
                self.read_head(tell);
            }
            State::Call(arguments) => {
                arguments.push(&text);
                arguments.tell(tell);
            }
        }
    }

    /// Looks whether a call has begun, or cannot begin any more.
    fn read_head(&mut self, tell: Tell<'_>) {
        let State::Head(head) = &mut self.state else { return };
        let name = head.strip_prefix(CALL);
        let begun = name.and_then(|name| name.split_once('{'));
        let next = match (name, begun) {
            (_, Some((name, rest))) if is_name(name) => {
                tell(AnswerPiece::Call(name.to_owned()));
                let mut arguments = Arguments::new();
                arguments.push(rest);
                arguments.tell(tell);
                State::Call(arguments)
            }
            (Some(name), None) if name.is_empty() || is_name(name) => return,
            (None, None) if CALL.starts_with(head.as_str()) => return,
            _ => {
                tell_text(std::mem::take(head), tell);
                State::Text
            }
        };
        self.state = next;
    }

    fn mark(&mut self, mark: Mark, tell: Tell<'_>) {
        match (mark, &mut self.state) {
            (Mark::Quote, State::Call(arguments)) => {
                arguments.quote();
                arguments.tell(tell);
            }
            (Mark::OpenChannel, State::Thought(_)) | (Mark::Quote, _) => {}
            (Mark::CloseChannel, State::Thought(_)) | (Mark::CloseCall, State::Head(_) | State::Call(_)) => {
                self.close(tell);
            }
            (Mark::CloseChannel | Mark::CloseCall, _) => {}
            (Mark::OpenChannel, _) => {
                self.close(tell);
                self.state = State::Thought(Thought { header: Some(HEADER), held: false });
            }
            (Mark::OpenCall, _) => {
                self.close(tell);
                self.state = State::Head(String::new());
            }
        }
    }

    /// Ends what a mark has begun.
    fn close(&mut self, tell: Tell<'_>) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => {}
            State::Thought(thought) => thought.close(tell),
            State::Head(head) => tell_text(head, tell),
            State::Call(mut arguments) => {
                arguments.close();
                arguments.tell(tell);
            }
        }
    }
}

impl Thought {
    fn push(&mut self, text: String, tell: Tell<'_>) {
        let mut text = text;
        if let Some(rest) = self.header {
            if let Some(left) = rest.strip_prefix(text.as_str()).filter(|left| !left.is_empty()) {
                self.header = Some(left);
                return;
            }
            self.header = None;
            match text.strip_prefix(rest) {
                Some(thought) => text = thought.to_owned(),
                // Another channel than the one we know: all of it is what the model says to itself.
                None => text.insert_str(0, &HEADER[..HEADER.len() - rest.len()]),
            }
        }
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.held) {
            text.insert(0, FOOTER);
        }
        if text.ends_with(FOOTER) {
            text.pop();
            self.held = true;
        }
        if !text.is_empty() {
            tell(AnswerPiece::Reasoning(text));
        }
    }

    fn close(self, tell: Tell<'_>) {
        let said = self.header.map_or(0, |rest| HEADER.len() - rest.len());
        // A header alone needs no line break behind it.
        if said > 0 && said < HEADER.len() - FOOTER.len_utf8() {
            tell(AnswerPiece::Reasoning(HEADER[..said].to_owned()));
        }
    }

    /// Ends without a mark: a line break was no footer, and a header says that nothing was thought yet.
    fn cut(self, tell: Tell<'_>) {
        if self.held {
            tell(AnswerPiece::Reasoning(FOOTER.to_string()));
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '{' | '}' | '"' | '<' | '>');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(is_part)
}

fn tell_text(text: String, tell: Tell<'_>) {
    if !text.is_empty() {
        tell(AnswerPiece::Text(text));
    }
}
