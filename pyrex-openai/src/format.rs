//! What an answer must look like: OpenAI's `response_format` and vLLM's `structured_outputs`.

use crate::object::{Misfit, Object, Read, expected, flag, object, one_of, text};
use crate::unserved;
use crate::wishes::Wishes;
use pyrex_core::Grammar;
use serde_json::Value;

/// Takes the grammar that the answer is held to, if there is one.
pub(crate) fn grammar(body: &mut Object, wishes: &mut Wishes) -> Read<Option<Grammar>> {
    let format = body.take("response_format", response_format)?.flatten();
    let (field, grammar) = match (format, body.take("structured_outputs", structured_outputs)?) {
        (Some(_), Some(_)) => {
            return Err(Misfit::wrong(
                "has both a response_format and structured_outputs, expected one of them",
            ));
        }
        (Some(format), None) => ("response_format", format),
        (None, Some(structured)) => ("structured_outputs", structured),
        (None, None) => return Ok(None),
    };
    wishes.format = Some(field);
    Ok(Some(grammar))
}

/// Reads `text` of a response: the same formats, with the fields of a schema beside its type.
pub(crate) fn text_format(value: Value) -> Read<Option<Grammar>> {
    let mut text = Object::new(value)?;
    let format = text.take("format", |value| {
        let mut format = Object::new(value)?;
        let kind = format
            .require("type", |value| one_of(value, &["text", "json_object", "json_schema"], &["grammar"]))?;
        let grammar = match kind.as_str() {
            "json_schema" => Some(named_schema(&mut format)?),
            "json_object" => Some(any_object()),
            _ => None,
        };
        format.finish(&[])?;
        Ok(grammar)
    })?;
    text.finish(&["verbosity: \"medium\""])?;
    Ok(format.flatten())
}

fn any_object() -> Grammar {
    Grammar::JsonSchema(r#"{"type":"object"}"#.to_owned())
}

fn response_format(value: Value) -> Read<Option<Grammar>> {
    let mut format = Object::new(value)?;
    let kind = format.require("type", |value| {
        one_of(value, &["text", "json_object", "json_schema"], &["grammar", "python", "structural_tag"])
    })?;
    let grammar = match kind.as_str() {
        "json_schema" => Some(format.require("json_schema", json_schema)?),
        "json_object" => Some(any_object()),
        _ => None,
    };
    format.finish(&[])?;
    Ok(grammar)
}

fn json_schema(value: Value) -> Read<Grammar> {
    let mut named = Object::new(value)?;
    let grammar = named_schema(&mut named)?;
    named.finish(&[])?;
    Ok(grammar)
}

/// The name and the description are the client's own; the schema holds whether it is `strict` or not.
fn named_schema(named: &mut Object) -> Read<Grammar> {
    named.require("name", text)?;
    named.take("description", text)?;
    named.take("strict", flag)?;
    let schema = named.require("schema", object)?;
    Ok(Grammar::JsonSchema(Value::Object(schema).to_string()))
}

fn structured_outputs(value: Value) -> Read<Grammar> {
    let mut outputs = Object::new(value)?;
    let grammars = [
        outputs.take("json", schema)?.map(Grammar::JsonSchema),
        outputs.take("regex", text)?.map(Grammar::Regex),
        outputs.take("grammar", text)?.map(Grammar::Lark),
    ];
    outputs.finish(unserved::STRUCTURED_OUTPUTS)?;
    let mut given = grammars.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(grammar), None) => Ok(grammar),
        (found, _) => {
            let found = if found.is_some() { "several" } else { "none" };
            Err(Misfit::wrong(format_args!("has {found} of json, regex and grammar, expected one")))
        }
    }
}

fn schema(value: Value) -> Read<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Object(_) => Ok(value.to_string()),
        other => Err(expected(&other, "a schema as an object or as a string")),
    }
}
