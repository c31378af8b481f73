//! A whole body: a conversation or a text to go on from, and all that goes with it.

use crate::format::grammar;
use crate::messages::messages;
use crate::object::{
    Misfit, Object, Read, count, expected, flag, list, object, one_of, text, token_id, whole,
};
use crate::sampling::{chat_logprobs, max_tokens, params, text_logprobs};
use crate::tools::tools;
use crate::unserved;
use crate::wishes::Wishes;
use crate::{Asked, Context, Endpoint};
use pyrex_core::{Chat, Constraint, EncodedPrompt, Input, Message, Prompt, Request};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What a body asks whose fields say of which endpoint it is, and that no model settles later.
pub(crate) fn either(body: Value, context: &Context<'_>) -> Read<Asked> {
    let body = Object::new(body)?;
    let asked = match (body.has("messages"), body.has("prompt")) {
        (true, false) => of_chat(body, context)?,
        (false, true) => of_completions(body, context)?,
        (true, true) => return Err(Misfit::wrong("has both messages and a prompt, expected one")),
        (false, false) => return Err(Misfit::wrong("has neither messages nor a prompt, expected one")),
    };
    match asked.wishes.unsettled() {
        Some(field) => Err(Misfit::unsupported("is not supported here").within(field)),
        None => Ok(asked),
    }
}

/// What the body of `/v1/chat/completions` asks.
pub(crate) fn of_chat(mut body: Object, context: &Context<'_>) -> Read<Asked> {
    let mut sampling = params(&mut body, context.defaults)?;
    sampling.max_tokens = max_tokens(&mut body)?.or(sampling.max_tokens);
    let messages = body.require("messages", |value| messages(value, context.fetch))?;
    chat_logprobs(&mut body, &mut sampling.logprobs)?;
    let mut wishes = Wishes::default();
    let request = Request::new(chat(&mut body, messages, &mut wishes)?).with_sampling(sampling);
    asked(Endpoint::Chat, request, wishes, body)
}

/// What the body of `/v1/completions` asks.
pub(crate) fn of_completions(mut body: Object, context: &Context<'_>) -> Read<Asked> {
    let mut sampling = params(&mut body, context.defaults)?;
    sampling.max_tokens = max_tokens(&mut body)?.or(sampling.max_tokens);
    let prompt = body.require("prompt", prompt)?;
    text_logprobs(&mut body, &mut sampling.logprobs)?;
    asked(Endpoint::Completions, Request::new(prompt).with_sampling(sampling), Wishes::default(), body)
}

/// Takes what both endpoints share.
fn asked(endpoint: Endpoint, mut request: Request, mut wishes: Wishes, mut body: Object) -> Read<Asked> {
    request.constraint = grammar(&mut body, &mut wishes)?.map(Constraint::from);
    request.num_completions = num_completions(&mut body)?;
    let priority = service(&mut request, &mut body)?;
    let stream = body.take("stream", flag)?.unwrap_or(false);
    let asked = Asked {
        request,
        model: body.take("model", text)?,
        stream,
        include_usage: include_usage(&mut body, stream)?,
        priority,
        user: body.take("user", text)?,
        endpoint,
        wishes,
        echo: None,
    };
    body.finish(unserved::BODY)?;
    Ok(asked)
}

/// Takes how a request is served, which every endpoint has, and returns the priority that it names.
pub(crate) fn service(request: &mut Request, body: &mut Object) -> Read<Option<i8>> {
    let priority = body.take("priority", |value| whole(value, "a whole number from -128 to 127"))?;
    request.priority = priority.unwrap_or(request.priority);
    body.set("cache_salt", &mut request.cache_salt, text)?;
    body.set("timeout_ms", &mut request.deadline, deadline)?;
    Ok(priority)
}

/// Takes what belongs to a conversation.
pub(crate) fn chat(body: &mut Object, messages: Vec<Message>, wishes: &mut Wishes) -> Read<Chat> {
    let tools = tools(body, wishes)?;
    let mut variables = body.take("chat_template_kwargs", object)?.unwrap_or_default();
    // The template sees the body's own, whatever else has their names.
    if let Some(taken) = ["messages", "tools"].iter().find(|name| variables.contains_key(**name)) {
        let misfit = Misfit::wrong("is the body's own, expected another name");
        return Err(misfit.within(taken).within("chat_template_kwargs"));
    }
    if let Some(wanted) = body.take("add_generation_prompt", flag)?
        && variables.insert("add_generation_prompt".to_owned(), wanted.into()).is_some()
    {
        return Err(Misfit::wrong("is in chat_template_kwargs too").within("add_generation_prompt"));
    }
    if let Some(thinks) = body.take("reasoning_effort", effort)? {
        if variables.insert("enable_thinking".to_owned(), thinks.into()).is_some() {
            let what = "is given beside enable_thinking of chat_template_kwargs, expected one of them";
            return Err(Misfit::wrong(what).within("reasoning_effort"));
        }
        wishes.effort = thinks.then_some("reasoning_effort");
    }
    wishes.budget = body.take("thinking_token_budget", count)?;
    Ok(Chat { messages, tools, variables })
}

/// How hard to think: whether to think at all is what a model can choose here.
pub(crate) fn effort(value: Value) -> Read<bool> {
    Ok(one_of(value, &EFFORTS, &[])? != "none")
}

/// What an effort may be.
pub(crate) const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

fn prompt(value: Value) -> Read<Input> {
    let is_prompt = |item: &Value| item.is_string() || item.is_array();
    match &value {
        Value::Array(items) if items.first().is_some_and(is_prompt) => {
            let mut prompts = list(value, one_prompt)?;
            match (prompts.pop(), prompts.len()) {
                (Some(only), 0) => Ok(only),
                _ => Err(Misfit::unsupported("a list of several is not supported, expected one prompt")),
            }
        }
        _ => one_prompt(value),
    }
}

fn one_prompt(value: Value) -> Read<Input> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text).into()),
        Value::Array(ids) if ids.is_empty() => Err(Misfit::wrong("is an empty list, expected token ids")),
        Value::Array(_) => Ok(EncodedPrompt { input_ids: list(value, token_id)?, images: Vec::new() }.into()),
        other => Err(expected(&other, "a string or a list")),
    }
}

/// `best_of` chooses among more answers than it gives, unless both numbers are the same.
fn num_completions(body: &mut Object) -> Read<usize> {
    let n = body.take("n", count)?.unwrap_or(1);
    match body.take("best_of", count)? {
        Some(best_of) if best_of != n => {
            let what = format_args!("{best_of} is not supported, expected n, which is {n}");
            Err(Misfit::unsupported(what).within("best_of"))
        }
        _ => Ok(n),
    }
}

fn deadline(value: Value) -> Read<Option<Instant>> {
    match whole(value, "a whole number of at least 1")? {
        0 => Err(Misfit::wrong("is 0, expected a whole number of at least 1")),
        // What lies beyond the end of the clock is never late.
        timeout_ms => Ok(Instant::now().checked_add(Duration::from_millis(timeout_ms))),
    }
}

fn include_usage(body: &mut Object, stream: bool) -> Read<bool> {
    let options = body.take("stream_options", |options| {
        let mut options = Object::new(options)?;
        let include_usage = options.take("include_usage", flag)?.unwrap_or(false);
        options.finish(unserved::STREAM_OPTIONS)?;
        Ok(include_usage)
    })?;
    match options {
        Some(_) if !stream => {
            Err(Misfit::wrong("is given, expected stream to be true").within("stream_options"))
        }
        options => Ok(options.unwrap_or(false)),
    }
}
