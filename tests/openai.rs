//! OpenAI's bodies through the engine: what a client asks in JSON is what Rust asks in types.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pyrex_core::{
    Chat, Completion, Engine, EngineOptions, Error, Message, Part, Request, SamplingParams, Script,
};
use pyrex_openai::{Context, Endpoint, Reply, Served, read_at};
use pyrex_tests::scripted::open;
use pyrex_tests::{model_dir, repository};
use serde_json::{Value, json};
use std::fs;
use std::sync::LazyLock;

const QUESTION: &str = "Describe this image.";
const ANSWER: &str = "This is a simple image of a solid red circle on a white background.";

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::open(EngineOptions::new(model_dir("shapes"))).expect("the bundled model opens"));

fn red_circle() -> Vec<u8> {
    fs::read(repository().join("models/shapes/examples/red_circle.png")).expect("the bundled example")
}

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
