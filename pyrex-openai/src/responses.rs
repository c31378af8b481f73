//! The body of `/v1/responses`: items in, and what of the body comes back with the answer.

use crate::body::{effort, service};
use crate::format::text_format;
use crate::image::{Fetch, detail, load};
use crate::object::{Misfit, Object, Read, count, expected, flag, list, one_of, text};
use crate::sampling::params;
use crate::tools::{self, called, choice, choose, described};
use crate::wishes::{Choice, Wishes};
use crate::{Asked, Context, Endpoint, unserved};
use pyrex_core::{Chat, Constraint, Content, Message, Part, Request};
use serde_json::{Map, Value, json};

/// What a response repeats of its body.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pub(crate) instructions: Option<String>,
    pub(crate) tools: Vec<Value>,
    pub(crate) tool_choice: Value,
    pub(crate) text: Value,
    pub(crate) effort: Option<String>,
}

/// What the body asks.
pub(crate) fn asked(mut body: Object, context: &Context<'_>) -> Read<Asked> {
    let mut sampling = params(&mut body, context.defaults)?;
    sampling.max_tokens = body.take("max_output_tokens", count)?.or(sampling.max_tokens);
    let mut wishes = Wishes::default();
    let text_field = body.peek("text").unwrap_or_else(|| json!({"format": {"type": "text"}}));
    let mut echo = Echo {
        instructions: body.take("instructions", text)?,
        tools: Vec::new(),
        tool_choice: body.peek("tool_choice").unwrap_or_else(|| "auto".into()),
        text: text_field,
        effort: None,
    };
    let tools = take_tools(&mut body, &mut wishes, &mut echo)?;
    let mut chat =
        Chat { messages: messages(&mut body, &echo, context.fetch)?, tools, variables: Map::new() };
    if let Some(effort) = body.take("reasoning", reasoning)?.flatten() {
        let thinks = self::effort(effort.as_str().into())?;
        chat.variables.insert("enable_thinking".to_owned(), thinks.into());
        wishes.effort = thinks.then_some("reasoning.effort");
        echo.effort = Some(effort);
    }
    wishes.budget = body.take("thinking_token_budget", count)?;
    let mut request = Request::new(chat).with_sampling(sampling);
    if let Some(grammar) = body.take("text", text_format)?.flatten() {
        wishes.format = Some("text.format");
        request.constraint = Some(Constraint::Grammar(grammar));
    }
    let priority = service(&mut request, &mut body)?;
    let stream = body.take("stream", flag)?.unwrap_or(false);
    body.take("stream_options", |options| Object::new(options)?.finish(&["include_obfuscation: false"]))?;
    let asked = Asked {
        request,
        model: body.take("model", text)?,
        stream,
        include_usage: true,
        priority,
        user: body.take("user", text)?,
        endpoint: Endpoint::Responses,
        wishes,
        echo: Some(Box::new(echo)),
    };
    body.finish(unserved::RESPONSE)?;
    Ok(asked)
}

fn messages(body: &mut Object, echo: &Echo, fetch: Fetch<'_>) -> Read<Vec<Message>> {
    let mut turns = Turns::default();
    turns.messages.extend(echo.instructions.as_deref().map(|text| Message::text("system", text)));
    body.require("input", |input| match input {
        Value::String(text) => {
            turns.push(Message::text("user", text));
            Ok(())
        }
        Value::Array(items) if items.is_empty() => {
            Err(Misfit::wrong("is an empty list, expected at least one item"))
        }
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                turns.take(item, fetch).map_err(|misfit| misfit.within_item(index))?;
            }
            Ok(())
        }
        other => Err(expected(&other, "a string or a list of items")),
    })?;
    Ok(turns.end())
}

/// The turns of a conversation that comes in items: what a model said in one turn may be several of them.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// Reasoning whose turn has not come yet.
    reasoning: String,
}

impl Turns {
    fn push(&mut self, mut message: Message) {
        if message.role == "assistant" && !self.reasoning.is_empty() {
            let reasoning = std::mem::take(&mut self.reasoning);
            message.fields.insert("reasoning_content".to_owned(), reasoning.into());
        }
        self.messages.push(message);
    }

    /// Adds a call to the turn that calls already, or begins one.
    fn call(&mut self, call: Value) {
        if self.reasoning.is_empty()
            && let Some(last) = self.messages.last_mut().filter(|message| message.role == "assistant")
            && let Some(Value::Array(calls)) = last.fields.get_mut("tool_calls")
        {
            return calls.push(call);
        }
        let fields = Map::from_iter([("tool_calls".to_owned(), json!([call]))]);
        self.push(Message { role: "assistant".to_owned(), content: Content::Nothing, fields });
    }

    fn end(mut self) -> Vec<Message> {
        if !self.reasoning.is_empty() {
            self.push(Message {
                role: "assistant".to_owned(),
                content: Content::Nothing,
                fields: Map::new(),
            });
        }
        self.messages
    }

    fn take(&mut self, item: Value, fetch: Fetch<'_>) -> Read<()> {
        let mut item = Object::new(item)?;
        let kind = item.take("type", |kind| one_of(kind, &ITEMS, &OTHER_ITEMS))?;
        item.take("id", text)?;
        item.take("status", |status| one_of(status, &["in_progress", "completed", "incomplete"], &[]))?;
        match kind.as_deref() {
            Some("function_call") => self.call(function_call(&mut item)?),
            Some("function_call_output") => self.push(function_output(&mut item, fetch)?),
            Some("reasoning") => self.reasoning += &reasoning_item(&mut item)?,
            _ => self.push(message(&mut item, fetch)?),
        }
        item.finish(&[])
    }
}

