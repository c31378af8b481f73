//! A small checkpoint with damaged files: refused, or a model that reads a prompt and gives logits.
#![no_main]

use arbitrary::Arbitrary;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;
use pyrex_core::batch::{Batch, Chunk, SoftTokens, Wanted};
use pyrex_core::kv::KvPool;
use pyrex_core::models::Processor;
use pyrex_core::trace::NoTap;
use pyrex_core::{
    Chat, EncodedPrompt, ErrorKind, LoadFormat, LoadedModel, Message, ModelSource, Part, Prompt, Result,
    SamplingParams, describe, load,
};
use pyrex_fuzz::{assert_refusal, check};
use pyrex_tests::{BLOCK_SIZE, golden_dir, load_options, model_files};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The files, some of them more than once: they are damaged more often.
const FILES: [&str; 10] = [
    "config.json",
    "config.json",
    "config.json",
    "tokenizer.json",
    "tokenizer.json",
    WEIGHTS,
    "tokenizer_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template.jinja",
];
const WEIGHTS: &str = "model.safetensors";
/// Models with more parameters or layers are described and not run.
const MAX_PARAMETERS: u64 = 4 << 20;
const MAX_LAYERS: usize = 24;
/// Longer prompts than this are not run.
const MAX_PROMPT: usize = 1024;

/// What is done to the checkpoint.
#[derive(Debug, Arbitrary)]
enum Edit {
    /// Bytes of a file are replaced.
    Splice { file: u8, at: u16, drop: u8, put: Vec<u8> },
    /// A value of a JSON file is replaced.
    Replace { file: u8, node: u16, put: Put },
    /// A field is added to an object of a JSON file, or replaced in it.
    Insert { file: u8, node: u16, name: Name, put: Put },
    /// A field or an item is removed.
    Remove { file: u8, node: u16, which: u8 },
    /// A file is missing.
    Drop { file: u8 },
}

#[derive(Debug, Arbitrary)]
enum Put {
    Null,
    Bool(bool),
    Small(u8),
    Round(u8),
    Number(i64),
    Float(f64),
    Word(u8),
    Text(String),
    List(Vec<Put>),
    Object(Vec<(Name, Put)>),
    /// A copy of another value of the file.
    Copy(u16),
    /// Many of one number.
    Many(u16, u8),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Layer(u8),
    Any(String),
}

/// Numbers at which something ends.
const ROUND: [u64; 14] = [
    0,
    1,
    2,
    3,
    1 << 8,
    1 << 10,
    1 << 20,
    (1 << 20) + 1,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
    u64::MAX - 1,
];

/// What the files' values and fields are called.
const WORDS: [&str; 48] = [
    "Gemma4ForCausalLM",
    "Gemma4ForConditionalGeneration",
    "sliding_attention",
    "full_attention",
    "default",
    "proportional",
    "axial",
    "gelu_pytorch_tanh",
    "per_layer_config",
    "head_dim",
    "num_key_value_heads",
    "text_config",
    "vision_config",
    "vocab_size",
    "num_kv_shared_layers",
    "layer_types",
    "final_logit_softcapping",
    "eos_token_id",
    "image_token_id",
    "boi_token_id",
    "chat_template",
    "type",
    "Sequence",
    "Replace",
    "ByteFallback",
    "Fuse",
    "Strip",
    "Unigram",
    "WordLevel",
    "WordPiece",
    "BPE",
    "vocab",
    "merges",
    "decoders",
    "normalizers",
    "pretokenizers",
    "Prepend",
    "Split",
    "Regex",
    "String",
    "Precompiled",
    "Metaspace",
    "ByteLevel",
    "FixedLength",
    "length",
    "unk_token",
    "__metadata__",
    "max_soft_tokens",
];

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Known(which) => WORDS[usize::from(*which) % WORDS.len()].to_string(),
            Self::Layer(layer_idx) => layer_idx.to_string(),
            Self::Any(text) => text.clone(),
        }
    }
}

impl Put {
    fn value(&self, file: &Value) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Small(value) => (*value).into(),
            Self::Round(which) => ROUND[usize::from(*which) % ROUND.len()].into(),
            Self::Number(value) => (*value).into(),
            Self::Float(value) => json!(value),
            Self::Word(which) => WORDS[usize::from(*which) % WORDS.len()].into(),
            Self::Text(text) => text.clone().into(),
            Self::List(items) => items.iter().map(|item| item.value(file)).collect(),
            Self::Object(fields) => {
                fields.iter().map(|(name, put)| (name.text(), put.value(file))).collect::<Map<_, _>>().into()
            }
            Self::Copy(node) => nth_of(&mut file.clone(), *node).clone(),
            Self::Many(count, item) => vec![Value::from(*item); usize::from(*count)].into(),
        }
    }
}

