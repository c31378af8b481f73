//! Any conversation and any text through the bundled model's processor: refused, or ids and images that fit together.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pyrex_core::models::Processor;
use pyrex_core::models::gemma4::prompt::Gemma4Processor;
use pyrex_core::prompt::tokenizer::Tokenizer;
use pyrex_core::{Chat, Content, ErrorKind, Message, ModelSource, Part, Prompt};
use pyrex_fuzz::{assert_encoded, assert_refusal, check};
use pyrex_tests::{golden_dir, model_dir};
use serde_json::{Map, Number, Value};
use std::sync::{Arc, LazyLock};

/// Deeper values than JSON files can hold are refused by their printing.
const MAX_DEPTH: usize = 140;

/// What the templates know by name.
const NAMES: [&str; 16] = [
    "role",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "tool_call_id",
    "reasoning_content",
    "thinking",
    "reasoning",
    "type",
    "text",
    "bos_token",
    "messages",
    "add_generation_prompt",
    "enable_thinking",
];
const ROLES: [&str; 6] = ["system", "user", "assistant", "model", "tool", "developer"];

#[derive(Debug, Arbitrary)]
enum Input {
    Chat { turns: Vec<Turn>, tools: Vec<Json>, variables: Vec<(Name, Json)> },
    Text(Words),
    Ids(Vec<u16>),
}

#[derive(Debug, Arbitrary)]
struct Turn {
    role: Name,
    said: Said,
    fields: Vec<(Name, Json)>,
}

#[derive(Debug, Arbitrary)]
enum Said {
    Nothing,
    Text(Words),
    Parts(Vec<Piece>),
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Text(Words),
    Image(u8),
}

/// A name that something listens to, or any.
#[derive(Debug, Arbitrary)]
enum Name {
    Role(u8),
    Known(u8),
    Any(String),
}

/// Text in which special tokens are likelier than by chance.
#[derive(Debug, Arbitrary)]
struct Words(Vec<Word>);

#[derive(Debug, Arbitrary)]
enum Word {
    Token(u16),
    Any(String),
}

#[derive(Debug)]
struct Json(Value);

impl<'a> Arbitrary<'a> for Json {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        value(u, 0).map(Self)
    }
}

fn value(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH || u.is_empty() {
        return Ok(Value::Null);
    }
    Ok(match u8::arbitrary(u)? % 9 {
        0 => Value::Null,
        1 => bool::arbitrary(u)?.into(),
        2 => i64::arbitrary(u)?.into(),
        3 => u64::arbitrary(u)?.into(),
        4 => Number::from_f64(f64::arbitrary(u)?).map_or(Value::Null, Value::Number),
        5 => Words::arbitrary(u)?.text().into(),
        6 => Value::Array(vec![value(u, depth + 1)?]),
        7 => (0..u.int_in_range(0..=4)?).map(|_| value(u, depth + 1)).collect::<Result<Vec<_>>>()?.into(),
        _ => {
            let mut map = Map::new();
            for _ in 0..u.int_in_range(0..=4)? {
                map.insert(Name::arbitrary(u)?.text(), value(u, depth + 1)?);
            }
            map.into()
        }
    })
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Role(which) => ROLES[usize::from(*which) % ROLES.len()].to_string(),
            Self::Known(which) => NAMES[usize::from(*which) % NAMES.len()].to_string(),
            Self::Any(text) => text.clone(),
        }
    }
}

impl Words {
    fn text(&self) -> String {
        let word = |word: &Word| match word {
            Word::Token(id) => SHARED.tokenizer.id_to_token(u32::from(*id)).unwrap_or_default(),
            Word::Any(text) => text.clone(),
        };
        self.0.iter().map(word).collect()
    }
}

struct Shared {
    processor: Gemma4Processor,
    tokenizer: Tokenizer,
    special_tokens: Vec<String>,
    images: Vec<Arc<[u8]>>,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let source = ModelSource::Path(model_dir("shapes"));
    let tokenizer = source.require("tokenizer.json").expect("the bundled model's tokenizer");
    let raw: Value = serde_json::from_slice(&tokenizer).expect("a tokenizer is JSON");
    let image = |name: &str| std::fs::read(golden_dir().join(name)).expect("an image").into();
    let names =
        ["images/pattern_1x1.png", "images/pattern_900x3.png", "prompt/formats/gif.gif", "images/README.md"];
    Shared {
        processor: Gemma4Processor::new(&source).expect("the bundled model's processor"),
        tokenizer: Tokenizer::from_bytes(&tokenizer).expect("the bundled model's tokenizer"),
        special_tokens: raw["added_tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| Some(token["content"].as_str()?.to_string()))
            .collect(),
        images: names.map(image).into(),
    }
});

fuzz_target!(|input: Input| check(|| encode(input)));

fn encode(input: Input) {
    match input {
        Input::Ids(ids) => decode(&ids.into_iter().map(u32::from).collect::<Vec<_>>()),
        Input::Text(words) => encode_text(&words.text()),
        Input::Chat { turns, tools, variables } => encode_chat(&Chat {
            messages: turns.into_iter().map(message).collect(),
            tools: tools.into_iter().map(|tool| tool.0).collect(),
            variables: object(variables),
        }),
    }
}

fn object(fields: Vec<(Name, Json)>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.text(), value.0)).collect()
}

fn message(turn: Turn) -> Message {
    let image = |which: u8| Arc::clone(&SHARED.images[usize::from(which) % SHARED.images.len()]);
    let part = |piece: Piece| match piece {
        Piece::Text(words) => Part::Text(words.text()),
        Piece::Image(which) => Part::Image(image(which).into()),
    };
    let content = match turn.said {
        Said::Nothing => Content::Nothing,
        Said::Text(words) => Content::Text(words.text()),
        Said::Parts(pieces) => Content::Parts(pieces.into_iter().map(part).collect()),
    };
    Message { role: turn.role.text(), content, fields: object(turn.fields) }
}

fn encode_chat(chat: &Chat) {
    let num_images = chat.images().count();
    match SHARED.processor.encode(&Prompt::Chat(chat.clone())) {
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest]),
        Ok(encoded) => {
            assert_eq!(encoded.images.len(), num_images);
            assert_encoded(&encoded, 9, 16);
            assert!(encoded.input_ids.iter().all(|id| (*id as usize) < SHARED.tokenizer.vocab_size()));
        }
    }
}

fn encode_text(text: &str) {
    match SHARED.processor.encode(&Prompt::Text(text.to_string())) {
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest]),
        Ok(encoded) => {
            assert!(encoded.images.is_empty());
            assert_eq!(encoded.input_ids.first(), SHARED.tokenizer.token_to_id("<bos>").as_ref());
            decode(&encoded.input_ids);
            // Text without special tokens comes back as it went in; the vocabulary has no way to write its own blank.
            let is_plain = !SHARED.special_tokens.iter().any(|token| text.contains(token.as_str()));
            if is_plain && !text.contains('▁') {
                assert_eq!(SHARED.tokenizer.decode(&encoded.input_ids).expect("ids of the vocabulary"), text);
            }
        }
    }
}

/// The pieces of a stream are the text of all ids at once.
fn decode(ids: &[u32]) {
    let mut detokenizer = SHARED.processor.detokenizer();
    let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text.push_str(&detokenizer.finish());
    assert_eq!(text, SHARED.tokenizer.decode(ids).expect("unknown ids are skipped"), "{ids:?}");
}
