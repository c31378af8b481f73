//! What the schemas say against what the readers take.

use super::components;
use crate::{Context, Endpoint, Refusal, read_at, read_detokenize, read_tokenize};
use pyrex_core::{Input, SamplingParams};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A body that is read, and the name of its schema.
struct Body {
    schema: &'static str,
    read: fn(&Value) -> Result<(), Refusal>,
    /// With whatever other fields need beside them.
    base: Value,
}

fn at(endpoint: Endpoint, body: &Value) -> Result<(), Refusal> {
    let fetch = |_: &str| Ok(vec![0].into());
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let asked = read_at(endpoint, body.to_string().as_bytes(), &context)?;
    asked.request.sampling.validate()?;
    match asked.request.num_completions {
        0 => Err(pyrex_core::Error::invalid_request("n is 0").into()),
        _ => Ok(()),
    }
}

fn tokenize(body: &Value) -> Result<(), Refusal> {
    let fetch = |_: &str| Ok(vec![0].into());
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    read_tokenize(body.to_string().as_bytes(), &context).map(drop)
}

fn bodies() -> Vec<Body> {
    let messages = json!([{"role": "user", "content": "a"}]);
    let tool = json!({"type": "function", "function": {"name": "look"}});
    let flat = json!({"type": "function", "name": "look"});
    vec![
        Body {
            schema: "ChatCompletionRequest",
            read: |body| at(Endpoint::Chat, body),
            base: json!({"messages": messages, "stream": true, "logprobs": true, "tools": [tool], "max_tokens": 9}),
        },
        Body {
            schema: "CompletionRequest",
            read: |body| at(Endpoint::Completions, body),
            base: json!({"prompt": "a", "stream": true, "max_tokens": 9}),
        },
        Body {
            schema: "ResponseRequest",
            read: |body| at(Endpoint::Responses, body),
            base: json!({"input": "a", "stream": true, "tools": [flat], "max_output_tokens": 9}),
        },
        Body { schema: "TokenizeRequest", read: tokenize, base: json!({"prompt": "a"}) },
        Body {
            schema: "TokenizeRequest",
            read: tokenize,
            base: json!({"messages": messages, "tools": [tool]}),
        },
        Body {
            schema: "DetokenizeRequest",
            read: |body| read_detokenize(body.to_string().as_bytes()).map(drop),
            base: json!({"tokens": [1]}),
        },
    ]
}

fn schemas() -> Value {
    serde_json::to_value(components()).expect("schemas are JSON")["schemas"].clone()
}

/// The schema itself, behind its name.
fn resolve<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => resolve(schemas, &schemas[name.rsplit('/').next().unwrap_or_default()]),
        None => schema,
    }
}

/// The schemas that a value of this one may have, null apart.
fn alternatives<'a>(schemas: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolve(schemas, schema);
    match schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        Some(all) => all.iter().flat_map(|one| alternatives(schemas, one)).collect(),
        None if schema["type"] == "null" => Vec::new(),
        None => vec![schema],
    }
}

fn is_kind(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&kind.into()))
}

/// Values of a schema: at its bounds, and in every alternative.
fn examples(schemas: &Value, schema: &Value) -> Vec<Value> {
    alternatives(schemas, schema).into_iter().flat_map(|schema| examples_of(schemas, schema)).collect()
}

fn examples_of(schemas: &Value, schema: &Value) -> Vec<Value> {
    let given = schema["example"].clone();
    if !given.is_null() {
        return vec![given];
    }
    if let Some(names) = schema["enum"].as_array() {
        return names.iter().filter(|name| !name.is_null()).cloned().collect();
    }
    if is_kind(schema, "array") {
        let items = examples(schemas, &schema["items"]);
        let longest = schema["maxItems"].as_u64().unwrap_or(9) as usize;
        let shortest = schema["minItems"].as_u64().unwrap_or(0);
        let mut lists: Vec<Value> =
            items.into_iter().take(longest.min(20)).map(|item| json!([item])).collect();
        lists.extend((shortest == 0).then(|| json!([])));
        return lists;
    }
    if is_kind(schema, "object") {
        return objects(schemas, schema);
    }
    if is_kind(schema, "integer") || is_kind(schema, "number") {
        return bounds(schema, 0).collect();
    }
    if is_kind(schema, "boolean") {
        return vec![json!(true), json!(false)];
    }
    assert!(is_kind(schema, "string"), "no example of {schema}");
    vec![json!("a".repeat(schema["maxLength"].as_u64().unwrap_or(1) as usize))]
}

