//! Stand-ins for the files that a lone `config.json` lacks, so that dummy weights can be run: a tokenizer of bytes, and a
//! template that writes a conversation's parts one after another.

use super::config::Config;
use crate::error::Result;
use crate::models::ModelSource;
use crate::models::load::parse_json;
use crate::ops::matrix::SharedBytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const TEMPLATE: &str = "{% for message in messages %}{% for part in message.content %}\
    {{ '<|image|>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}";
/// The first id of a byte; below lie padding, end and beginning of sequence.
const FIRST_BYTE: u32 = 3;

/// The source itself if it has a tokenizer; otherwise its small files and the stand-ins.
///
/// # Errors
/// `InvalidModel` if `config.json` is damaged.
pub(super) fn complete(source: &ModelSource, config: &Config) -> Result<ModelSource> {
    if source.read("tokenizer.json")?.is_some() {
        return Ok(source.clone());
    }
    let mut files: BTreeMap<String, SharedBytes> = BTreeMap::new();
    for name in ["config.json", "generation_config.json", "processor_config.json"] {
        if let Some(bytes) = source.read(name)? {
            files.insert(name.to_string(), Arc::new(bytes.into_owned()));
        }
    }
    let tokenizer = tokenizer(&image_tokens(source)?, config.text.vocab_size).to_string();
    files.insert("tokenizer.json".to_string(), Arc::new(tokenizer.into_bytes()));
    files.insert("chat_template.jinja".to_string(), Arc::new(TEMPLATE));
    Ok(ModelSource::Memory(files))
}

/// The ids around and for an image, by the names they have in every published tokenizer.
fn image_tokens(source: &ModelSource) -> Result<Vec<(&'static str, u32)>> {
    #[derive(Deserialize)]
    struct Raw {
        boi_token_id: Option<u32>,
        image_token_id: Option<u32>,
        eoi_token_id: Option<u32>,
    }
    let raw: Raw = parse_json("config.json", &source.require("config.json")?)?;
    let named = [("<|image>", raw.boi_token_id), ("<|image|>", raw.image_token_id), ("<image|>", raw.eoi_token_id)];
    Ok(named.into_iter().filter_map(|(name, id)| Some((name, id?))).collect())
}

/// Every byte a token, no merges.
fn tokenizer(image_tokens: &[(&str, u32)], vocab_size: usize) -> Value {
    let inside = |id: u32| (id as usize) < vocab_size;
    let mut vocab: Map<String, Value> = Map::new();
    vocab.extend([("<pad>", 0), ("<eos>", 1), ("<bos>", 2)].map(|(name, id)| (name.to_string(), json!(id))));
    vocab.extend((0..=255u32).map(|byte| (format!("<0x{byte:02X}>"), json!(FIRST_BYTE + byte))));
    let known = image_tokens.iter().filter(|(_, id)| inside(*id));
    vocab.extend(known.clone().map(|(name, id)| (name.to_string(), json!(id))));
    let added = known.map(|(name, id)| {
        json!({"id": id, "content": name, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "added_tokens": added.collect::<Vec<_>>(),
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "unk_token": null,
                  "fuse_unk": false, "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "ignore_merges": false},
    })
}
