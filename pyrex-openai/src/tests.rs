use crate::wishes::Choice;
use crate::{Asked, Context, Endpoint, Refusal, read, read_at, read_detokenize, read_tokenize, unserved};
use proptest::prelude::*;
use pyrex_core::{
    Chat, Constraint, Content, Error, ErrorKind, Grammar, Input, Message, Part, Prompt, SamplingParams,
};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

const BODIES: [&str; 5] = [
    include_str!("../bodies/chat.json"),
    include_str!("../bodies/tools.json"),
    include_str!("../bodies/text.json"),
    include_str!("../bodies/demand.json"),
    include_str!("../bodies/responses.json"),
];

/// Reads a body of an endpoint; an image that is fetched is its own URL.
fn asked_at(endpoint: Endpoint, body: &[u8]) -> Result<Asked, Refusal> {
    let fetch = |url: &str| Ok(url.as_bytes().to_vec().into());
    read_at(endpoint, body, &Context { defaults: &SamplingParams::default(), fetch: &fetch })
}

fn asked(body: impl AsRef<[u8]>) -> Asked {
    let body = body.as_ref();
    read(body, &SamplingParams::default())
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(body)))
}

#[track_caller]
fn refused(body: impl AsRef<[u8]>, kind: ErrorKind, message: &str) {
    let error = read(body.as_ref(), &SamplingParams::default()).expect_err(message);
    assert_eq!((error.message(), error.kind()), (message, kind));
}

/// The body of a question with further fields.
fn question(fields: &str) -> String {
    format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}], {fields}}}"#)
}