/// The numbers at the bounds of a schema, or so far beyond them.
fn bounds(schema: &Value, beyond: i64) -> impl Iterator<Item = Value> {
    let whole = is_kind(schema, "integer");
    let number = |value: f64| if whole { json!(value as i64) } else { json!(value) };
    let bound = |name: &str| schema[name].as_f64();
    let beyond = beyond as f64;
    let inside = if beyond == 0.0 { 0.001 } else { 0.0 };
    let all = [
        bound("minimum").map(|least| least - beyond),
        bound("maximum").map(|most| most + beyond),
        bound("exclusiveMinimum").map(|least| least + inside),
        (beyond == 0.0 && bound("minimum").is_none() && bound("exclusiveMinimum").is_none()).then_some(1.0),
    ];
    all.into_iter().flatten().map(number).collect::<Vec<_>>().into_iter()
}

/// An object with each of its optional fields in turn.
fn objects(schemas: &Value, schema: &Value) -> Vec<Value> {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let first = |name: &str| (name.to_owned(), examples(schemas, &properties[name])[0].clone());
    let least: Map<String, Value> = required.iter().map(|name| first(name)).collect();
    let mut all = vec![Value::Object(least.clone())];
    for (name, property) in properties {
        for example in examples(schemas, property) {
            let mut with = least.clone();
            with.insert(name.clone(), example);
            all.push(Value::Object(with));
        }
    }
    all
}

fn with(base: &Value, name: &str, value: &Value) -> Value {
    let mut body = base.clone();
    body[name] = value.clone();
    body
}

/// Reads a body with one more field; two names of one number may not stand together.
fn read_with(body: &Body, name: &str, value: &Value) -> Result<(), Refusal> {
    let mut changed = with(&body.base, name, value);
    if ["max_completion_tokens", "min_tokens"].contains(&name)
        && let Some(fields) = changed.as_object_mut()
    {
        fields.remove("max_tokens");
        fields.remove("max_output_tokens");
    }
    (body.read)(&changed)
}

/// The schema of a body whose fields are those of its base.
fn own_schema<'a>(schemas: &'a Value, body: &Body) -> &'a Value {
    let fields = body.base.as_object().expect("a body is an object");
    let has_all = |schema: &&Value| fields.keys().all(|name| !schema["properties"][name].is_null());
    alternatives(schemas, &schemas[body.schema]).into_iter().find(has_all).expect("a schema of the base")
}

#[test]
fn what_a_schema_allows_is_read() {
    let schemas = schemas();
    for body in bodies() {
        let schema = own_schema(&schemas, &body);
        assert!((body.read)(&body.base).is_ok(), "{}", body.base);
        for (name, property) in schema["properties"].as_object().expect("properties") {
            for value in examples(&schemas, property) {
                let read = read_with(&body, name, &value);
                assert!(read.is_ok(), "{}.{name} = {value}: {}", body.schema, read.expect_err("it is no"));
            }
        }
    }
}

#[test]
fn what_is_out_of_a_range_of_a_schema_is_refused() {
    let schemas = schemas();
    let mut num_ranges = 0;
    for body in bodies() {
        let schema = own_schema(&schemas, &body);
        for (name, property) in schema["properties"].as_object().expect("properties") {
            for schema in alternatives(&schemas, property) {
                for value in bounds(schema, 1) {
                    num_ranges += 1;
                    let read = read_with(&body, name, &value);
                    assert!(read.is_err(), "{}.{name} = {value} is read", body.schema);
                }
            }
        }
    }
    assert!(num_ranges > 40, "{num_ranges} bounds");
}

/// Names that the readers mention anywhere.
fn mentioned() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../body.rs"),
        include_str!("../format.rs"),
        include_str!("../image.rs"),
        include_str!("../messages.rs"),
        include_str!("../responses.rs"),
        include_str!("../sampling.rs"),
        include_str!("../tokens.rs"),
        include_str!("../tools.rs"),
    ];
    let is_name = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    sources.iter().flat_map(|source| source.split('"')).filter(is_name).collect()
}

/// Whether a reader knows a field, if only to say that it serves no more than nothing of it.
fn is_known(refusal: &Refusal, name: &str) -> bool {
    let message = refusal.error().message();
    !(message.starts_with("unknown field") && message.ends_with(&format!("{name}`")))
}

/// Whether a reader makes something of a field.
fn is_taken(refusal: &Refusal, name: &str) -> bool {
    let message = refusal.error().message();
    is_known(refusal, name) && !(message.starts_with('`') && message.ends_with("` is not supported"))
}

