//! [`Object`]: an object of the body, whose fields are taken one by one; what nobody took is refused by name.
//!
//! A reader is a function from a [`Value`] to what it means. It knows no path: a [`Misfit`] collects its own on the way up,
//! so that reading what is right costs nothing.

use crate::Refusal;
use pyrex_core::Error;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt::Display;

/// What a reader makes of a value.
pub(crate) type Read<T> = Result<T, Misfit>;

/// The most characters of a client's text that a message quotes.
const MAX_QUOTED_CHARS: usize = 64;

/// The fields of an object that nobody has read yet.
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn new(value: Value) -> Read<Self> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(expected(&other, "an object")),
        }
    }

    /// Whether a field is there that is not null, and that nobody has taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field as it stands, unless it is absent or null; it is still to be taken.
    pub(crate) fn peek(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|value| !value.is_null()).cloned()
    }

    /// Reads a field, unless it is absent or null.
    pub(crate) fn take<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Read<T>) -> Read<Option<T>> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).map_err(|misfit| misfit.within(name)),
        }
    }

    /// Reads a field that must be there.
    pub(crate) fn require<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Read<T>) -> Read<T> {
        self.take(name, read)?.ok_or_else(|| Misfit::wrong("is missing").within(name))
    }

    /// Reads a field into `place`, which stays as it is if the field is absent.
    pub(crate) fn set<T>(
        &mut self,
        name: &str,
        place: &mut T,
        read: impl FnOnce(Value) -> Read<T>,
    ) -> Read<()> {
        if let Some(found) = self.take(name, read)? {
            *place = found;
        }
        Ok(())
    }

    /// Refuses what nobody took; `unserved` is a list of [`unserved`](crate::unserved).
    pub(crate) fn finish(self, unserved: &[&str]) -> Read<()> {
        for (name, value) in self.0.into_iter().filter(|(_, value)| !value.is_null()) {
            let mut known = unserved.iter().map(|field| field.split_once(": ").unwrap_or((field, "")));
            match known.find(|(known, _)| *known == name) {
                Some((_, idle)) if serde_json::from_str(idle).is_ok_and(|idle: Value| idle == value) => {}
                Some(_) => return Err(Misfit::new(Wrong::UnsupportedField).within(&name)),
                None => return Err(Misfit::new(Wrong::UnknownField).within(&name)),
            }
        }
        Ok(())
    }
}

/// What is wrong with a value, and the path to it from where it has come up to.
#[derive(Debug)]
pub(crate) struct Misfit {
    path: String,
    wrong: Wrong,
}

#[derive(Debug)]
enum Wrong {
    Value(String),
    UnsupportedValue(String),
    UnknownField,
    UnsupportedField,
    Error(Error),
}

impl Misfit {
    fn new(wrong: Wrong) -> Self {
        Self { path: String::new(), wrong }
    }

    /// A value that is none of what was expected: `what` goes on from its path.
    pub(crate) fn wrong(what: impl Display) -> Self {
        Self::new(Wrong::Value(what.to_string()))
    }

    /// A value that others serve.
    pub(crate) fn unsupported(what: impl Display) -> Self {
        Self::new(Wrong::UnsupportedValue(what.to_string()))
    }

    /// The same misfit, seen from the object whose field `name` it is in.
    pub(crate) fn within(mut self, name: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{}{joint}{}", clip(name), self.path);
        self
    }

    /// The same misfit, seen from the list whose item it is in.
    pub(crate) fn within_item(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }
}

/// What went wrong while a value was looked at, beside what is wrong with it.
impl From<Error> for Misfit {
    fn from(error: Error) -> Self {
        Self::new(Wrong::Error(error))
    }
}

impl From<Misfit> for Refusal {
    fn from(misfit: Misfit) -> Self {
        let path = misfit.path.clone();
        Self::new(misfit.into(), (!path.is_empty()).then_some(path))
    }
}

impl From<Misfit> for Error {
    fn from(Misfit { path, wrong }: Misfit) -> Self {
        let at = if path.is_empty() { "the body".to_owned() } else { format!("{path}:") };
        match wrong {
            Wrong::Value(what) => Self::invalid_request(format_args!("{at} {what}")),
            Wrong::UnsupportedValue(what) => Self::unsupported(format_args!("{at} {what}")),
            Wrong::UnknownField => Self::invalid_request(format_args!("unknown field `{path}`")),
            Wrong::Error(error) if path.is_empty() => error,
            Wrong::Error(error) => error.context(path),
            Wrong::UnsupportedField => Self::unsupported(format_args!("`{path}` is not supported")),
        }
    }
}

/// A value of another type than the one that was expected.
pub(crate) fn expected(found: &Value, what: &str) -> Misfit {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Misfit::wrong(format_args!("is {kind}, expected {what}"))
}

pub(crate) fn text(value: Value) -> Read<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(expected(&other, "a string")),
    }
}

pub(crate) fn flag(value: Value) -> Read<bool> {
    value.as_bool().ok_or_else(|| expected(&value, "a boolean"))
}

pub(crate) fn object(value: Value) -> Read<Map<String, Value>> {
    Object::new(value).map(|object| object.0)
}

pub(crate) fn list<T>(value: Value, read: impl Fn(Value) -> Read<T>) -> Read<Vec<T>> {
    let Value::Array(items) = value else { return Err(expected(&value, "a list")) };
    let read_item = |(index, item)| read(item).map_err(|misfit: Misfit| misfit.within_item(index));
    items.into_iter().enumerate().map(read_item).collect()
}

/// A number that an f32 can hold.
pub(crate) fn number(value: Value) -> Read<f32> {
    let Value::Number(found) = &value else { return Err(expected(&value, "a number")) };
    let narrow = found.as_f64().map(|wide| wide as f32).filter(|narrow| narrow.is_finite());
    narrow.ok_or_else(|| Misfit::wrong(format_args!("is {found}, expected a number of 32 bits")))
}

/// A number without a fraction; `what` says of which range.
pub(crate) fn whole<T: TryFrom<i128>>(value: Value, what: &str) -> Read<T> {
    let Value::Number(found) = &value else { return Err(expected(&value, what)) };
    let fitting = found.as_i128().and_then(|whole| T::try_from(whole).ok());
    fitting.ok_or_else(|| Misfit::wrong(format_args!("is {found}, expected {what}")))
}

pub(crate) fn count(value: Value) -> Read<usize> {
    whole(value, "a whole number of at least 0")
}

pub(crate) fn token_id(value: Value) -> Read<u32> {
    whole(value, "a token id")
}

/// One of `names`; of `unserved` others can make something.
pub(crate) fn one_of(value: Value, names: &[&str], unserved: &[&str]) -> Read<String> {
    let word = text(value)?;
    if names.contains(&word.as_str()) {
        return Ok(word);
    }
    let (found, names) = (clip(&word), alternatives(names));
    match unserved.contains(&word.as_str()) {
        true => Err(Misfit::unsupported(format_args!("{found:?} is not supported, expected {names}"))),
        false => Err(Misfit::wrong(format_args!("is {found:?}, expected {names}"))),
    }
}

fn alternatives(names: &[&str]) -> String {
    match names {
        [firsts @ .., last] if !firsts.is_empty() => format!("{} or {last}", firsts.join(", ")),
        _ => names.concat(),
    }
}

/// A client's text as far as a message quotes it.
pub(crate) fn clip(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}