/// The types of items that are read; one without a type is a message.
pub(crate) const ITEMS: [&str; 4] = ["message", "function_call", "function_call_output", "reasoning"];
const OTHER_ITEMS: [&str; 10] = [
    "item_reference",
    "file_search_call",
    "web_search_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "code_interpreter_call",
    "local_shell_call",
    "mcp_call",
    "custom_tool_call",
];

fn message(item: &mut Object, fetch: Fetch<'_>) -> Read<Message> {
    let roles = ["system", "developer", "user", "assistant"];
    let role = item.require("role", |role| one_of(role, &roles, &[]))?;
    let content = item.require("content", |value| content(value, fetch))?;
    Ok(Message { role, content, fields: Map::new() })
}

fn content(value: Value, fetch: Fetch<'_>) -> Read<Content> {
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(_) => list(value, |value| part(value, fetch)).map(Content::Parts),
        other => Err(expected(&other, "a string or a list of parts")),
    }
}

fn part(value: Value, fetch: Fetch<'_>) -> Read<Part> {
    let mut part = Object::new(value)?;
    let kinds = ["input_text", "input_image", "output_text"];
    let kind =
        part.require("type", |kind| one_of(kind, &kinds, &["input_file", "input_audio", "refusal"]))?;
    let read = match kind.as_str() {
        "input_image" => {
            let image = part.require("image_url", |url| load(&text(url)?, fetch))?;
            part.take("detail", detail)?;
            Part::Image(image)
        }
        _ => Part::Text(part.require("text", text)?),
    };
    // What an answer's part has beside its text comes back as it was.
    part.finish(match kind.as_str() {
        "output_text" => &["annotations: []", "logprobs: []"],
        "input_image" => &["file_id"],
        _ => &[],
    })?;
    Ok(read)
}

fn function_call(item: &mut Object) -> Read<Value> {
    let id = item.require("call_id", text)?;
    let name = item.require("name", text)?;
    let arguments = item.require("arguments", tools::arguments)?;
    Ok(called(&id, &name, arguments))
}

fn function_output(item: &mut Object, fetch: Fetch<'_>) -> Read<Message> {
    let id = item.require("call_id", text)?;
    let content = item.require("output", |value| content(value, fetch))?;
    let fields = Map::from_iter([("tool_call_id".to_owned(), id.into())]);
    Ok(Message { role: "tool".to_owned(), content, fields })
}

fn reasoning_item(item: &mut Object) -> Read<String> {
    let texts = item.take("content", |content| {
        list(content, |part| {
            let mut part = Object::new(part)?;
            part.require("type", |kind| one_of(kind, &["reasoning_text"], &[]))?;
            let said = part.require("text", text)?;
            part.finish(&[])?;
            Ok(said)
        })
    })?;
    item.take("summary", |summary| match summary {
        Value::Array(parts) if parts.is_empty() => Ok(()),
        Value::Array(_) => Err(Misfit::unsupported("is not supported, expected an empty list")),
        other => Err(expected(&other, "a list")),
    })?;
    Ok(texts.unwrap_or_default().concat())
}

/// Reads how hard to think.
fn reasoning(value: Value) -> Read<Option<String>> {
    let mut reasoning = Object::new(value)?;
    let effort = reasoning.take("effort", |value| {
        let name = text(value.clone())?;
        effort(value).map(|_| name)
    })?;
    reasoning.finish(&["summary", "generate_summary"])?;
    Ok(effort)
}

fn take_tools(body: &mut Object, wishes: &mut Wishes, echo: &mut Echo) -> Read<Vec<Value>> {
    let given = body.take("tools", |tools| list(tools, declaration))?.unwrap_or_default();
    let mut shown = Vec::new();
    let mut names = Vec::new();
    for (name, flat, nested) in given {
        names.push(name);
        echo.tools.push(flat);
        shown.push(nested);
    }
    let choice = body.take("tool_choice", |value| choice(value, named))?.unwrap_or_default();
    choose(names, choice, body, wishes)?;
    Ok(if wishes.choice == Choice::None { Vec::new() } else { shown })
}

/// A tool's name, the tool as it was given, and in the shape that templates know.
fn declaration(value: Value) -> Read<(String, Value, Value)> {
    let mut tool = Object::new(value.clone())?;
    tool.require("type", |kind| one_of(kind, &["function"], &OTHER_TOOLS))?;
    let name = described(&mut tool)?;
    tool.finish(&[])?;
    let mut function = value.clone();
    if let Some(function) = function.as_object_mut() {
        function.shift_remove("type");
    }
    Ok((name, value, json!({"type": "function", "function": function})))
}

const OTHER_TOOLS: [&str; 10] = [
    "file_search",
    "web_search",
    "web_search_preview",
    "computer_use_preview",
    "code_interpreter",
    "image_generation",
    "local_shell",
    "shell",
    "mcp",
    "custom",
];

fn named(mut choice: Object) -> Read<String> {
    let name = choice.require("name", tools::name)?;
    choice.finish(&[])?;
    Ok(name)
}
