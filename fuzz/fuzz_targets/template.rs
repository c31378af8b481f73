//! Any text as a chat template over one conversation: refused, or a prompt of bounded length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyrex_core::prompt::template::ChatTemplate;
use pyrex_core::{Chat, ErrorKind, Message, Part};
use pyrex_fuzz::{assert_refusal, check};
use serde_json::{Map, Value, json};

/// As the core has it: a prompt of this many bytes is longer than any model's context.
const MAX_PROMPT_BYTES: usize = 16 << 20;

fuzz_target!(|source: &str| check(|| render(source)));

fn render(source: &str) {
    let special_tokens = Map::from_iter([("bos_token".to_string(), json!("<bos>"))]);
    let template = match ChatTemplate::new(source, special_tokens) {
        Ok(template) => template,
        Err(error) => return assert_refusal(&error, &[ErrorKind::InvalidModel]),
    };
    match template.render(&chat()) {
        Ok(prompt) => assert!(prompt.len() <= MAX_PROMPT_BYTES, "a prompt of {} bytes", prompt.len()),
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest]),
    }
}

fn chat() -> Chat {
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let call = json!({"function": {"name": "look", "arguments": {"at": [1, 2.5, null, "é"], "deep": {"n": -1e300}}}});
    let mut answer = Message::text("assistant", " I see. ");
    answer.fields = object(json!({"tool_calls": [call], "reasoning": "because"}));
    let picture = Part::Image([0u8; 4].into());
    Chat {
        messages: vec![
            Message::text("system", "Be brief.\n'quoted' \"twice\""),
            Message::parts("user", vec![Part::Text("What is it?".into()), picture]),
            answer,
            Message { fields: object(json!({"tool_call_id": "7"})), ..Message::text("tool", "{}") },
        ],
        tools: vec![
            json!({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}),
        ],
        variables: object(json!({"enable_thinking": true, "numbers": [3, 1, 2], "big": i64::MAX})),
    }
}
