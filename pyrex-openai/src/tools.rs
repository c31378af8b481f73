//! Tools: what the model is told that it may call, and what it called in earlier turns.

use crate::json::parse;
use crate::object::{Misfit, Object, Read, expected, flag, list, object, one_of, text};
use serde_json::{Map, Value, json};

/// Takes the tools that the model is shown: none if it must not choose any.
pub(crate) fn tools(body: &mut Object) -> Read<Vec<Value>> {
    let tools = body.take("tools", |tools| list(tools, declaration))?.unwrap_or_default();
    let choice = body.take("tool_choice", |choice| match choice {
        Value::Object(_) => Err(Misfit::unsupported("an object is not supported, expected auto or none")),
        choice => one_of(choice, &["auto", "none"], &["required"]),
    })?;
    Ok(if choice.as_deref() == Some("none") { Vec::new() } else { tools })
}

/// Reads `tool_calls` of an earlier answer into the shape that templates know: the arguments, which OpenAI writes as JSON in a
/// string, are an object there.
pub(crate) fn calls(value: Value) -> Read<Value> {
    list(value, call).map(Value::Array)
}

/// A tool as it was given, once it is seen to be one.
fn declaration(value: Value) -> Read<Value> {
    let mut tool = Object::new(value.clone())?;
    tool.require("type", function)?;
    tool.require("function", |function| {
        let mut function = Object::new(function)?;
        function.require("name", text)?;
        function.take("description", text)?;
        function.take("parameters", object)?;
        function.take("strict", flag)?;
        function.finish(&[])
    })?;
    tool.finish(&[])?;
    Ok(value)
}

fn call(value: Value) -> Read<Value> {
    let mut call = Object::new(value)?;
    let id = call.require("id", text)?;
    let kind = call.require("type", function)?;
    let (name, arguments) = call.require("function", |function| {
        let mut function = Object::new(function)?;
        let called = (function.require("name", text)?, function.require("arguments", arguments)?);
        function.finish(&[])?;
        Ok(called)
    })?;
    call.finish(&[])?;
    Ok(json!({"id": id, "type": kind, "function": {"name": name, "arguments": arguments}}))
}

/// The one type of tool.
fn function(value: Value) -> Read<String> {
    one_of(value, &["function"], &["custom"])
}

fn arguments(value: Value) -> Read<Map<String, Value>> {
    let parsed = parse(text(value)?.as_bytes()).map_err(|error| {
        Misfit::wrong(format_args!("is no JSON, {error}, expected an object in a string"))
    })?;
    match parsed {
        Value::Object(arguments) => Ok(arguments),
        other => Err(expected(&other, "an object in the string")),
    }
}
