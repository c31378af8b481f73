//! The chat template: conversation in, one string out, by the checkpoint's own Jinja.
//!
//! The reference renders with Jinja2 and `trim_blocks`/`lstrip_blocks`; what differs between Jinja2 and minijinja
//! (how values print, Python's string methods, `tojson`) is bridged in [`python`].

use crate::error::{Error, Result};
use crate::prompt::{Chat, Content, Message, Part, python};
use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde_json::{Map, Value, json};
use std::io;

/// Instructions a rendering may take: about two seconds; a conversation of 1,000 turns needs under a hundredth of it.
const FUEL: u64 = 50_000_000;
/// Longer than any model's context.
const MAX_PROMPT_BYTES: usize = 16 << 20;
const MAX_TEMPLATE_BYTES: usize = 4 << 20;
const NAME: &str = "chat_template";

/// A parsed chat template and the special tokens it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Parses `source`; `special_tokens` holds `bos_token` and its like.
    ///
    /// # Errors
    /// `InvalidModel` if it is not a template.
    pub fn new(source: &str, special_tokens: Map<String, Value>) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(Error::invalid_model(format_args!(
                "the chat template has {} bytes, expected at most {MAX_TEMPLATE_BYTES}",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        python::teach(&mut environment);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|e| {
            Error::invalid_model(format_args!("the chat template does not parse: {}", chain(&e)))
        })?;
        Ok(Self { environment, special_tokens })
    }

    /// Finds the template of a checkpoint: `chat_template.jinja`, else `chat_template.json`, else `tokenizer_config.json`.
    ///
    /// `read` gives the bytes of a file of the checkpoint. Returns `None` if it carries no template.
    ///
    /// # Errors
    /// `InvalidModel` if a file is there and is not what its name says; whatever `read` says.
    pub fn find(read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Option<Self>> {
        let tokenizer_config = read_json(read, "tokenizer_config.json")?;
        let special_tokens = special_tokens(&tokenizer_config);
        if let Some(bytes) = read("chat_template.jinja")? {
            let source = String::from_utf8(bytes)
                .map_err(|e| Error::invalid_model(format_args!("chat_template.jinja: {e}")))?;
            return Self::new(&source, special_tokens).map(Some);
        }
        for config in [read_json(read, "chat_template.json")?, tokenizer_config] {
            if let Some(source) = default_template(&config["chat_template"]) {
                return Self::new(source, special_tokens).map(Some);
            }
        }
        Ok(None)
    }

    /// The special token called `name`, such as `bos_token`, if the checkpoint has one.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).and_then(Value::as_str)
    }

    /// Renders `chat`; each image is whatever placeholder the template writes for one.
    ///
    /// # Errors
    /// `InvalidRequest` if the template refuses the conversation, takes more than 50 million steps or writes more than
    /// 16 MiB. What it holds in variables on the way is not bounded: a template is a program, to be trusted as one.
    pub fn render(&self, chat: &Chat) -> Result<String> {
        let mut context = self.special_tokens.clone();
        context.insert("add_generation_prompt".into(), Value::Bool(true));
        context.extend(chat.variables.clone());
        context.insert("messages".into(), chat.messages.iter().map(message_value).collect());
        let tools = if chat.tools.is_empty() { Value::Null } else { chat.tools.clone().into() };
        context.insert("tools".into(), tools);
        context.entry("documents").or_insert(Value::Null);
        let template = self.environment.get_template(NAME).map_err(|e| Error::internal(chain(&e)))?;
        let mut prompt = BoundedBytes(Vec::new());
        let rendered = template.render_captured_to(Jinja::from_serialize(&context), &mut prompt);
        rendered.map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => {
                Error::invalid_request(format_args!("the chat template took more than {FUEL} steps"))
            }
            _ => Error::invalid_request(format_args!("the chat template failed: {}", chain(&error))),
        })?;
        String::from_utf8(prompt.0).map_err(Error::internal)
    }
}

/// What a template wrote, up to [`MAX_PROMPT_BYTES`].
struct BoundedBytes(Vec<u8>);

impl io::Write for BoundedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(io::Error::other(format!("it wrote more than {MAX_PROMPT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One turn as the template sees it, with the reference's aliases for the thought of a turn.
fn message_value(message: &Message) -> Value {
    let mut value = Map::new();
    value.insert("role".into(), message.role.clone().into());
    match &message.content {
        Content::Nothing => {}
        Content::Text(text) => drop(value.insert("content".into(), text.clone().into())),
        Content::Parts(parts) => drop(value.insert("content".into(), parts.iter().map(part_value).collect())),
    }
    value.extend(message.fields.clone());
    let named = |name: &&str| value.get(*name).is_some_and(|thought| !thought.is_null());
    if let Some(name) = ["reasoning_content", "thinking", "reasoning"].iter().find(|name| named(name)) {
        let thought = value[*name].clone();
        value.entry("thinking").or_insert_with(|| thought.clone());
        value.insert("reasoning_content".into(), thought);
    }
    Value::Object(value)
}

fn part_value(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(_) => json!({"type": "image"}),
    }
}

fn read_json(read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>, name: &str) -> Result<Value> {
    match read(name)? {
        None => Ok(Value::Null),
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| Error::invalid_model(format_args!("{name}: {e}")))
        }
    }
}

/// A template is a string, or a list of named ones of which `default` counts.
fn default_template(value: &Value) -> Option<&str> {
    match value {
        Value::Array(named) => named.iter().find(|one| one["name"] == "default")?["template"].as_str(),
        _ => value.as_str(),
    }
}

/// Every `*_token` of `tokenizer_config.json`, written as a string or as an object with `content`.
fn special_tokens(config: &Value) -> Map<String, Value> {
    let named = config.as_object().into_iter().chain(config["model_specific_special_tokens"].as_object());
    let tokens = named.flatten().filter(|(name, _)| name.ends_with("_token"));
    tokens
        .filter_map(|(name, value)| {
            let content = value.as_str().or_else(|| value["content"].as_str())?;
            Some((name.clone(), Value::from(content)))
        })
        .collect()
}

fn chain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