/// The value that stands at `node`, counted from the file's beginning and from there again.
fn nth_of(file: &mut Value, node: u16) -> &mut Value {
    let mut left = usize::from(node) % count(file);
    nth(file, &mut left).expect("there are more values than that")
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, left)),
        _ => None,
    }
}

impl Edit {
    fn apply(&self, files: &mut BTreeMap<String, Arc<Vec<u8>>>) {
        let (Self::Splice { file, .. }
        | Self::Replace { file, .. }
        | Self::Insert { file, .. }
        | Self::Remove { file, .. }
        | Self::Drop { file }) = self;
        let name = FILES[usize::from(*file) % FILES.len()];
        let Some(bytes) = files.get(name) else { return };
        let edited = match self {
            Self::Drop { .. } => return drop(files.remove(name)),
            Self::Splice { at, drop, put, .. } => {
                let start = usize::from(*at).min(bytes.len());
                let end = (start + usize::from(*drop)).min(bytes.len());
                [&bytes[..start], put, &bytes[end..]].concat()
            }
            _ => match edit_json(name, bytes, |value| self.apply_to_json(value)) {
                Some(edited) => edited,
                None => return,
            },
        };
        files.insert(name.to_string(), Arc::new(edited));
    }

    fn apply_to_json(&self, file: &mut Value) {
        match self {
            Self::Replace { node, put, .. } => {
                let value = put.value(file);
                *nth_of(file, *node) = value;
            }
            Self::Insert { node, name, put, .. } => {
                let value = put.value(file);
                if let Value::Object(fields) = nth_of(file, *node) {
                    fields.insert(name.text(), value);
                }
            }
            Self::Remove { node, which, .. } => match nth_of(file, *node) {
                Value::Array(items) if !items.is_empty() => {
                    drop(items.remove(usize::from(*which) % items.len()))
                }
                Value::Object(fields) if !fields.is_empty() => {
                    let key =
                        fields.keys().nth(usize::from(*which) % fields.len()).cloned().unwrap_or_default();
                    fields.shift_remove(&key);
                }
                _ => {}
            },
            Self::Splice { .. } | Self::Drop { .. } => {}
        }
    }
}

/// Changes a JSON file, or the JSON header of the weights; `None` if an earlier edit left something else of it.
fn edit_json(name: &str, bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Option<Vec<u8>> {
    let (json, data) = match name {
        WEIGHTS => {
            let header_len = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
            bytes[8..].split_at_checked(header_len)?
        }
        _ => (bytes, &[][..]),
    };
    let mut value = serde_json::from_slice(json).ok()?;
    edit(&mut value);
    let json = serde_json::to_vec(&value).ok()?;
    let len = (json.len() as u64).to_le_bytes();
    Some(if name == WEIGHTS { [&len, json.as_slice(), data].concat() } else { json })
}

static BASE: LazyLock<BTreeMap<String, Arc<Vec<u8>>>> = LazyLock::new(|| {
    let mut files = model_files("e2b-like");
    let tokenizer = files.get_mut("tokenizer.json").expect("the checkpoint has a tokenizer");
    *tokenizer = edit_json("tokenizer.json", tokenizer, shorten).expect("a tokenizer is JSON");
    files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect()
});
static IMAGE: LazyLock<Arc<[u8]>> =
    LazyLock::new(|| std::fs::read(golden_dir().join("images/pattern_97x61.png")).expect("an image").into());

/// Leaves bytes, special tokens and a few words of the vocabulary: a tenth to read.
fn shorten(tokenizer: &mut Value) {
    let model = &mut tokenizer["model"];
    if let Value::Object(vocab) = &mut model["vocab"] {
        vocab.retain(|_, id| id.as_u64().is_some_and(|id| id < 330 || id > 2040));
    }
    let vocab = model["vocab"].clone();
    let knows = |parts: &Value| {
        let word: String = parts.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts
            .as_array()
            .is_some_and(|parts| parts.iter().all(|part| vocab.get(part.as_str().unwrap_or("")).is_some()))
            && vocab.get(&word).is_some()
    };
    if let Value::Array(merges) = &mut model["merges"] {
        merges.retain(knows);
    }
}

fuzz_target!(|edits: Vec<Edit>| check(|| open(&edits)));

fn open(edits: &[Edit]) {
    let mut files = BASE.clone();
    for edit in edits.iter().take(4) {
        edit.apply(&mut files);
    }
    let source = in_memory(&files);
    if let Err(error) = describe(&source) {
        assert_refusal(&error, &[ErrorKind::InvalidModel, ErrorKind::Unsupported]);
    }
    files.remove(WEIGHTS);
    let is_small = describe(&in_memory(&files)).is_ok_and(|model| {
        model.num_parameters() < MAX_PARAMETERS && (1..=MAX_LAYERS).contains(&model.layers.len())
    });
    // Weights that fit the sizes of a changed config can only be made up.
    let formats = [LoadFormat::Safetensors, LoadFormat::Dummy];
    let loaded = formats[..1 + usize::from(is_small)].iter().find_map(|format| opened(&source, *format));
    if let Some(loaded) = loaded {
        SamplingParams::from_model(loaded.model.spec()).validate().expect("a default that requests may have");
        let image =
            Message::parts("user", vec![Part::Text("What is it?".into()), Part::Image(Arc::clone(&IMAGE).into())]);
        // An image takes most of a run's time: every other one has it.
        run(
            &loaded,
            &match edits.len() % 2 {
                0 => Prompt::Text("1 of <|turn>".into()),
                _ => Prompt::Chat(Chat::new(vec![image])),
            },
        );
    }
}

fn in_memory(files: &BTreeMap<String, Arc<Vec<u8>>>) -> ModelSource {
    ModelSource::Memory(files.iter().map(|(name, bytes)| (name.clone(), Arc::clone(bytes) as _)).collect())
}

fn opened(source: &ModelSource, format: LoadFormat) -> Option<LoadedModel> {
    match load(&load_options(source.clone(), DType::F32, format)) {
        Ok(loaded) => return Some(loaded),
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidModel, ErrorKind::Unsupported]),
    }
    None
}

