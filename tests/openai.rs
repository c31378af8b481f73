//! OpenAI's bodies through the engine: what a client asks in JSON is what Rust asks in types.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pyrex_core::{
    Chat, Completion, Engine, EngineOptions, Error, Input, Message, Part, Permit, Prompt, Request,
    SamplingParams, Script,
};
use pyrex_openai::{Context, Endpoint, Reply, Served, read_at, read_detokenize, read_tokenize};
use pyrex_tests::scripted::{gated, open};
use pyrex_tests::{model_dir, red_circle};
use serde_json::{Value, json};
use std::sync::LazyLock;

const QUESTION: &str = "Describe this image.";
const ANSWER: &str = "This is a simple image of a solid red circle on a white background.";

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::open(EngineOptions::new(model_dir("shapes"))).expect("the bundled model opens"));

/// The body of the question about the red circle with further fields.
fn body(fields: Value) -> Vec<u8> {
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(red_circle()));
    let parts =
        [json!({"type": "image_url", "image_url": {"url": url}}), json!({"type": "text", "text": QUESTION})];
    let mut body = json!({"model": "shapes", "messages": [{"role": "user", "content": parts}]});
    let fields = fields.as_object().expect("fields");
    body.as_object_mut().expect("an object").extend(fields.clone());
    body.to_string().into_bytes()
}

/// Asks with the sampling that the checkpoint recommends, where the body names none.
fn ask(fields: Value) -> Vec<Completion> {
    let defaults = SamplingParams::from_model(ENGINE.spec());
    let asked = pyrex_openai::read(&body(fields), &defaults).expect("a body");
    ENGINE.submit(asked.request).expect("a request").wait_all().expect("an answer")
}

#[test]
fn a_picture_in_a_body_is_described_as_one_in_types() {
    let parts = vec![Part::Image(red_circle().into()), Part::Text(QUESTION.to_owned())];
    let request = Request::new(Chat::new(vec![Message::parts("user", parts)]));
    let expected = ENGINE.submit(request).expect("a request").wait().expect("an answer");
    let answers = ask(json!({"temperature": 0}));
    assert_eq!(answers[0].text, ANSWER);
    assert_eq!(answers[0].prompt_token_ids, expected.prompt_token_ids);
    assert_eq!(answers[0].token_ids, expected.token_ids);
}

#[test]
fn a_seed_says_the_same_again_in_every_completion() {
    let drawn = || {
        let answers =
            ask(json!({"n": 2, "seed": -7, "temperature": 1.5, "top_k": -1, "top_p": 1, "max_tokens": 12}));
        answers.into_iter().map(|answer| answer.token_ids).collect::<Vec<_>>()
    };
    let answers = drawn();
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0], answers[1]);
    assert_eq!(answers, drawn());
}

#[test]
fn an_answer_keeps_to_the_schema_of_its_response_format() {
    let schema = json!({
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "corners": {"type": "integer", "maximum": 9}},
        "required": ["colour", "corners"],
        "additionalProperties": false,
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "shape", "strict": true, "schema": schema}});
    let answers = ask(json!({"temperature": 0, "max_tokens": 64, "response_format": format}));
    let shape: Value = serde_json::from_str(&answers[0].text).expect("the answer is JSON");
    assert!(shape["colour"].is_string() && shape["corners"].is_i64(), "{shape}");
}

/// The chunks of a stream, without the end mark.
fn chunks(stream: &str) -> Vec<Value> {
    let events = stream.strip_suffix("data: [DONE]\n\n").expect("a stream ends with its mark");
    let chunk = |event: &str| {
        let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}"));
        serde_json::from_str(data).expect("an event holds JSON")
    };
    events.split_terminator("\n\n").map(chunk).collect()
}

