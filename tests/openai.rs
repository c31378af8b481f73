//! OpenAI's bodies through the engine: what a client asks in JSON is what Rust asks in types.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pyrex_core::{Chat, Completion, Engine, EngineOptions, Message, Part, Request, SamplingParams};
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
