//! The tokenizer and the template engine with Gemma 4's real vocabulary and templates; `make test-vocab` fetches them.
//!
//! llama.cpp's vectors and the reference agree in all of them, so each must be met.

use candle_core::quantized::gguf_file::{Content, Value as Gguf};
use pyrex_core::engine::grammar::GrammarCompiler;
use pyrex_core::prompt::template::ChatTemplate;
use pyrex_core::prompt::tokenizer::Tokenizer;
use pyrex_core::prompt::{Chat, Content as Said, Message, Part};
use pyrex_core::{Grammar, TokenMask};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn fetched(name: &str) -> Vec<u8> {
    std::fs::read(root().join(".cache/vocab").join(name)).expect("scripts/test-vocab.sh fetches it")
}

fn golden(name: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(root().join("tests/golden/prompt").join(name)).unwrap()).unwrap()
}

fn gguf() -> Content {
    Content::read(&mut std::io::Cursor::new(fetched("ggml-vocab-gemma-4.gguf"))).unwrap()
}

fn list<'a>(content: &'a Content, key: &str) -> &'a [Gguf] {
    content.metadata[key].to_vec().unwrap()
}

/// The vocabulary in the pipeline of the bundled model's tokenizer, which is that of Gemma 4.
fn tokenizer() -> Tokenizer {
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;
    let content = gguf();
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(root().join("models/shapes/tokenizer.json")).unwrap()).unwrap();
    let tokens: Vec<&String> =
        list(&content, "tokenizer.ggml.tokens").iter().map(|token| token.to_string().unwrap()).collect();
    assert_eq!(tokens.len(), 262_144);
    let kinds = list(&content, "tokenizer.ggml.token_type").iter().map(|kind| kind.to_i32().unwrap());
    file["added_tokens"] = tokens
        .iter()
        .enumerate()
        .zip(kinds)
        .filter(|(_, kind)| matches!(*kind, CONTROL | USER_DEFINED))
        .map(|((id, token), _)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    file["model"]["vocab"] = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).clone(), Value::from(id)))
        .collect::<Map<_, _>>()
        .into();
    let merges = list(&content, "tokenizer.ggml.merges").iter().map(|merge| {
        let (left, right) = merge.to_string().unwrap().split_once(' ').unwrap();
        json!([left, right])
    });
    file["model"]["merges"] = merges.collect();
    file["post_processor"] = Value::Null;
    Tokenizer::from_bytes(&serde_json::to_vec(&file).unwrap()).unwrap()
}

#[test]
fn known_bug_13_real_vocabulary_meets_llama_cpps_vectors_and_the_references_ids() {
    let tokenizer = tokenizer();
    let texts = String::from_utf8(fetched("ggml-vocab-gemma-4.gguf.inp")).unwrap();
    let vectors = String::from_utf8(fetched("ggml-vocab-gemma-4.gguf.out")).unwrap();
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    assert!(texts.len() >= 40 && vectors.lines().count() == texts.len());
    for (text, vector) in texts.iter().zip(vectors.lines()) {
        let expected: Vec<u32> = vector.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
    }
    let (lines, digests) = (golden("tokens.json"), golden("vocab.json"));
    assert!(lines.len() >= 2000 && lines.len() == digests.len());
    for (line, digest) in lines.iter().zip(&digests) {
        let text = line[0].as_str().unwrap();
        let bytes: Vec<u8> = tokenizer.encode(text).unwrap().into_iter().flat_map(u32::to_le_bytes).collect();
        let found: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest.as_str().unwrap(), "{text:?}");
    }
    let start = tokenizer.encode("<bos><|turn>user\n").unwrap();
    assert_eq!(start, [2, 105, 2364, 107]);
}

#[test]
fn known_bug_14_real_templates_render_tools_thoughts_and_images_as_the_reference() {
    let april = gguf().metadata["tokenizer.chat_template"].to_string().unwrap().clone();
    let current = String::from_utf8(fetched("google-gemma-4-31B-it.jinja")).unwrap();
    let tokens = Map::from_iter([("bos_token".to_owned(), Value::from("<bos>"))]);
    let mut failures = Vec::new();
    for (name, source) in [("gemma4_31b", current), ("gemma4_26b_april", april)] {
        let template = ChatTemplate::new(&source, tokens.clone()).unwrap();
        let mut num_rendered = 0;
        for row in golden("chats.json") {
            let rendered = template.render(&chat(&row)).ok();
            num_rendered += usize::from(rendered.is_some());
            if rendered.as_deref() != row[name].as_str() {
                failures.push(format!("{name}, {}:\n  {rendered:?}\n  {}", row["name"], row[name]));
            }
        }
        assert!(num_rendered >= 50, "{name}: {num_rendered}");
    }
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
}

fn chat(row: &Value) -> Chat {
    let part = |part: &Value| match part["type"].as_str() {
        Some("image") => Part::Image([0u8; 0].into()),
        _ => Part::Text(part["text"].as_str().unwrap().to_owned()),
    };
    let message = |message: &Value| {
        let mut fields = message.as_object().unwrap().clone();
        let role = fields.remove("role").unwrap().as_str().unwrap().to_owned();
        let content = match fields.remove("content") {
            Some(Value::String(text)) => Said::Text(text),
            Some(Value::Array(parts)) => Said::Parts(parts.iter().map(part).collect()),
            _ => Said::Nothing,
        };
        Message { role, content, fields }
    };
    Chat {
        messages: row["messages"].as_array().unwrap().iter().map(message).collect(),
        tools: row["tools"].as_array().cloned().unwrap_or_default(),
        variables: row["variables"].as_object().cloned().unwrap_or_default(),
    }
}

#[test]
fn a_schema_allows_the_tokens_that_the_text_is_made_of() {
    const EOS: u32 = 1;
    let tokenizer = tokenizer();
    let vocabulary = tokenizer.detokenizer().vocabulary();
    assert_eq!(vocabulary.len(), 262_144);
    let compiler = GrammarCompiler::new(&vocabulary, &[EOS]).unwrap();
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}"#;
    let mut constraint = compiler.compile(&Grammar::JsonSchema(schema.to_owned())).unwrap();
    let text = "{\n  \"name\": \"Grüße, 世界 🎉 \\n and the rest of it\"\n}";
    let mut mask = TokenMask::new(vocabulary.len());
    for id in tokenizer.encode(text).unwrap() {
        mask.forbid_all();
        constraint.allowed(&mut mask).unwrap();
        assert!(mask.allows(id) && !mask.allows(EOS), "{:?}", tokenizer.id_to_token(id));
        constraint.accept(id).unwrap();
    }
    mask.forbid_all();
    constraint.allowed(&mut mask).unwrap();
    assert!(mask.allows(EOS));
}