/// The body of a conversation of these messages.
fn talk(messages: &str) -> String {
    format!(r#"{{"messages": [{messages}]}}"#)
}

/// A user's message of one part.
fn part(part: &str) -> String {
    talk(&format!(r#"{{"role": "user", "content": [{part}]}}"#))
}

fn picture(url: &str) -> String {
    part(&format!(r#"{{"type": "image_url", "image_url": {{"url": "{url}"}}}}"#))
}

#[track_caller]
fn all_wrong(cases: &[(String, &str)]) {
    cases.iter().for_each(|(body, message)| refused(body, ErrorKind::InvalidRequest, message));
}

#[track_caller]
fn all_unsupported(cases: &[(String, &str)]) {
    cases.iter().for_each(|(body, message)| refused(body, ErrorKind::Unsupported, message));
}

fn chat(asked: Asked) -> Chat {
    match asked.request.input {
        Input::Prompt(Prompt::Chat(chat)) => chat,
        other => panic!("expected a conversation, found {other:?}"),
    }
}

fn grammar(body: &str) -> Option<Grammar> {
    match asked(body).request.constraint {
        Some(Constraint::Grammar(grammar)) => Some(grammar),
        Some(Constraint::Custom(_)) => panic!("a body names no functions"),
        None => None,
    }
}

/// A message as templates see it, with images as their bytes.
fn shown(message: &Message) -> Value {
    let part = |part: &Part| match part {
        Part::Text(text) => json!(text),
        Part::Image(bytes) => json!(bytes[..]),
    };
    let content = match &message.content {
        Content::Nothing => Value::Null,
        Content::Text(text) => json!(text),
        Content::Parts(parts) => parts.iter().map(part).collect(),
    };
    json!([message.role, content, message.fields])
}

#[test]
fn a_question_alone_takes_every_default() {
    let defaults = SamplingParams { temperature: 0.5, top_k: Some(9), ..SamplingParams::default() };
    let asked = read(talk(r#"{"role": "user", "content": "hi"}"#).as_bytes(), &defaults).unwrap();
    assert_eq!(asked.request.sampling, defaults);
    assert_eq!((asked.model, asked.user, asked.stream, asked.include_usage), (None, None, false, false));
    let request = &asked.request;
    assert_eq!((request.num_completions, request.priority, request.deadline), (1, 0, None));
    assert!(request.constraint.is_none() && request.cache_salt.is_empty());
}

#[test]
fn every_field_of_a_conversation_arrives() {
    let before = Instant::now();
    let asked = asked(BODIES[0]);
    let request = &asked.request;
    let expected = SamplingParams {
        temperature: 0.7,
        top_k: Some(40),
        top_p: Some(0.9),
        min_p: Some(0.05),
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        frequency_penalty: -0.5,
        logit_bias: vec![(7, -100.0), (12, 1.5)],
        seed: Some(u64::MAX),
        min_tokens: 2,
        max_tokens: Some(64),
        stop: vec!["\n".into(), "END".into()],
        stop_token_ids: vec![5],
        ignore_eos: true,
        logprobs: Some(3),
    };
    assert_eq!(request.sampling, expected);
    assert_eq!((request.num_completions, request.priority, request.cache_salt.as_str()), (2, 3, "ann"));
    let time_left = request.deadline.expect("a deadline") - before;
    assert!(time_left >= Duration::from_secs(60) && time_left < Duration::from_secs(120), "{time_left:?}");
    assert_eq!((asked.model.as_deref(), asked.user.as_deref()), (Some("shapes"), Some("ann")));
    assert!(asked.stream && asked.include_usage);
    let schema = r#"{"type":"object","properties":{"colour":{"type":"string"}},"required":["colour"]}"#;
    assert_eq!(grammar(BODIES[0]), Some(Grammar::JsonSchema(schema.into())));
    let variables = json!({"enable_thinking": false, "add_generation_prompt": true});
    assert_eq!(Value::Object(chat(asked).variables), variables);
}

#[test]
fn parts_stay_in_their_order() {
    let messages = chat(asked(BODIES[0])).messages;
    assert_eq!(shown(&messages[0]), json!(["developer", "Be brief.", {}]));
    let Content::Parts(parts) = &messages[1].content else { panic!("{messages:?}") };
    let [Part::Text(first), Part::Image(image), Part::Text(last)] = parts.as_slice() else {
        panic!("{parts:?}")
    };
    assert_eq!((first.as_str(), last.as_str()), ("What is this?", "And why?"));
    assert_eq!((image.len(), &image[..4]), (70, b"\x89PNG".as_slice()));
    assert_eq!(messages[1].fields, json!({"name": "ann"}).as_object().cloned().unwrap());
}

#[test]
fn tools_arrive_in_the_shape_of_templates() {
    let chat = chat(asked(BODIES[1]));
    let arguments = json!({"at": 3, "deep": {"é": [1.5, null]}});
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}});
    let expected = json!([
        ["system", "You can look.", {}],
        ["user", "What is at 3?", {}],
        ["assistant", null, {"reasoning_content": "I should look.", "tool_calls": [call]}],
        ["tool", "a red circle", {"tool_call_id": "call_1"}],
    ]);
    assert_eq!(chat.messages.iter().map(shown).collect::<Value>(), expected);
    let body: Value = serde_json::from_str(BODIES[1]).unwrap();
    assert_eq!(Value::Array(chat.tools), body["tools"]);
    assert_eq!(grammar(BODIES[1]), Some(Grammar::Regex("[a-z ]+".into())));
}

#[test]
fn every_field_of_a_text_completion_arrives() {
    let request = asked(BODIES[2]).request;
    let expected = SamplingParams {
        seed: Some(u64::MAX),
        max_tokens: Some(5),
        stop: vec!["END".into()],
        logprobs: Some(2),
        ..SamplingParams::default()
    };
    assert_eq!((request.sampling, request.num_completions), (expected, 3));
    assert!(matches!(request.input, Input::Prompt(Prompt::Text(text)) if text == "This is"));
    let schema = Grammar::JsonSchema(r#"{"type":"array","items":{"type":"integer"}}"#.into());
    assert_eq!(grammar(BODIES[2]), Some(schema));
}

#[test]
fn every_wish_of_a_conversation_is_kept_for_the_model() {
    let asked = asked_at(Endpoint::Chat, BODIES[3].as_bytes()).unwrap();
    let wishes = &asked.wishes;
    assert_eq!(
        (&wishes.tools[..], wishes.one_call),
        (&["look".to_owned(), "wait.a-bit_2".to_owned()][..], true)
    );
    assert_eq!((&wishes.choice, wishes.budget), (&Choice::Named("look".to_owned()), Some(32)));
    assert_eq!((wishes.effort, asked.priority), (Some("reasoning_effort"), Some(-3)));
    assert_eq!(chat(asked).variables, json!({"enable_thinking": true}).as_object().cloned().unwrap());
    refused(BODIES[3], ErrorKind::Unsupported, "tool_choice: is not supported here");
}

#[test]
fn every_field_of_a_response_arrives() {
    let asked = asked_at(Endpoint::Responses, BODIES[4].as_bytes()).unwrap();
    let expected = SamplingParams {
        temperature: 0.5,
        top_p: Some(0.9),
        seed: Some(7),
        max_tokens: Some(64),
        ..SamplingParams::default()
    };
    assert_eq!(asked.request.sampling, expected);
    assert!(asked.stream && asked.request.deadline.is_some());
    assert_eq!((asked.model.as_deref(), asked.user.as_deref()), (Some("shapes"), Some("ann")));
    let wishes = asked.wishes.clone();
    assert_eq!((wishes.choice, wishes.one_call), (Choice::Named("look".to_owned()), true));
    assert_eq!((wishes.effort, wishes.budget), (Some("reasoning.effort"), Some(64)));
    let chat = chat(asked);
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "look", "arguments": {"at": 3}}});
    let fields = [
        json!({}),
        json!({}),
        json!({"reasoning_content": "I should look."}),
        json!({"tool_calls": [call]}),
        json!({"tool_call_id": "call_1"}),
    ];
    assert_eq!(chat.messages.iter().map(|message| json!(message.fields)).collect::<Vec<_>>(), fields);
    let body: Value = serde_json::from_str(BODIES[4]).unwrap();
    let mut function = body["tools"][0].clone();
    function.as_object_mut().unwrap().shift_remove("type");
    assert_eq!(chat.tools, [json!({"type": "function", "function": function})]);
    assert_eq!(chat.images().count(), 1);
}

#[test]
fn wrong_items_are_named_by_their_path() {
    let wrong = |body: &str, message: &str, param: &str| {
        let refusal = asked_at(Endpoint::Responses, body.as_bytes()).expect_err(message);
        assert_eq!((refusal.error().message(), refusal.param()), (message, Some(param)));
    };
    wrong("{}", "input: is missing", "input");
    wrong(r#"{"input": []}"#, "input: is an empty list, expected at least one item", "input");
    wrong(r#"{"input": 3}"#, "input: is a number, expected a string or a list of items", "input");
    wrong(
        r#"{"input": [{"role": "tool", "content": ""}]}"#,
        r#"input[0].role: is "tool", expected system, developer, user or assistant"#,
        "input[0].role",
    );
    wrong(
        r#"{"input": [{"type": "web_search_call"}]}"#,
        r#"input[0].type: "web_search_call" is not supported, expected message, function_call, function_call_output or reasoning"#,
        "input[0].type",
    );
    wrong(
        r#"{"input": [{"type": "function_call", "call_id": "1", "name": "a", "arguments": "[]"}]}"#,
        "input[0].arguments: is a list, expected an object in the string",
        "input[0].arguments",
    );
    wrong(
        r#"{"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}]}"#,
        "input[0].summary: is not supported, expected an empty list",
        "input[0].summary",
    );
    wrong(
        r#"{"input": [{"role": "user", "content": [{"type": "input_file"}]}]}"#,
        r#"input[0].content[0].type: "input_file" is not supported, expected input_text, input_image or output_text"#,
        "input[0].content[0].type",
    );
    wrong(
        r#"{"input": "a", "text": {"format": {"type": "json_schema", "name": "a"}}}"#,
        "text.format.schema: is missing",
        "text.format.schema",
    );
    wrong(
        r#"{"input": "a", "reasoning": {"effort": "much"}}"#,
        r#"reasoning.effort: is "much", expected none, minimal, low, medium, high or xhigh"#,
        "reasoning.effort",
    );
    wrong(r#"{"input": "a", "messages": []}"#, "unknown field `messages`", "messages");
    wrong(
        r#"{"input": "a", "tool_choice": {"type": "function", "name": "b"}}"#,
        r#"tool_choice: names "b", expected one of tools"#,
        "tool_choice",
    );
}

#[test]
fn a_prompt_is_one_text_or_the_ids_of_one() {
    for body in [r#"{"prompt": "a\u00e9\n"}"#, r#"{"prompt": ["aé\n"]}"#] {
        assert!(matches!(asked(body).request.input, Input::Prompt(Prompt::Text(text)) if text == "aé\n"));
    }
    for body in [r#"{"prompt": [0, 4294967295]}"#, r#"{"prompt": [[0, 4294967295]]}"#] {
        let Input::Encoded(encoded) = asked(body).request.input else { panic!("{body}") };
        assert_eq!((encoded.input_ids, encoded.images.len()), (vec![0, u32::MAX], 0));
    }
    let wrong = |prompt: &str, message| (format!(r#"{{"prompt": {prompt}}}"#), message);
    all_wrong(&[
        wrong("[]", "prompt: is an empty list, expected token ids"),
        wrong("[[]]", "prompt[0]: is an empty list, expected token ids"),
        wrong("3", "prompt: is a number, expected a string or a list"),
        wrong("[1, \"a\"]", "prompt[1]: is a string, expected a token id"),
        wrong("[\"a\", 1]", "prompt[1]: is a number, expected a string or a list"),
        wrong("[4294967296]", "prompt[0]: is 4294967296, expected a token id"),
        wrong("[[7, -1]]", "prompt[0][1]: is -1, expected a token id"),
        wrong("null", "the body has neither messages nor a prompt, expected one"),
        (question(r#""prompt": "a""#), "the body has both messages and a prompt, expected one"),
    ]);
    let several = "prompt: a list of several is not supported, expected one prompt";
    all_unsupported(&[wrong(r#"["a", "b"]"#, several), wrong("[[1], [2]]", several)]);
}

#[test]
fn sampling_is_what_the_body_says() {
    let check = |fields: &str, change: fn(&mut SamplingParams)| {
        let mut expected = SamplingParams { top_k: Some(9), logprobs: Some(1), ..SamplingParams::default() };
        let asked = read(question(fields).as_bytes(), &expected).unwrap();
        change(&mut expected);
        assert_eq!(asked.request.sampling, expected, "{fields}");
    };
    check(r#""temperature": null, "stop": null, "n": null"#, |_| {});
    check(r#""top_k": 0"#, |params| params.top_k = None);
    check(r#""top_k": -1"#, |params| params.top_k = None);
    check(r#""seed": -9223372036854775808"#, |params| params.seed = Some(1 << 63));
    check(r#""seed": 9223372036854775808"#, |params| params.seed = Some(1 << 63));
    check(r#""stop": "a""#, |params| params.stop = vec!["a".into()]);
    check(r#""stop": []"#, |params| params.stop = Vec::new());
    check(r#""max_tokens": 3"#, |params| params.max_tokens = Some(3));
    check(r#""max_tokens": 3, "max_completion_tokens": 3"#, |params| params.max_tokens = Some(3));
    check(r#""logprobs": false, "top_logprobs": 0"#, |params| params.logprobs = None);
    check(r#""logprobs": true"#, |params| params.logprobs = Some(0));
    check(r#""logprobs": true, "top_logprobs": 20"#, |params| params.logprobs = Some(20));
    // Out of range, which is the engine's to say.
    check(r#""temperature": -1e30, "logit_bias": {}"#, |params| params.temperature = -1e30);
}

#[test]
fn wrong_numbers_are_named_with_what_was_expected() {
    let wrong = |fields: &str, message| (question(fields), message);
    all_wrong(&[
        wrong(r#""temperature": "0""#, "temperature: is a string, expected a number"),
        wrong(r#""temperature": 1e39"#, "temperature: is 1e+39, expected a number of 32 bits"),
        wrong(r#""top_p": [1]"#, "top_p: is a list, expected a number"),
        wrong(r#""min_p": true"#, "min_p: is a boolean, expected a number"),
        wrong(r#""presence_penalty": {}"#, "presence_penalty: is an object, expected a number"),
        wrong(r#""frequency_penalty": "1""#, "frequency_penalty: is a string, expected a number"),
        wrong(r#""repetition_penalty": "1""#, "repetition_penalty: is a string, expected a number"),
        wrong(r#""n": 1e30"#, "n: is 1e+30, expected a whole number of at least 0"),
        wrong(r#""n": -1"#, "n: is -1, expected a whole number of at least 0"),
        wrong(r#""n": 1.5"#, "n: is 1.5, expected a whole number of at least 0"),
        wrong(r#""n": "1""#, "n: is a string, expected a whole number of at least 0"),
        wrong(
            r#""max_tokens": 18446744073709551616"#,
            "max_tokens: is 1.8446744073709552e+19, expected a whole number of at least 0",
        ),
        wrong(r#""min_tokens": 0.0"#, "min_tokens: is 0.0, expected a whole number of at least 0"),
        wrong(
            r#""max_tokens": 1, "max_completion_tokens": 2"#,
            "the body has a max_tokens of 1 and a max_completion_tokens of 2, expected one number",
        ),
        wrong(r#""top_k": -2"#, "top_k: is -2, expected a whole number of at least -1"),
        wrong(r#""seed": 1.5"#, "seed: is 1.5, expected a whole number of 64 bits"),
        wrong(
            r#""seed": -9223372036854775809"#,
            "seed: is -9.223372036854776e+18, expected a whole number of 64 bits",
        ),
        wrong(r#""priority": 128"#, "priority: is 128, expected a whole number from -128 to 127"),
        wrong(r#""timeout_ms": 0"#, "timeout_ms: is 0, expected a whole number of at least 1"),
        wrong(r#""timeout_ms": -5"#, "timeout_ms: is -5, expected a whole number of at least 1"),
        wrong(r#""stop_token_ids": [1, -1]"#, "stop_token_ids[1]: is -1, expected a token id"),
        wrong(r#""top_logprobs": 2"#, "top_logprobs: is given, expected logprobs to be true"),
        wrong(r#""logprobs": 2"#, "logprobs: is a number, expected a boolean"),
        (
            r#"{"prompt": "a", "logprobs": true}"#.into(),
            "logprobs: is a boolean, expected a whole number of at least 0",
        ),
        (r#"{"prompt": "a", "top_logprobs": 1}"#.into(), "unknown field `top_logprobs`"),
    ]);
}

#[test]
fn wrong_fields_are_named_with_what_was_expected() {
    let wrong = |fields: &str, message| (question(fields), message);
    all_wrong(&[
        wrong(r#""model": 3"#, "model: is a number, expected a string"),
        wrong(r#""user": ["a"]"#, "user: is a list, expected a string"),
        wrong(r#""cache_salt": 1"#, "cache_salt: is a number, expected a string"),
        wrong(r#""ignore_eos": 1"#, "ignore_eos: is a number, expected a boolean"),
        wrong(r#""stream": "true""#, "stream: is a string, expected a boolean"),
        wrong(r#""stream_options": {}"#, "stream_options: is given, expected stream to be true"),
        wrong(r#""stream": true, "stream_options": {"usage": true}"#, "unknown field `stream_options.usage`"),
        wrong(r#""stop": 1"#, "stop: is a number, expected a string or a list of strings"),
        wrong(r#""stop": ["a", null]"#, "stop[1]: is null, expected a string"),
        wrong(r#""logit_bias": [1]"#, "logit_bias: is a list, expected an object"),
        wrong(r#""logit_bias": {"7": "1"}"#, "logit_bias.7: is a string, expected a number"),
        wrong(r#""logit_bias": {"+7": 1}"#, r#"logit_bias: has the key "+7", expected token ids"#),
        wrong(r#""logit_bias": {"07": 1}"#, r#"logit_bias: has the key "07", expected token ids"#),
        wrong(r#""chat_template_kwargs": "a""#, "chat_template_kwargs: is a string, expected an object"),
        wrong(
            r#""chat_template_kwargs": {"tools": []}"#,
            "chat_template_kwargs.tools: is the body's own, expected another name",
        ),
        wrong(
            r#""chat_template_kwargs": {"add_generation_prompt": true}, "add_generation_prompt": true"#,
            "add_generation_prompt: is in chat_template_kwargs too",
        ),
        wrong(r#""temprature": 1"#, "unknown field `temprature`"),
        wrong(r#""a\nb": 1"#, "unknown field `a b`"),
        (r#"{"prompt": "a", "tools": []}"#.into(), "unknown field `tools`"),
    ]);
    let long = format!(r#""{}": 1"#, "é".repeat(1000));
    refused(question(&long), ErrorKind::InvalidRequest, &format!("unknown field `{}…`", "é".repeat(64)));
    assert!(!asked(question(r#""temprature": null, "stream": false"#)).stream);
}

#[test]
fn what_others_serve_is_unsupported_unless_it_asks_for_nothing() {
    for field in unserved::BODY {
        let (name, idle) = field.split_once(": ").unwrap_or((field, "null"));
        asked(question(&format!(r#""{name}": {idle}"#)));
        let message = format!("`{name}` is not supported");
        refused(question(&format!(r#""{name}": {{"a": 1}}"#)), ErrorKind::Unsupported, &message);
    }
    let wrong = |fields: &str, message| (question(fields), message);
    all_unsupported(&[
        wrong(r#""store": true"#, "`store` is not supported"),
        wrong(r#""best_of": 2"#, "best_of: 2 is not supported, expected n, which is 1"),
        wrong(
            r#""stream": true, "stream_options": {"include_obfuscation": true}"#,
            "`stream_options.include_obfuscation` is not supported",
        ),
        (
            talk(r#"{"role": "assistant", "content": "a", "audio": {"id": "b"}}"#),
            "`messages[0].audio` is not supported",
        ),
    ]);
}

#[test]
fn wrong_messages_are_named_by_their_path() {
    let wrong = |message: &str, error| (talk(message), error);
    all_wrong(&[
        (r#"{"messages": []}"#.into(), "messages: is an empty list, expected at least one message"),
        (r#"{"messages": {}}"#.into(), "messages: is an object, expected a list"),
        wrong("3", "messages[0]: is a number, expected an object"),
        wrong("{}", "messages[0].role: is missing"),
        wrong(r#"{"role": "user"}"#, "messages[0].content: is missing"),
        wrong(r#"{"role": "user", "content": null}"#, "messages[0].content: is missing"),
        wrong(
            r#"{"role": "user", "content": 3}"#,
            "messages[0].content: is a number, expected a string or a list of parts",
        ),
        wrong(
            r#"{"role": "User", "content": ""}"#,
            r#"messages[0].role: is "User", expected system, developer, user, assistant or tool"#,
        ),
        wrong(
            r#"{"role": "user", "content": "a", "tool_calls": []}"#,
            "unknown field `messages[0].tool_calls`",
        ),
        wrong(
            r#"{"role": "user", "content": "a"}, {"role": "user", "content": ["b"]}"#,
            "messages[1].content[0]: is a string, expected an object",
        ),
        (part("{}"), "messages[0].content[0].type: is missing"),
        (part(r#"{"type": "txt"}"#), r#"messages[0].content[0].type: is "txt", expected text or image_url"#),
        (part(r#"{"type": "text"}"#), "messages[0].content[0].text: is missing"),
        (
            part(r#"{"type": "text", "text": "a", "image_url": {}}"#),
            "unknown field `messages[0].content[0].image_url`",
        ),
    ]);
    all_unsupported(&[
        wrong(
            r#"{"role": "function", "content": ""}"#,
            r#"messages[0].role: "function" is not supported, expected system, developer, user, assistant or tool"#,
        ),
        (
            part(r#"{"type": "input_audio", "input_audio": {}}"#),
            r#"messages[0].content[0].type: "input_audio" is not supported, expected text or image_url"#,
        ),
    ]);
}

#[test]
fn a_picture_is_a_data_url() {
    for url in ["data:image/png;base64,YWI=", "DATA:Image/PNG;BASE64,YWI", "data:image/x;base64,YWI="] {
        let chat = chat(asked(picture(url)));
        assert_eq!(chat.images().map(|image| image.to_vec()).collect::<Vec<_>>(), [b"ab"], "{url}");
    }
    let wrong = |url: &str, what: &str| {
        let message = format!("messages[0].content[0].image_url.url: {what}");
        refused(picture(url), ErrorKind::InvalidRequest, &message);
    };
    wrong("", r#"is "", expected a data URL"#);
    wrong("red.png", r#"is "red.png", expected a data URL"#);
    wrong("data:,YWI=", r#"is a data URL of "", expected image/…;base64"#);
    wrong("data:image/png,YWI=", r#"is a data URL of "image/png", expected image/…;base64"#);
    wrong("data:text/plain;base64,YWI=", r#"is a data URL of "text/plain;base64", expected image/…;base64"#);
    wrong("data:image/;base64,YWI=", r#"is a data URL of "image/;base64", expected image/…;base64"#);
    wrong("data:image/png;base64", r#"is a data URL without data, expected an image"#);
    wrong("data:image/png;base64,", r#"is a data URL without data, expected an image"#);
    wrong("data:image/png;base64,YW I=", "is no base64, byte 2 of its data is ' '");
    wrong("data:image/png;base64,YWJ=", "is no base64, byte 2 of its data is 'J'");
    wrong("data:image/png;base64,YWJjZ", "is no base64, its data has 5 symbols");
    wrong("data:image/png;base64,YW==I", "is no base64, byte 2 of its data is '='");
    let path = "messages[0].content[0].image_url";
    let number = r#"{"type": "image_url", "image_url": {"url": 3}}"#;
    let name = r#"{"type": "image_url", "image_url": "data:image/png;base64,YWI="}"#;
    let size = r#"{"type": "image_url", "image_url": {"url": "data:image/png;base64,YWI=", "size": 1}}"#;
    let high =
        r#"{"type": "image_url", "image_url": {"url": "data:image/png;base64,YWI=", "detail": "high"}}"#;
    all_wrong(&[
        (part(number), &format!("{path}.url: is a number, expected a string")),
        (part(name), &format!("{path}: is a string, expected an object")),
        (part(size), &format!("unknown field `{path}.size`")),
    ]);
    all_unsupported(&[
        (picture("https://a.b/c.png"), &format!("{path}.url: is a https URL, only data URLs are read here")),
        (picture("file:///c.png"), &format!("{path}.url: is a file URL, only data URLs are read here")),
        (part(high), &format!(r#"{path}.detail: "high" is not supported, expected auto"#)),
    ]);
}

#[test]
fn tools_have_their_shape() {
    let tool = r#"{"type": "function", "function": {"name": "look", "strict": null}}"#;
    let tools = |fields: &str| chat(asked(question(fields))).tools;
    let given = [serde_json::from_str::<Value>(tool).unwrap()];
    assert_eq!(tools(&format!(r#""tools": [{tool}], "tool_choice": "auto""#)), given);
    assert!(tools(&format!(r#""tools": [{tool}], "tool_choice": "none""#)).is_empty());
    let wrong = |tool: &str, message| (question(&format!(r#""tools": [{tool}]"#)), message);
    all_wrong(&[
        wrong("3", "tools[0]: is a number, expected an object"),
        wrong(r#"{"type": "f"}"#, r#"tools[0].type: is "f", expected function"#),
        wrong(r#"{"type": "function"}"#, "tools[0].function: is missing"),
        wrong(r#"{"type": "function", "function": {}}"#, "tools[0].function.name: is missing"),
        wrong(
            r#"{"type": "function", "function": {"name": "a", "parameters": "b"}}"#,
            "tools[0].function.parameters: is a string, expected an object",
        ),
        wrong(
            r#"{"type": "function", "function": {"name": "a", "returns": "b"}}"#,
            "unknown field `tools[0].function.returns`",
        ),
        (question(r#""tool_choice": "any""#), r#"tool_choice: is "any", expected auto, none or required"#),
        (question(r#""tool_choice": "required""#), "tool_choice: asks for a call, expected tools"),
        (
            question(&format!(
                r#""tools": [{tool}], "tool_choice": {{"type": "function", "function": {{"name": "a"}}}}"#
            )),
            r#"tool_choice: names "a", expected one of tools"#,
        ),
        (
            question(&format!(r#""tools": [{tool}, {tool}]"#)),
            r#"tools: has "look" twice, expected a name for each"#,
        ),
        wrong(
            r#"{"type": "function", "function": {"name": "a b"}}"#,
            r#"tools[0].function.name: is "a b", expected 1 to 64 letters, digits and _ - ."#,
        ),
        (
            question(r#""reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": true}"#),
            "reasoning_effort: is given beside enable_thinking of chat_template_kwargs, expected one of them",
        ),
    ]);
    all_unsupported(&[
        wrong(r#"{"type": "custom"}"#, r#"tools[0].type: "custom" is not supported, expected function"#),
        (
            question(r#""tool_choice": {"type": "allowed_tools"}"#),
            r#"tool_choice.type: "allowed_tools" is not supported, expected function"#,
        ),
        // What a model must settle is not for those who ask without one.
        (
            question(&format!(r#""tools": [{tool}], "tool_choice": "required""#)),
            "tool_choice: is not supported here",
        ),
        (
            question(&format!(r#""tools": [{tool}], "parallel_tool_calls": false"#)),
            "parallel_tool_calls: is not supported here",
        ),
        (question(r#""thinking_token_budget": 3"#), "thinking_token_budget: is not supported here"),
        (question(r#""reasoning_effort": "high""#), "reasoning_effort: is not supported here"),
    ]);
}

#[test]
fn tool_calls_have_their_shape() {
    let called = |call: &str| talk(&format!(r#"{{"role": "assistant", "tool_calls": [{call}]}}"#));
    let wrong = |arguments: &str, what: &str| {
        let function = format!(r#"{{"name": "a", "arguments": {arguments}}}"#);
        let call = called(&format!(r#"{{"id": "1", "type": "function", "function": {function}}}"#));
        let message = format!("messages[0].tool_calls[0].function.arguments: {what}");
        refused(call, ErrorKind::InvalidRequest, &message);
    };
    wrong("{}", "is an object, expected a string");
    wrong(r#""[]""#, "is a list, expected an object in the string");
    wrong(
        r#""{""#,
        "is no JSON, EOF while parsing an object at line 1 column 1, expected an object in a string",
    );
    wrong(
        r#""{\"a\": 1, \"a\": 2}""#,
        "is no JSON, `a` is there twice at line 1 column 12, expected an object in a string",
    );
    all_wrong(&[
        (called("{}"), "messages[0].tool_calls[0].id: is missing"),
        (called(r#"{"id": "1"}"#), "messages[0].tool_calls[0].type: is missing"),
        (
            called(
                r#"{"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}, "index": 0}"#,
            ),
            "unknown field `messages[0].tool_calls[0].index`",
        ),
    ]);
}

#[test]
fn an_answer_may_be_held_to_a_format() {
    let schema = |text: &str| Some(Grammar::JsonSchema(text.into()));
    let check = |fields: &str, expected: Option<Grammar>| assert_eq!(grammar(&question(fields)), expected);
    check(r#""response_format": {"type": "text"}"#, None);
    check(r#""response_format": {"type": "json_object"}"#, schema(r#"{"type":"object"}"#));
    check(r#""structured_outputs": {"json": {"b": 1, "a": 2}}"#, schema(r#"{"b":1,"a":2}"#));
    check(r#""structured_outputs": {"json": "{ }", "regex": null}"#, schema("{ }"));
    check(r#""structured_outputs": {"grammar": "start: /a/"}"#, Some(Grammar::Lark("start: /a/".into())));
    check(
        r#""response_format": {"type": "text"}, "structured_outputs": {"regex": "a"}"#,
        Some(Grammar::Regex("a".into())),
    );
    let wrong = |fields: &str, message| (question(fields), message);
    all_wrong(&[
        wrong(r#""response_format": "json""#, "response_format: is a string, expected an object"),
        wrong(r#""response_format": {}"#, "response_format.type: is missing"),
        wrong(
            r#""response_format": {"type": "json"}"#,
            r#"response_format.type: is "json", expected text, json_object or json_schema"#,
        ),
        wrong(r#""response_format": {"type": "json_schema"}"#, "response_format.json_schema: is missing"),
        wrong(
            r#""response_format": {"type": "json_schema", "json_schema": {"name": "a"}}"#,
            "response_format.json_schema.schema: is missing",
        ),
        wrong(
            r#""response_format": {"type": "json_schema", "json_schema": {"schema": {}}}"#,
            "response_format.json_schema.name: is missing",
        ),
        wrong(
            r#""response_format": {"type": "text", "json_schema": {}}"#,
            "unknown field `response_format.json_schema`",
        ),
        wrong(
            r#""structured_outputs": {}"#,
            "structured_outputs: has none of json, regex and grammar, expected one",
        ),
        wrong(
            r#""structured_outputs": {"json": {}, "regex": "a"}"#,
            "structured_outputs: has several of json, regex and grammar, expected one",
        ),
        wrong(
            r#""structured_outputs": {"json": []}"#,
            "structured_outputs.json: is a list, expected a schema as an object or as a string",
        ),
        wrong(
            r#""response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}"#,
            "the body has both a response_format and structured_outputs, expected one of them",
        ),
    ]);
    all_unsupported(&[wrong(
        r#""structured_outputs": {"choice": ["a"]}"#,
        "`structured_outputs.choice` is not supported",
    )]);
}

#[test]
fn what_is_no_json_object_is_refused_with_its_place() {
    let wrong = |body: &[u8], message: &str| refused(body, ErrorKind::InvalidRequest, message);
    wrong(b"", "the body: EOF while parsing a value at line 1 column 0");
    wrong(b"{", "the body: EOF while parsing an object at line 1 column 1");
    wrong(b"{}\n{}", "the body: trailing characters at line 2 column 1");
    wrong(b"[]", "the body is a list, expected an object");
    wrong(b"null", "the body is null, expected an object");
    wrong(b"{\"prompt\": \"\xff\"}", "the body: invalid unicode code point at line 1 column 13");
    wrong(br#"{"prompt": "\ud800"}"#, "the body: unexpected end of hex escape at line 1 column 19");
    wrong(br#"{"n": 1e400}"#, "the body: number out of range at line 1 column 11");
    wrong(br#"{"prompt": "a", "prompt": "b"}"#, "the body: `prompt` is there twice at line 1 column 24");
    wrong(br#"{"tools": [{"a": {"b": 1, "b": 1}}]}"#, "the body: `b` is there twice at line 1 column 29");
    let deep = |num_levels: usize| format!("{}{}", "[".repeat(num_levels), "]".repeat(num_levels));
    for num_levels in [127, 1000, 1_000_000] {
        let body = format!(r#"{{"prompt": {}}}"#, deep(num_levels));
        wrong(body.as_bytes(), "the body: recursion limit exceeded at line 1 column 138");
    }
    let arguments = json!({"name": "a", "arguments": deep(128)});
    let call = json!({"id": "1", "type": "function", "function": arguments});
    let body = json!({"messages": [{"role": "assistant", "tool_calls": [call]}]});
    wrong(
        body.to_string().as_bytes(),
        "messages[0].tool_calls[0].function.arguments: is no JSON, recursion limit exceeded at line 1 column 128, \
         expected an object in a string",
    );
}

/// What one change does to a body: bytes in a range become others.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
    let words =
        ["null", "-1", "1e30", "{}", "[]", "\"\"", "\"a\":", "0.5", "\\u0000", "data:", ",", "}", "\""];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let bytes = prop_oneof![word, prop::collection::vec(any::<u8>(), 0..3)];
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, bytes), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_body_is_read_or_refused(which in 0..BODIES.len(), changes in changes()) {
        let mut body = BODIES[which].as_bytes().to_vec();
        for (at, len, bytes) in changes {
            let start = at.index(body.len());
            body.splice(start..(start + len).min(body.len()), bytes);
        }
        check_any(&body);
    }

    #[test]
    fn a_changed_value_is_read_or_refused(which in 0..BODIES.len(), at in any::<prop::sample::Index>(), value in values()) {
        let mut body: Value = serde_json::from_str(BODIES[which]).unwrap();
        let num_values = count_values(&body);
        replace(&mut body, &mut at.index(num_values), &value);
        check_any(body.to_string().as_bytes());
    }
}

fn check_any(body: &[u8]) {
    let fetch = |_: &str| Ok(vec![0].into());
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let endpoints = [Endpoint::Chat, Endpoint::Completions, Endpoint::Responses];
    let read_at = endpoints.map(|endpoint| asked_at(endpoint, body).map(drop).map_err(Error::from));
    let tokens = read_tokenize(body, &context).map(drop).map_err(Error::from);
    let text = read_detokenize(body).map(drop).map_err(Error::from);
    let either = read(body, &SamplingParams::default()).map(drop);
    for result in read_at.into_iter().chain([tokens, text, either]) {
        match result {
            Ok(()) => assert!(serde_json::from_slice::<Map<String, Value>>(body).is_ok()),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Unsupported),
                    "{error:?}"
                );
                assert!(
                    error.message().len() < 1000 && !error.message().contains(char::is_control),
                    "{error}"
                );
            }
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!("a"),
        json!([]),
        json!({}),
    ];
    let more =
        [json!(["a"]), json!([[1]]), json!({"a": 1}), json!({"type": "text", "text": "a"}), json!(0.5)];
    prop::sample::select(values.into_iter().chain(more).collect::<Vec<_>>())
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

fn count_values(value: &Value) -> usize {
    1 + children(&mut value.clone()).into_iter().map(|child| count_values(child)).sum::<usize>()
}

/// Puts `other` in the place of the value that is `steps` further in document order.
fn replace(value: &mut Value, steps: &mut usize, other: &Value) -> bool {
    if *steps == 0 {
        *value = other.clone();
        return true;
    }
    *steps -= 1;
    children(value).into_iter().any(|child| replace(child, steps, other))
}
