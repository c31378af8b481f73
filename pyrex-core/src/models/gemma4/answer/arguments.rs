//! [`Arguments`]: the arguments of a call, from Gemma 4's spelling to JSON, as they come.

use crate::models::answer::{AnswerPiece, Tell};
use serde_json::Value;

/// The arguments of one call behind their first brace.
pub(super) struct Arguments {
    open: Vec<Open>,
    place: Place,
    /// A key, a number or a word as far as it was said.
    word: String,
    json: String,
    /// What is no part of the arguments.
    stray: String,
}

/// An object or a list whose end has not come.
#[derive(Clone, Copy)]
struct Open {
    close: char,
    num_items: usize,
}

/// Where the next character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Key,
    QuotedKey,
    Value,
    Text,
    Behind,
    Done,
    /// Behind what follows the last brace.
    Beyond,
}

impl Arguments {
    pub(super) fn new() -> Self {
        let mut arguments = Self {
            open: Vec::new(),
            place: Place::Value,
            word: String::new(),
            json: String::new(),
            stray: String::new(),
        };
        arguments.begin('{', '}');
        arguments
    }

    /// Takes more of what stands between two marks.
    pub(super) fn push(&mut self, text: &str) {
        match self.place {
            Place::Text => push_escaped(&mut self.json, text),
            Place::QuotedKey => self.word.push_str(text),
            _ => text.chars().for_each(|c| self.take(c)),
        }
    }

    /// Takes the mark that stands around strings.
    pub(super) fn quote(&mut self) {
        match self.place {
            Place::Text => {
                self.json.push('"');
                self.place = Place::Behind;
            }
            Place::QuotedKey => self.place = Place::Key,
            Place::Key => self.place = Place::QuotedKey,
            Place::Done | Place::Beyond => {}
            Place::Behind if self.is_list() => self.begin_text(),
            Place::Behind => self.place = Place::QuotedKey,
            Place::Value => {
                self.stray += &std::mem::take(&mut self.word);
                self.begin_text();
            }
        }
    }

    /// Takes the end of the call: whatever is open is closed.
    pub(super) fn close(&mut self) {
        if self.place == Place::Text {
            self.json.push('"');
            self.place = Place::Behind;
        }
        while !self.open.is_empty() {
            self.end();
        }
    }

    /// Takes the end of an answer in the middle of a call: what was said is told as it is.
    pub(super) fn cut(&mut self) {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        match self.place {
            Place::Key | Place::QuotedKey => {
                self.separate();
                self.json.push('"');
                push_escaped(&mut self.json, &word);
            }
            _ => {
                self.separate_in_list();
                self.json += &word;
            }
        }
    }

    /// Tells what has come of it since the last time.
    pub(super) fn tell(&mut self, tell: Tell<'_>) {
        if !self.json.is_empty() {
            tell(AnswerPiece::Arguments(std::mem::take(&mut self.json)));
        }
        if !self.stray.is_empty() {
            tell(AnswerPiece::Text(std::mem::take(&mut self.stray)));
        }
    }

    fn take(&mut self, c: char) {
        let is_start = self.word.is_empty();
        match (self.place, c) {
            (Place::Done, c) if c.is_whitespace() => {}
            (Place::Done | Place::Beyond, c) => {
                self.place = Place::Beyond;
                self.stray.push(c);
            }
            (Place::Key | Place::Value, c) if is_start && c.is_whitespace() => {}
            (Place::Behind, c) if c.is_whitespace() => {}
            (Place::Value, '{') if is_start => self.begin('{', '}'),
            (Place::Value, '[') if is_start => self.begin('[', ']'),
            (Place::Key, ':') => self.end_key(),
            (_, ',') => self.end_item(),
            (_, '}' | ']') => self.end(),
            (Place::Key | Place::Value, c) => self.word.push(c),
            (_, c) => self.stray.push(c),
        }
    }

    fn begin(&mut self, open: char, close: char) {
        self.separate_in_list();
        self.json.push(open);
        self.open.push(Open { close, num_items: 0 });
        self.place = if close == ']' { Place::Value } else { Place::Key };
    }

    fn begin_text(&mut self) {
        self.separate_in_list();
        self.json.push('"');
        self.place = Place::Text;
    }

    /// Ends the innermost object or list, whichever it is.
    fn end(&mut self) {
        self.end_item();
        if let Some(Open { close, .. }) = self.open.pop() {
            self.json.push(close);
        }
        self.place = if self.open.is_empty() { Place::Done } else { Place::Behind };
    }

    fn end_key(&mut self) {
        let key = std::mem::take(&mut self.word);
        self.separate();
        self.json.push('"');
        push_escaped(&mut self.json, key.trim_end());
        self.json += "\":";
        self.place = Place::Value;
    }

    /// Ends an item of the innermost object or list, at a comma or at its end.
    fn end_item(&mut self) {
        match self.place {
            Place::Key | Place::QuotedKey if !self.word.is_empty() => {
                self.end_key();
                self.json += "null";
            }
            // A key without a value; in a list, nothing at all.
            Place::Value if self.word.is_empty() && self.is_list() => {}
            Place::Value if self.word.is_empty() => self.json += "null",
            Place::Value => self.end_word(),
            _ => {}
        }
        self.place = if self.is_list() { Place::Value } else { Place::Key };
    }

    /// A number, `true`, `false` or `null`; any other word is a string without its marks.
    fn end_word(&mut self) {
        self.separate_in_list();
        let word = std::mem::take(&mut self.word);
        let word = word.trim_end();
        match serde_json::from_str::<Value>(word) {
            Ok(Value::Number(_) | Value::Bool(_) | Value::Null) => self.json += word,
            _ => {
                self.json.push('"');
                push_escaped(&mut self.json, word);
                self.json.push('"');
            }
        }
    }

    fn is_list(&self) -> bool {
        self.open.last().is_some_and(|open| open.close == ']')
    }

    /// Begins an item: all but the first have a comma before them.
    fn separate(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.num_items += 1;
            if open.num_items > 1 {
                self.json.push(',');
            }
        }
    }

    /// In an object the comma stands before the key.
    fn separate_in_list(&mut self) {
        if self.is_list() {
            self.separate();
        }
    }
}

/// Appends text as it stands in a JSON string.
fn push_escaped(json: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if c.is_ascii_control() && c != '\u{7f}' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
}