/// Where an object of a schema stands in a body, the schema, and the body.
type Place<'a> = (String, &'a Value, Value);

/// The fields that a reader may take where one of these schemas stands: those of all that no field tells apart.
fn takable<'a>(alternatives: &[&'a Value], schema: &'a Value) -> BTreeSet<&'a str> {
    let is_told = |schema: &Value| ["type", "role"].iter().any(|name| !schema["properties"][name].is_null());
    let alike = alternatives.iter().filter(|other| **other == schema || !is_told(schema) && !is_told(other));
    alike
        .filter_map(|schema| schema["properties"].as_object())
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}

/// All objects in a body whose fields are told, by way of every alternative.
fn places<'a>(
    schemas: &'a Value,
    schema: &'a Value,
    pointer: &str,
    body: &Value,
    found: &mut Vec<(Place<'a>, BTreeSet<&'a str>)>,
) {
    let all = alternatives(schemas, schema);
    for schema in all.clone() {
        if is_kind(schema, "array") {
            for item in alternatives(schemas, &schema["items"]) {
                for example in examples_of(schemas, item).into_iter().take(1) {
                    let mut body = body.clone();
                    *body.pointer_mut(pointer).expect("a place") = json!([example]);
                    places(schemas, item, &format!("{pointer}/0"), &body, found);
                }
            }
            continue;
        }
        let Some(properties) = schema["properties"].as_object() else { continue };
        let mut body = body.clone();
        if !pointer.is_empty() {
            *body.pointer_mut(pointer).expect("a place") = objects(schemas, schema)[0].clone();
        }
        found.push(((pointer.to_owned(), schema, body.clone()), takable(&all, schema)));
        for (name, property) in properties {
            let mut body = body.clone();
            let Some(Value::Object(object)) = body.pointer_mut(pointer) else { continue };
            object.entry(name.clone()).or_insert(Value::Null);
            places(schemas, property, &format!("{pointer}/{name}"), &body, found);
        }
    }
}

#[test]
fn what_the_readers_take_is_in_a_schema() {
    let (schemas, mentioned) = (schemas(), mentioned());
    assert!(mentioned.contains("temperature") && mentioned.len() > 60);
    let mut num_fields = 0;
    for body in bodies() {
        let mut found = Vec::new();
        places(&schemas, own_schema(&schemas, &body), "", &body.base, &mut found);
        let all = alternatives(&schemas, &schemas[body.schema]);
        found[0].1 = takable(&all, own_schema(&schemas, &body));
        for ((pointer, schema, base), takable) in found {
            assert_eq!(schema["additionalProperties"], false, "{}{pointer}: {schema}", body.schema);
            let properties = schema["properties"].as_object().expect("properties");
            let names = mentioned.iter().copied().chain(properties.keys().map(String::as_str));
            for name in names.collect::<BTreeSet<&str>>() {
                let mut changed = base.clone();
                let object = changed.pointer_mut(&pointer).expect("a place");
                // No field is such a list.
                object[name] = json!([[[{"no": [[]]}]]]);
                let refusal = (body.read)(&changed).expect_err("a wrong value");
                let place = format!("{}{pointer}/{name}: {refusal}", body.schema);
                assert!(!is_taken(&refusal, name) || takable.contains(name), "not in the schema: {place}");
                assert!(is_known(&refusal, name) || !properties.contains_key(name), "not read: {place}");
                num_fields += 1;
            }
        }
    }
    assert!(num_fields > 1000, "{num_fields} fields");
}

#[test]
fn every_schema_that_is_named_is_there() {
    fn check(schemas: &Value, value: &Value) {
        if let Some(name) = value["$ref"].as_str() {
            let name = name.rsplit('/').next().expect("a name");
            assert!(schemas[name].is_object(), "{name} is not there");
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| check(schemas, item)),
            Value::Object(fields) => fields.values().for_each(|field| check(schemas, field)),
            _ => {}
        }
    }
    let schemas = schemas();
    check(&schemas, &schemas);
}

#[test]
fn a_prompt_in_ids_is_read_as_ids() {
    let context = Context { defaults: &SamplingParams::default(), fetch: &|_| Ok(vec![0].into()) };
    let asked = read_at(Endpoint::Completions, br#"{"prompt": [[7]]}"#, &context).expect("a body");
    assert!(matches!(asked.request.input, Input::Encoded(encoded) if encoded.input_ids == [7]));
}