/// What a body that was sent to an endpoint of the scripted engine is answered with.
fn reply(engine: &Engine, endpoint: Endpoint, body: &str) -> (u16, &'static str, String) {
    let fetch = |url: &str| Err(Error::unsupported(format_args!("is {url}, and nothing is fetched")));
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let mut asked = read_at(endpoint, body.as_bytes(), &context).expect("a body");
    let served = Served { id: "7".into(), created: 1, model: "scripted".into() };
    let mut reply = Reply::new(&mut asked, engine, served).expect("a reply");
    let mut out = Vec::new();
    for event in engine.submit(asked.request).expect("a request") {
        reply.push(event, &mut out);
    }
    (reply.status(), reply.content_type(), String::from_utf8(out).expect("UTF-8"))
}

#[test]
fn a_conversation_is_answered_whole() {
    let engine = open(Script::of(&[("hi", "hélas")]));
    let body =
        r#"{"messages": [{"role": "user", "content": "hi"}], "n": 2, "logprobs": true, "top_logprobs": 1}"#;
    let (status, content_type, answer) = reply(&engine, Endpoint::Chat, body);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((status, content_type), (200, "application/json"));
    let usage = json!({
        "prompt_tokens": 2, "completion_tokens": 14, "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    });
    assert_eq!(answer["usage"], usage);
    assert_eq!(answer["id"], "chatcmpl-7");
    assert_eq!((&answer["object"], &answer["created"]), (&json!("chat.completion"), &json!(1)));
    for index in 0..2 {
        let choice = &answer["choices"][index];
        let message = json!({"role": "assistant", "content": "hélas", "refusal": null});
        assert_eq!(choice["message"], message);
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(index), &json!("stop")));
        let words = choice["logprobs"]["content"].as_array().expect("logprobs");
        assert_eq!(words.len(), 7);
        assert_eq!((&words[1]["token"], &words[1]["bytes"]), (&json!("\u{fffd}"), &json!([0xc3])));
        assert_eq!(words[0]["token"], "h");
        assert_eq!(words[0]["top_logprobs"][0]["token"], "h");
        assert_eq!(words[6]["bytes"], json!([]));
    }
}

#[test]
fn a_conversation_is_streamed() {
    let engine = open(Script::of(&[("hi", "hé!")]));
    let body = r#"{"messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true}}"#;
    let (status, content_type, stream) = reply(&engine, Endpoint::Chat, body);
    assert_eq!((status, content_type), (200, "text/event-stream"));
    let chunks = chunks(&stream);
    let deltas: Vec<_> =
        chunks[..chunks.len() - 1].iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let role = json!({"role": "assistant", "content": ""});
    assert_eq!(deltas, [&role, &json!({"content": "h"}), &json!({"content": "é!"}), &json!({})]);
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert!(
        chunks[..4]
            .iter()
            .all(|chunk| chunk["usage"].is_null() && chunk["object"] == "chat.completion.chunk")
    );
    assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["total_tokens"]), (&json!([]), &json!(7)));
}

#[test]
fn a_text_is_completed_whole_and_streamed() {
    let engine = open(Script::of(&[("a", "bé!")]));
    let body = r#"{"prompt": "a", "logprobs": 1, "max_tokens": 4}"#;
    let (_, _, answer) = reply(&engine, Endpoint::Completions, body);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("bé!"), &json!("length")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["b", "\u{fffd}", "\u{fffd}", "!"]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 1, 1]));
    let (_, _, stream) = reply(&engine, Endpoint::Completions, r#"{"prompt": "a", "stream": true}"#);
    let texts = chunks(&stream).iter().map(|chunk| chunk["choices"][0]["text"].clone()).collect::<Value>();
    assert_eq!(texts, json!(["b", "é!", ""]));
}

#[test]
fn a_stream_that_fails_before_it_begins_is_a_plain_error() {
    let engine = open(Script::of(&[]));
    let body = r#"{"messages": [{"role": "user", "content": "\u0000"}], "stream": true}"#;
    let (status, content_type, answer) = reply(&engine, Endpoint::Chat, body);
    assert_eq!((status, content_type), (400, "application/json"));
    let error = json!({"message": "the text has a NUL", "type": "invalid_request_error", "param": null, "code": "invalid_request"});
    assert_eq!(serde_json::from_str::<Value>(&answer).expect("JSON"), json!({"error": error}));
}