fn run(loaded: &LoadedModel, prompt: &Prompt) {
    // A template or a tokenizer may be refused as late as when it is used.
    match loaded.processor.encode(prompt) {
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest, ErrorKind::InvalidModel]),
        Ok(encoded) => {
            read_back(loaded.processor.as_ref(), &encoded.input_ids);
            match forward(loaded, &encoded) {
                Ok(()) => {}
                Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest, ErrorKind::Unsupported]),
            }
        }
    }
}

fn read_back(processor: &dyn Processor, ids: &[u32]) {
    let mut detokenizer = processor.detokenizer();
    for id in ids {
        detokenizer.push(*id);
    }
    detokenizer.finish();
    processor.vocabulary();
}

/// The prompt and one token more.
fn forward(loaded: &LoadedModel, prompt: &EncodedPrompt) -> Result<()> {
    let (model, len) = (loaded.model.as_ref(), prompt.input_ids.len());
    let spec = model.spec();
    if len == 0 || len > MAX_PROMPT || spec.kv.elements_per_token() > 1 << 16 {
        return Ok(());
    }
    let num_blocks = (len + 1).div_ceil(BLOCK_SIZE);
    let groups = vec![num_blocks; spec.kv.groups().len()];
    let mut kv = KvPool::new(&spec.kv, &groups, BLOCK_SIZE, spec.dtype, &spec.device)?;
    let table: Vec<u32> = (0..num_blocks as u32).collect();
    let mut step = |input_ids: &[u32], first_position, soft_tokens| -> Result<()> {
        let block_tables = vec![table.as_slice(); groups.len()];
        let chunk = Chunk { input_ids, first_position, block_tables, wanted: Wanted::Last };
        let batch = Batch { soft_tokens, ..Batch::new(&[chunk], BLOCK_SIZE, &Device::Cpu)? };
        let logits = model.forward(&batch, &mut kv, &mut NoTap)?;
        assert_eq!(logits.dims(), [1, spec.vocab_size]);
        Ok(())
    };
    step(&prompt.input_ids, 0, soft_tokens(loaded, prompt)?)?;
    step(&prompt.input_ids[len - 1..], len, None)
}

fn soft_tokens(loaded: &LoadedModel, prompt: &EncodedPrompt) -> Result<Option<SoftTokens>> {
    let rows: Vec<u32> =
        prompt.images.iter().flat_map(|image| image.tokens.clone()).map(|row| row as u32).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let patches: Vec<_> = prompt.images.iter().map(|image| &image.patches).collect();
    let images = loaded.model.image_batch(&patches)?;
    let embeds = loaded.model.encode_images(&images, &mut NoTap)?;
    assert_eq!(embeds.dims()[0], rows.len());
    let len = rows.len();
    Ok(Some(SoftTokens { rows: candle_core::Tensor::from_vec(rows, len, &Device::Cpu)?, embeds }))
}
