//! Tools: what the model is told that it may call, and what it called in earlier turns.

use crate::json::parse;
use crate::object::{Misfit, Object, Read, clip, expected, flag, list, object, one_of, text};
use crate::wishes::{Choice, Wishes};
use serde_json::{Map, Value, json};

/// The most characters of a tool's name.
pub(crate) const MAX_NAME_CHARS: usize = 64;

/// Takes the tools that the model is shown, none if it must not choose any, and what it may do with them.
pub(crate) fn tools(body: &mut Object, wishes: &mut Wishes) -> Read<Vec<Value>> {
    let tools = body.take("tools", |tools| list(tools, declaration))?.unwrap_or_default();
    let (names, tools): (Vec<String>, Vec<Value>) = tools.into_iter().unzip();
    let choice = body.take("tool_choice", |value| choice(value, named))?.unwrap_or_default();
    choose(names, choice, body, wishes)?;
    Ok(if wishes.choice == Choice::None { Vec::new() } else { tools })
}

/// Notes what may be done with tools of these names.
pub(crate) fn choose(names: Vec<String>, choice: Choice, body: &mut Object, wishes: &mut Wishes) -> Read<()> {
    if let Some(index) = (1..names.len()).find(|index| names[..*index].contains(&names[*index])) {
        let what = format_args!("has {:?} twice, expected a name for each", clip(&names[index]));
        return Err(Misfit::wrong(what).within("tools"));
    }
    let what = match &choice {
        Choice::Required if names.is_empty() => "asks for a call, expected tools".to_owned(),
        Choice::Named(name) if !names.contains(name) => {
            format!("names {:?}, expected one of tools", clip(name))
        }
        _ => String::new(),
    };
    if !what.is_empty() {
        return Err(Misfit::wrong(what).within("tool_choice"));
    }
    wishes.one_call = body.take("parallel_tool_calls", flag)? == Some(false);
    wishes.tools = if choice == Choice::None { Vec::new() } else { names };
    wishes.choice = choice;
    Ok(())
}

/// Reads a `tool_choice`; an object is read by `named`.
pub(crate) fn choice(value: Value, named: fn(Object) -> Read<String>) -> Read<Choice> {
    if let Value::Object(_) = value {
        let mut object = Object::new(value)?;
        object.require("type", |kind| one_of(kind, &["function"], &OTHER_CHOICES))?;
        return named(object).map(Choice::Named);
    }
    Ok(match one_of(value, &["auto", "none", "required"], &[])?.as_str() {
        "none" => Choice::None,
        "required" => Choice::Required,
        _ => Choice::Auto,
    })
}

const OTHER_CHOICES: [&str; 4] = ["allowed_tools", "custom", "mcp", "file_search"];

fn named(mut choice: Object) -> Read<String> {
    let name = choice.require("function", |function| {
        let mut function = Object::new(function)?;
        let name = function.require("name", name)?;
        function.finish(&[])?;
        Ok(name)
    })?;
    choice.finish(&[])?;
    Ok(name)
}

/// Reads the name of a tool.
pub(crate) fn name(value: Value) -> Read<String> {
    let name = text(value)?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(is_part) {
        true => Ok(name),
        false => Err(Misfit::wrong(format_args!(
            "is {:?}, expected 1 to {MAX_NAME_CHARS} letters, digits and _ - .",
            clip(&name)
        ))),
    }
}

/// Reads `tool_calls` of an earlier answer into the shape that templates know: the arguments, which OpenAI writes as JSON in a
/// string, are an object there.
pub(crate) fn calls(value: Value) -> Read<Value> {
    list(value, call).map(Value::Array)
}

/// A tool's name, and the tool as it was given, once it is seen to be one.
fn declaration(value: Value) -> Read<(String, Value)> {
    let mut tool = Object::new(value.clone())?;
    tool.require("type", function)?;
    let name = tool.require("function", |function| {
        let mut function = Object::new(function)?;
        let name = described(&mut function)?;
        function.finish(&[])?;
        Ok(name)
    })?;
    tool.finish(&[])?;
    Ok((name, value))
}

/// Takes what a tool says of itself, and returns its name.
pub(crate) fn described(function: &mut Object) -> Read<String> {
    let name = function.require("name", name)?;
    function.take("description", text)?;
    function.take("parameters", object)?;
    function.take("strict", flag)?;
    Ok(name)
}

fn call(value: Value) -> Read<Value> {
    let mut call = Object::new(value)?;
    let id = call.require("id", text)?;
    call.require("type", function)?;
    let (name, arguments) = call.require("function", |function| {
        let mut function = Object::new(function)?;
        let called = (function.require("name", text)?, function.require("arguments", arguments)?);
        function.finish(&[])?;
        Ok(called)
    })?;
    call.finish(&[])?;
    Ok(called(&id, &name, arguments))
}

/// A call in the shape that templates know.
pub(crate) fn called(id: &str, name: &str, arguments: Map<String, Value>) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// The one type of tool.
pub(crate) fn function(value: Value) -> Read<String> {
    one_of(value, &["function"], &["custom"])
}

pub(crate) fn arguments(value: Value) -> Read<Map<String, Value>> {
    let parsed = parse(text(value)?.as_bytes()).map_err(|error| {
        Misfit::wrong(format_args!("is no JSON, {error}, expected an object in a string"))
    })?;
    match parsed {
        Value::Object(arguments) => Ok(arguments),
        other => Err(expected(&other, "an object in the string")),
    }
}