/// A scripted engine whose answers have Gemma 4's marks.
fn marked(answers: &[(&str, &str)]) -> Engine {
    open(Script { marks: true, ..Script::of(answers) })
}

const LOOK: &str = r#"{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}"#;

/// The body of a conversation with further fields.
fn say(fields: &str) -> String {
    format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}], {fields}}}"#)
}

fn json_of(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// The message and the finish reason of a whole answer.
fn message(engine: &Engine, fields: &str) -> (Value, Value) {
    let (status, _, answer) = reply(engine, Endpoint::Chat, &say(fields));
    assert_eq!(status, 200, "{answer}");
    let choice = json_of(&answer)["choices"][0].clone();
    (choice["message"].clone(), choice["finish_reason"].clone())
}

/// What a reply to this body is refused with: the message and the field.
fn unserved(engine: &Engine, endpoint: Endpoint, body: &str) -> (String, Option<String>) {
    let fetch = |_: &str| Err(Error::unsupported("nothing is fetched"));
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let served = Served { id: "7".into(), created: 1, model: "scripted".into() };
    let refusal = match read_at(endpoint, body.as_bytes(), &context) {
        Ok(mut asked) => Reply::new(&mut asked, engine, served).err().expect("a refusal"),
        Err(refusal) => refusal,
    };
    (refusal.error().message().to_owned(), refusal.param().map(str::to_owned))
}

#[test]
fn a_number_out_of_range_is_refused_by_its_field_before_anything_is_made() {
    let engine = marked(&[]);
    let refused = |endpoint, fields: &str, field: &str, message: &str| {
        let body = match endpoint {
            Endpoint::Chat => say(fields),
            Endpoint::Completions => format!(r#"{{"prompt": "a", {fields}}}"#),
            Endpoint::Responses => format!(r#"{{"input": "a", {fields}}}"#),
        };
        let (found, param) = unserved(&engine, endpoint, &body);
        assert_eq!(param.as_deref(), Some(field), "{found}");
        assert!(found.starts_with(message), "{found}");
    };
    // Room for so many answers would be all of the memory.
    refused(Endpoint::Chat, r#""n": 2147483648"#, "n", "n is 2147483648, expected 1 to 16");
    refused(Endpoint::Completions, r#""n": 9223372036854775807"#, "n", "n is 9223372036854775807");
    refused(Endpoint::Chat, r#""n": 0"#, "n", "n is 0");
    refused(Endpoint::Chat, r#""top_p": 7"#, "top_p", "top_p is 7");
    refused(Endpoint::Chat, r#""temperature": -1"#, "temperature", "temperature is -1");
    refused(Endpoint::Chat, r#""logprobs": true, "top_logprobs": 21"#, "top_logprobs", "logprobs is 21");
    refused(Endpoint::Completions, r#""logprobs": 21"#, "logprobs", "logprobs is 21");
    refused(Endpoint::Chat, r#""max_tokens": 2, "min_tokens": 3"#, "min_tokens", "min_tokens is 3");
    refused(Endpoint::Responses, r#""max_output_tokens": 0"#, "max_output_tokens", "max_tokens is 0");
    refused(
        Endpoint::Chat,
        r#""logit_bias": {"999999": 1}"#,
        "logit_bias",
        "a token id of logit_bias is 999999",
    );
    refused(Endpoint::Chat, r#""stop": [""]"#, "stop", "a stop string is empty");
}

#[test]
fn a_call_of_a_tool_comes_back_as_one() {
    let engine = marked(&[("+lookhi", "Well.\u{3}call:look{at:7,on:\u{5}a\"b\u{5}}\u{4}")]);
    let fields = format!(r#""tools": [{LOOK}]"#);
    let arguments = r#"{"at":7,"on":"a\"b"}"#;
    let call =
        json!({"id": "call_7_0_0", "type": "function", "function": {"name": "look", "arguments": arguments}});
    let (said, finish_reason) = message(&engine, &fields);
    let expected = json!({"role": "assistant", "content": "Well.", "refusal": null, "tool_calls": [call]});
    assert_eq!((said, finish_reason), (expected, json!("tool_calls")));

    let (_, _, stream) = reply(&engine, Endpoint::Chat, &say(&format!(r#"{fields}, "stream": true"#)));
    let chunks = chunks(&stream);
    let deltas = || chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let calls: Vec<_> = deltas().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    let function = json!({"name": "look", "arguments": ""});
    assert_eq!(calls[0], &json!({"index": 0, "id": "call_7_0_0", "type": "function", "function": function}));
    let streamed: String =
        calls[1..].iter().map(|call| call["function"]["arguments"].as_str().expect("a text")).collect();
    assert_eq!(streamed, arguments);
    assert!(calls.len() > 4, "arguments come as they are said");
    let text: String = deltas().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(text, "Well.");
    assert_eq!(chunks[chunks.len() - 1]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn a_call_may_be_demanded() {
    let engine = marked(&[("+lookhi", "I will not."), ("+lookhi\u{3}call:look{", "}")]);
    for choice in [r#""required""#, r#"{"type": "function", "function": {"name": "look"}}"#] {
        let (said, finish_reason) =
            message(&engine, &format!(r#""tools": [{LOOK}], "tool_choice": {choice}, "max_tokens": 40"#));
        assert_eq!((&said["content"], &finish_reason), (&Value::Null, &json!("tool_calls")), "{said}");
        assert_eq!(said["tool_calls"][0]["function"], json!({"name": "look", "arguments": "{}"}));
    }
    let free = message(&engine, &format!(r#""tools": [{LOOK}], "parallel_tool_calls": false"#));
    assert_eq!((&free.0["content"], &free.1), (&json!("I will not."), &json!("stop")));
}

#[test]
fn one_call_at_most_is_one() {
    let two = "\u{3}call:look{}\u{4}\u{3}call:look{}\u{4}";
    let engine = marked(&[("+lookhi", two)]);
    let calls =
        |fields: &str| message(&engine, &format!(r#""tools": [{LOOK}]{fields}"#)).0["tool_calls"].clone();
    assert_eq!(calls("").as_array().map(Vec::len), Some(2));
    assert_eq!(calls(r#", "parallel_tool_calls": false"#).as_array().map(Vec::len), Some(1));
    assert_eq!(calls(r#", "tool_choice": "required""#).as_array().map(Vec::len), Some(2));
}

#[test]
fn reasoning_comes_beside_the_answer() {
    let engine = marked(&[("?hi", "\u{1}thought\nHm.\nSo.\n\u{2}Hello.")]);
    let (said, finish_reason) = message(&engine, r#""reasoning_effort": "low""#);
    let expected =
        json!({"role": "assistant", "content": "Hello.", "refusal": null, "reasoning_content": "Hm.\nSo."});
    assert_eq!((said, finish_reason), (expected, json!("stop")));
    let body = say(r#""reasoning_effort": "low", "stream": true, "stream_options": {"include_usage": true}"#);
    let (_, _, stream) = reply(&engine, Endpoint::Chat, &body);
    let chunks = chunks(&stream);
    let texts = |name: &str| {
        let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str());
        deltas.collect::<String>()
    };
    assert_eq!((texts("reasoning_content").as_str(), texts("content").as_str()), ("Hm.\nSo.", "Hello."));
    let usage = &chunks[chunks.len() - 1]["usage"];
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 18);
}

#[test]
fn reasoning_has_a_budget_and_stands_before_a_format() {
    let engine = marked(&[
        ("?hi", "\u{1}thought\nHm, for a long time."),
        ("?hi\u{1}thought\nHm\u{2}", "Hello."),
        ("hi", "\u{1}"),
    ]);
    let (said, _) = message(&engine, r#""reasoning_effort": "high", "thinking_token_budget": 10"#);
    assert_eq!((&said["reasoning_content"], &said["content"]), (&json!("Hm"), &json!("Hello.")));
    let engine = marked(&[("?hi", "\u{1}thought\nHm\n\u{2}{\"a\":1}")]);
    let fields = r#""reasoning_effort": "high", "response_format": {"type": "json_object"}"#;
    let (said, _) = message(&engine, fields);
    assert_eq!((&said["reasoning_content"], &said["content"]), (&json!("Hm"), &json!("{\"a\":1}")));
}

#[test]
fn what_a_model_cannot_do_is_refused_by_its_field() {
    let plain = open(Script::of(&[]));
    let refused = |fields: &str, message: &str, param: &str| {
        assert_eq!(
            unserved(&plain, Endpoint::Chat, &say(fields)),
            (message.to_owned(), Some(param.to_owned()))
        );
    };
    refused(
        &format!(r#""tools": [{LOOK}]"#),
        "tools: are not supported: this model's template shows none",
        "tools",
    );
    let mute = "is not supported: this model does not reason";
    refused(r#""reasoning_effort": "low""#, &format!("reasoning_effort: {mute}"), "reasoning_effort");
    refused(
        r#""thinking_token_budget": 5"#,
        &format!("thinking_token_budget: {mute}"),
        "thinking_token_budget",
    );
    let format = format!(r#""tools": [{LOOK}], "response_format": {{"type": "json_object"}}"#);
    let beside = "response_format: is not supported beside tools, expected a tool_choice of none";
    let expected = (beside.to_owned(), Some("response_format".to_owned()));
    assert_eq!(unserved(&marked(&[]), Endpoint::Chat, &say(&format)), expected);
    refused(r#""temperature": -1"#, "temperature is -1, expected a number of at least 0", "temperature");
    refused(r#""top_p": 2"#, "top_p is 2, expected a number above 0 and up to 1", "top_p");
    refused(r#""n": 0"#, &format!("n is 0, expected 1 to {}", plain.config().max_sequences), "n");
    // The bundled model's template shows no tools and knows no thinking.
    for (fields, param) in [
        (format!(r#""tools": [{LOOK}]"#), "tools"),
        (r#""reasoning_effort": "low""#.into(), "reasoning_effort"),
    ] {
        assert_eq!(unserved(&ENGINE, Endpoint::Chat, &say(&fields)).1.as_deref(), Some(param));
    }
}

/// The events of a streamed response.
fn response_events(stream: &str) -> Vec<Value> {
    let event = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        let data = json_of(data);
        assert_eq!(Some(name), data["type"].as_str().map(|name| format!("event: {name}")).as_deref());
        data
    };
    let events: Vec<Value> = stream.split_terminator("\n\n").map(event).collect();
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());
    events
}

#[test]
fn a_response_has_items() {
    let engine = marked(&[("+look?Be kind.hi", "\u{1}thought\nHm.\n\u{2}Well.\u{3}call:look{at:7}\u{4}")]);
    let look = r#"{"type": "function", "name": "look", "parameters": {"type": "object"}}"#;
    let body = |stream: bool| {
        format!(
            r#"{{"input": "hi", "instructions": "Be kind.", "tools": [{look}], "reasoning": {{"effort": "low"}}, "stream": {stream}}}"#
        )
    };
    let (status, _, answer) = reply(&engine, Endpoint::Responses, &body(false));
    let whole = json_of(&answer);
    assert_eq!((status, &whole["status"], &whole["object"]), (200, &json!("completed"), &json!("response")));
    let text = json!({"type": "output_text", "text": "Well.", "annotations": [], "logprobs": []});
    let output = json!([
        {"type": "reasoning", "id": "rs_7_0", "summary": [], "status": "completed",
            "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "id": "msg_7_1", "status": "completed", "role": "assistant", "content": [text]},
        {"type": "function_call", "id": "fc_7_2", "call_id": "call_7_2", "name": "look",
            "arguments": "{\"at\":7}", "status": "completed"},
    ]);
    assert_eq!(whole["output"], output);
    assert_eq!(
        (&whole["usage"]["total_tokens"], &whole["instructions"]),
        (&json!(53), &json!("Be kind.")),
        "{whole}"
    );

    let (_, content_type, stream) = reply(&engine, Endpoint::Responses, &body(true));
    assert_eq!(content_type, "text/event-stream");
    let events = response_events(&stream);
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    let joined = |kind: &str| {
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        of_kind.filter_map(|event| event["delta"].as_str()).collect::<String>()
    };
    assert_eq!(joined("response.reasoning_text.delta"), "Hm.");
    assert_eq!(joined("response.output_text.delta"), "Well.");
    assert_eq!(joined("response.function_call_arguments.delta"), "{\"at\":7}");
    let last = &events[events.len() - 1];
    assert_eq!((&last["type"], &last["response"]["output"]), (&json!("response.completed"), &output));
    let done = events.iter().find(|event| event["type"] == "response.output_text.done").expect("a text ends");
    assert_eq!((&done["text"], &done["output_index"]), (&json!("Well."), &json!(1)));
}

#[test]
fn a_response_that_is_cut_off_says_so() {
    let engine = marked(&[("hi", "Hello there.")]);
    let body = r#"{"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "max_output_tokens": 5}"#;
    let whole = json_of(&reply(&engine, Endpoint::Responses, body).2);
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello");
    let stream = reply(
        &engine,
        Endpoint::Responses,
        &body.replace("\"max_output_tokens\": 5", "\"max_output_tokens\": 5, \"stream\": true"),
    )
    .2;
    assert_eq!(response_events(&stream).last().expect("events")["type"], "response.incomplete");
}

#[test]
fn what_a_response_cannot_do_is_refused_by_its_field() {
    let engine = marked(&[]);
    let refused = |fields: &str, param: &str| {
        let (message, found) =
            unserved(&engine, Endpoint::Responses, &format!(r#"{{"input": "hi", {fields}}}"#));
        assert_eq!(found.as_deref(), Some(param), "{message}");
    };
    refused(r#""previous_response_id": "a""#, "previous_response_id");
    refused(r#""store": true"#, "store");
    refused(r#""background": true"#, "background");
    refused(r#""tools": [{"type": "web_search"}]"#, "tools[0].type");
    refused(r#""include": ["reasoning.encrypted_content"]"#, "include");
    refused(r#""max_tokens": 3"#, "max_tokens");
    refused(r#""reasoning": {"summary": "auto"}"#, "reasoning.summary");
}

#[test]
fn a_conversation_in_items_is_one_in_turns() {
    let body = r#"{"instructions": "a", "input": [
        {"role": "user", "content": "b"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "c"}], "status": "completed"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "d", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "look", "arguments": "{}", "status": "completed"},
        {"type": "function_call", "call_id": "2", "name": "look", "arguments": "{\"at\": 1}"},
        {"type": "function_call_output", "call_id": "1", "output": "e"},
        {"role": "user", "content": [{"type": "input_text", "text": "f"}, {"type": "input_image", "detail": "auto", "image_url": "https://a.b/c.png"}]}
    ]}"#;
    let fetch = |url: &str| Ok(url.as_bytes().to_vec().into());
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let asked = read_at(Endpoint::Responses, body.as_bytes(), &context).expect("a body");
    let Input::Prompt(Prompt::Chat(chat)) = asked.request.input else { panic!("expected a conversation") };
    let roles: Vec<&str> = chat.messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "assistant", "tool", "user"]);
    assert_eq!(chat.messages[2].fields["reasoning_content"], "c");
    let call = |id: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}});
    assert_eq!(
        chat.messages[3].fields["tool_calls"],
        json!([call("1", json!({})), call("2", json!({"at": 1}))])
    );
    assert_eq!(chat.messages[4].fields["tool_call_id"], "1");
    assert_eq!(chat.images().map(|image| image.to_vec()).collect::<Vec<_>>(), [b"https://a.b/c.png"]);
}

#[test]
fn an_image_that_cannot_be_fetched_is_named() {
    let engine = marked(&[]);
    let body = r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c"}}]}]}"#;
    let path = "messages[0].content[0].image_url.url";
    let expected = (format!("{path}: nothing is fetched"), Some(path.to_owned()));
    assert_eq!(unserved(&engine, Endpoint::Chat, body), expected);
}

#[test]
fn texts_become_ids_and_ids_texts() {
    let engine = marked(&[]);
    let fetch = |_: &str| Err(Error::unsupported("nothing is fetched"));
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let tokens = |body: &str| {
        let asked = read_tokenize(body.as_bytes(), &context).expect("a body");
        serde_json::from_slice::<Value>(&asked.body(&engine).expect("ids")).expect("JSON")
    };
    let max_model_len = engine.config().max_model_len;
    let expected = json!({"tokens": [104, 105], "count": 2, "max_model_len": max_model_len});
    assert_eq!(tokens(r#"{"prompt": "hi"}"#), expected);
    assert_eq!(tokens(r#"{"prompt": "hi", "add_special_tokens": false}"#), expected);
    assert_eq!(tokens(&say(r#""model": "a""#)), expected);
    let text =
        read_detokenize(br#"{"tokens": [104, 195, 169]}"#).expect("a body").body(&engine).expect("a text");
    assert_eq!(text, "{\"prompt\":\"hé\"}".as_bytes());
    let far =
        read_detokenize(br#"{"tokens": [1, 300]}"#).expect("a body").body(&engine).expect_err("a refusal");
    assert_eq!(
        (far.error().message(), far.param()),
        ("tokens[1]: is 300, expected one below 258", Some("tokens[1]"))
    );
    let none = read_tokenize(b"{}", &context).expect_err("a refusal");
    assert_eq!(none.error().message(), "the body has neither messages nor a prompt, expected one");
}

/// What is wrong with a value by its schema, if anything: of the schemas that types become, no more is needed.
fn misfit(schemas: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return misfit(schemas, &schemas[name.rsplit('/').next().expect("a name")], value);
    }
    if let Some(all) = schema["oneOf"].as_array() {
        let fits = all.iter().any(|one| misfit(schemas, one, value).is_none());
        return (!fits).then(|| format!("{value} is none of {schema}"));
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().find_map(|one| misfit(schemas, one, value));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if !number.is_f64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_kind = |name: &Value| name == kind || kind == "integer" && name == "number";
    let kinds = &schema["type"];
    if !kinds.is_null() && !is_kind(kinds) && !kinds.as_array().is_some_and(|all| all.iter().any(is_kind)) {
        return Some(format!("{value} is no {kinds}"));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return Some(format!("{value} is not in {}", schema["enum"]));
    }
    match value {
        Value::Array(items) => items.iter().find_map(|item| misfit(schemas, &schema["items"], item)),
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let missing = required.filter_map(Value::as_str).find(|name| !fields.contains_key(*name));
            let properties = schema["properties"].as_object();
            let inner = |(name, field): (&String, &Value)| match properties.map(|all| all.get(name)) {
                Some(Some(schema)) => misfit(schemas, schema, field),
                Some(None) => Some(format!("{name} is not in the schema")),
                None => None,
            };
            missing
                .map(|name| format!("{name} is missing in {value}"))
                .or_else(|| fields.iter().find_map(inner))
        }
        _ => None,
    }
}

#[test]
fn what_is_answered_fits_its_schema() {
    let schemas = serde_json::to_value(pyrex_openai::components()).expect("JSON")["schemas"].clone();
    let fits = |name: &str, value: &Value| {
        assert!(schemas[name].is_object(), "{name}");
        assert_eq!(misfit(&schemas, &schemas[name], value), None, "{name}: {value}");
    };
    let engine =
        marked(&[("+look?hi", "\u{1}thought\nHm.\n\u{2}Well.\u{3}call:look{at:7}\u{4}"), ("a", "bé!")]);
    let fields =
        format!(r#""tools": [{LOOK}], "reasoning_effort": "low", "logprobs": true, "top_logprobs": 2"#);
    fits("ChatCompletion", &json_of(&reply(&engine, Endpoint::Chat, &say(&fields)).2));
    let stream = r#""stream": true, "stream_options": {"include_usage": true}"#;
    let chunks_of = |endpoint, body: &str| chunks(&reply(&engine, endpoint, body).2);
    let streamed = chunks_of(Endpoint::Chat, &say(&format!("{fields}, {stream}")));
    streamed.iter().for_each(|chunk| fits("ChatChunk", chunk));
    let text = format!(r#"{{"prompt": "a", "logprobs": 2, {stream}}}"#);
    chunks_of(Endpoint::Completions, &text).iter().for_each(|chunk| fits("TextCompletion", chunk));
    let whole = reply(&engine, Endpoint::Completions, r#"{"prompt": "a", "logprobs": 2, "max_tokens": 2}"#).2;
    fits("TextCompletion", &json_of(&whole));
    let look = r#"{"type": "function", "name": "look"}"#;
    for more in ["", r#", "max_output_tokens": 12"#] {
        let body = |stream: bool| {
            format!(
                r#"{{"input": "hi", "tools": [{look}], "reasoning": {{"effort": "low"}}, "stream": {stream}{more}}}"#
            )
        };
        fits("ResponseObject", &json_of(&reply(&engine, Endpoint::Responses, &body(false)).2));
        let events = response_events(&reply(&engine, Endpoint::Responses, &body(true)).2);
        events.iter().for_each(|event| fits("ResponseEvent", event));
    }
    let list = String::from_utf8(pyrex_openai::models_body(&[("a", 1), ("b", 2)])).expect("UTF-8");
    fits("ModelList", &json_of(&list));
    fits("Model", &json_of(&String::from_utf8(pyrex_openai::model_body("a", 1)).expect("UTF-8")));
    let error = pyrex_openai::error_body(&Error::overloaded("full"), Some("n"));
    fits("ErrorBody", &serde_json::from_slice(&error).expect("JSON"));
    let model = json!({"id": 3, "object": "model", "created": 1, "owned_by": "pyrex"});
    assert_eq!(misfit(&schemas, &schemas["Model"], &model).as_deref(), Some("3 is no \"string\""));
}

#[test]
fn a_stream_that_fails_later_says_so_and_ends() {
    let (script, keeper) = gated(Script { marks: true, ..Script::of(&[("hi", "Hello.")]) });
    let engine = open(script);
    for (endpoint, body) in [
        (Endpoint::Chat, say(r#""stream": true"#)),
        (Endpoint::Completions, r#"{"prompt": "hi", "stream": true}"#.to_owned()),
        (Endpoint::Responses, r#"{"input": "hi", "stream": true}"#.to_owned()),
    ] {
        let answer = std::thread::scope(|threads| {
            let answer = threads.spawn(|| reply(&engine, endpoint, &body));
            for permit in [Permit::Answer, Permit::Answer, Permit::Fail] {
                keeper.wait().expect("a step");
                keeper.let_pass(permit);
            }
            answer.join().expect("an answer")
        });
        let (status, content_type, stream) = answer;
        assert_eq!((status, content_type), (200, "text/event-stream"));
        if endpoint == Endpoint::Responses {
            let last = response_events(&stream).pop().expect("events");
            assert_eq!(
                (&last["type"], &last["response"]["status"]),
                (&json!("response.failed"), &json!("failed"))
            );
            assert_eq!(last["response"]["error"]["code"], "server_error");
            assert_eq!(last["response"]["output"][0]["status"], "incomplete");
        } else {
            let last = chunks(&stream).pop().expect("chunks");
            assert_eq!(
                (&last["error"]["type"], &last["error"]["code"]),
                (&json!("server_error"), &json!("device"))
            );
        }
    }
}
