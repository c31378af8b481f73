//! The turns of a conversation.

use crate::image::{Fetch, picture};
use crate::object::{Misfit, Object, Read, expected, list, one_of, text};
use crate::tools::calls;
use crate::unserved;
use pyrex_core::{Content, Message, Part};
use serde_json::{Map, Value};

/// A field that the chat template reads, and how to read it.
type Known = (&'static str, fn(Value) -> Read<Value>);

/// Reads `messages`.
pub(crate) fn messages(value: Value, fetch: Fetch<'_>) -> Read<Vec<Message>> {
    let messages = list(value, |value| message(value, fetch))?;
    match messages.is_empty() {
        true => Err(Misfit::wrong("is an empty list, expected at least one message")),
        false => Ok(messages),
    }
}

fn message(value: Value, fetch: Fetch<'_>) -> Read<Message> {
    let mut message = Object::new(value)?;
    let roles = ["system", "developer", "user", "assistant", "tool"];
    let role = message.require("role", |role| one_of(role, &roles, &["function"]))?;
    let read = |value| content(value, fetch);
    let content = match role.as_str() {
        "assistant" => message.take("content", read)?.unwrap_or(Content::Nothing),
        _ => message.require("content", read)?,
    };
    let known: &[Known] = match role.as_str() {
        "assistant" => &[("name", string), ("reasoning_content", string), ("tool_calls", calls)],
        "tool" => &[("name", string), ("tool_call_id", string)],
        _ => &[("name", string)],
    };
    let mut fields = Map::new();
    for (name, read) in known {
        if let Some(field) = message.take(name, read)? {
            fields.insert((*name).to_owned(), field);
        }
    }
    message.finish(unserved::MESSAGE)?;
    Ok(Message { role, content, fields })
}

fn string(value: Value) -> Read<Value> {
    text(value).map(Value::String)
}

fn content(value: Value, fetch: Fetch<'_>) -> Read<Content> {
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(_) => list(value, |value| part(value, fetch)).map(Content::Parts),
        other => Err(expected(&other, "a string or a list of parts")),
    }
}

fn part(value: Value, fetch: Fetch<'_>) -> Read<Part> {
    let unserved = ["input_audio", "file", "refusal", "audio_url", "video_url", "image_embeds"];
    let mut part = Object::new(value)?;
    let kind = part.require("type", |kind| one_of(kind, &["text", "image_url"], &unserved))?;
    let read = match kind.as_str() {
        "text" => Part::Text(part.require("text", text)?),
        _ => Part::Image(part.require("image_url", |image| picture(image, fetch))?),
    };
    part.finish(&[])?;
    Ok(read)
}
