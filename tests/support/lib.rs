//! What the tests share: goldens of the reference, a tap that records, and a model run without an engine.

pub mod certificates;
pub mod http;
pub mod listener;
pub mod pages;
pub mod scripted;

use candle_core::{DType, Device, Tensor};
use pyrex_core::batch::{Batch, Chunk, PromptDepth, SoftTokens, Wanted};
use pyrex_core::engine::options::ModelInput;
use pyrex_core::error::Result;
use pyrex_core::kv::KvPool;
use pyrex_core::models::{LoadFormat, LoadOptions, LoadedModel, Model, ModelSource, load};
use pyrex_core::prompt::{Chat, Content, EncodedPrompt, Message, Part, Prompt};
use pyrex_core::trace::{NoTap, Origin, Tap};
use pyrex_core::{ActivationDtype, DeviceChoice, EngineOptions};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The root of the repository: Cargo says where when it runs a test, and bench/gpu.sh where it has been copied to.
pub fn repository() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).parent().expect("the tests lie in the repository").to_path_buf()
}

/// The folder of the goldens.
pub fn golden_dir() -> PathBuf {
    repository().join("tests/golden")
}

/// The file of the bundled model's first example.
pub fn red_circle() -> Vec<u8> {
    std::fs::read(model_dir("shapes").join("examples/red_circle.png")).expect("the bundled example")
}

/// How much of this process's memory lies in RAM.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second number") * 4096
}

/// The checkpoints that have goldens.
pub const CHECKPOINTS: [&str; 4] = ["shapes", "e2b-like", "e4b-like", "text-only"];

/// A folder of this process in `all`, whose name begins with `name`. Those of processes that are gone are removed.
pub fn process_folder(all: &Path, name: &str) -> PathBuf {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let of =
            found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('-')?.parse::<u32>().ok());
        if of.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Somebody else may have been faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = all.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The folder of a checkpoint that has goldens.
pub fn model_dir(name: &str) -> PathBuf {
    match name {
        "shapes" => repository().join("models/shapes"),
        tiny => golden_dir().join(tiny).join("model"),
    }
}

/// Loads a checkpoint that has goldens, with activations in `dtype`.
pub fn load_model(name: &str, dtype: DType) -> LoadedModel {
    let source = ModelSource::Path(model_dir(name));
    load(&load_options(source, dtype, LoadFormat::Safetensors)).expect("the checkpoint loads")
}

/// Options to load on the CPU without being told of progress.
pub fn load_options(source: ModelSource, dtype: DType, format: LoadFormat) -> LoadOptions {
    LoadOptions { format, ..LoadOptions::new(source, device(), dtype) }
}

/// The files of a checkpoint, to be damaged or changed.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads the files of a checkpoint that has goldens.
pub fn model_files(name: &str) -> Files {
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a file of the checkpoint"))
    };
    let folder = std::fs::read_dir(model_dir(name)).expect("the checkpoint's folder");
    folder.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).map(read).collect()
}

/// Files in memory as a checkpoint.
pub fn in_memory(files: Files) -> ModelSource {
    ModelSource::Memory(files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes) as _)).collect())
}

/// Changes `config.json`.
pub fn edit_config(files: &mut Files, change: impl FnOnce(&mut Value)) {
    edit_json(files, "config.json", change);
}

/// Changes a JSON file of the checkpoint.
pub fn edit_json(files: &mut Files, name: &str, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&files[name]).expect("the file is JSON");
    change(&mut json);
    files.insert(name.to_string(), json.to_string().into_bytes());
}

/// A JSON file under the goldens.
pub fn golden_json(path: &str) -> Value {
    let path = golden_dir().join(path);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).expect("a golden is JSON")
}

/// One case: the oracle's tensors, at the rows that were kept, and how far the reference itself is from them.
pub struct Golden {
    /// Name to the rows kept and their values, row after row.
    pub taps: BTreeMap<String, GoldenTap>,
    /// The conversation.
    pub messages: Value,
    /// Its token ids.
    pub input_ids: Vec<u32>,
}

/// One tap of the oracle.
pub struct GoldenTap {
    /// Which rows were kept; `None` for all.
    pub rows: Option<Vec<usize>>,
    /// How many rows there were.
    pub num_rows: usize,
    /// The values kept.
    pub values: Vec<f32>,
    /// The reference in f32 against the oracle: relative L2.
    pub f32_noise: f64,
    /// The reference in bf16 against the oracle: relative L2.
    pub bf16_noise: f64,
}

impl Golden {
    /// Reads `<checkpoint>/<case>.safetensors` and its noise.
    pub fn read(checkpoint: &str, case: &str) -> Self {
        let bytes = std::fs::read(golden_dir().join(checkpoint).join(format!("{case}.safetensors")))
            .expect("a golden");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().clone().unwrap_or_default();
        let json = |key: &str| -> Value { serde_json::from_str(&metadata[key]).expect("metadata is JSON") };
        let (rows, num_rows, noise) =
            (json("rows"), json("num_rows"), golden_json(&format!("{checkpoint}/noise.json")));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let taps =
            tensors.iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32).map(|(name, view)| {
                let noise = |key: &str| noise[case][name][key].as_f64().unwrap_or(0.0);
                let tap = GoldenTap {
                    rows: rows[name].as_array().map(|rows| rows.iter().map(index).collect()),
                    num_rows: index(&num_rows[name]),
                    values: view
                        .data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                        .collect(),
                    f32_noise: noise("f32_rel_l2"),
                    bf16_noise: noise("bf16_rel_l2"),
                };
                (name.to_string(), tap)
            });
        Self { taps: taps.collect(), messages: json("messages"), input_ids: ids(&json("input_ids")) }
    }
}

impl GoldenTap {
    /// The distance of `ours` from the oracle, relative to the oracle's norm, over the rows that were kept.
    pub fn rel_l2(&self, ours: &Tensor) -> f64 {
        assert_eq!(ours.dim(0).expect("a tap has rows"), self.num_rows);
        let ours =
            ours.to_dtype(DType::F32).and_then(|t| t.reshape((self.num_rows, ()))).expect("a tap reshapes");
        let rows = ours.to_vec2::<f32>().expect("a tap reads back");
        let kept: Vec<f32> = match &self.rows {
            Some(kept) => kept.iter().flat_map(|&row| rows[row].clone()).collect(),
            None => rows.concat(),
        };
        rel_l2(&kept, &self.values)
    }
}

/// Our f32 error may be this many times the reference's own. Both are rounding noise of another summation order, estimated
/// from as few as six rows, so single taps scatter around a ratio of one; a wrong constant shows as hundreds.
pub const F32_FACTOR: f64 = 3.0;

/// How far apart the logits of two f32 runs may lie that only sum in another order: each may be [`F32_FACTOR`] times the
/// reference's own noise away from the oracle, in opposite directions. The noise is the largest over the checkpoint's
/// cases and the prompts of `long.json`: how far a prompt amplifies rounding is its own.
pub fn reordered(checkpoint: &str) -> f64 {
    let (cases, long) =
        (golden_json(&format!("{checkpoint}/noise.json")), golden_json(&format!("{checkpoint}/long.json")));
    let cases = cases.as_object().expect("cases").values().map(|case| &case["logits"]["f32_rel_l2"]);
    let long = long["prompts"].as_array().expect("prompts").iter().map(|prompt| &prompt["f32_rel_l2"]);
    let noise = cases.chain(long).map(|noise| noise.as_f64().expect("a noise figure"));
    2.0 * F32_FACTOR * noise.fold(0.0, f64::max)
}

/// `|ours - theirs| / |theirs|`.
pub fn rel_l2(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let square = |x: f64| x * x;
    let error: f64 = ours.iter().zip(theirs).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = theirs.iter().map(|b| square(f64::from(*b))).sum();
    (error / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// A JSON list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| index(id) as u32).collect()
}

fn index(value: &Value) -> usize {
    value.as_u64().expect("an index") as usize
}

/// Keeps every tensor it sees.
#[derive(Default)]
pub struct Recorder {
    /// By name.
    pub seen: HashMap<String, Tensor>,
}

impl Tap for Recorder {
    fn watching(&self) -> bool {
        true
    }

    fn visit(&mut self, name: &str, tensor: &Tensor, _origin: Origin) -> Result<Option<Tensor>> {
        self.seen.insert(name.to_string(), tensor.clone());
        Ok(None)
    }
}

/// A conversation in the reference's JSON, its images read from the goldens.
pub fn chat_prompt(messages: &Value) -> Prompt {
    let message = |message: &Value| {
        let role = message["role"].as_str().expect("a role").to_string();
        let content = match &message["content"] {
            Value::String(text) => Content::Text(text.clone()),
            parts => Content::Parts(parts.as_array().expect("parts").iter().map(part).collect()),
        };
        Message { role, content, fields: Map::new() }
    };
    Prompt::Chat(Chat::new(messages.as_array().expect("messages").iter().map(message).collect()))
}

fn part(part: &Value) -> Part {
    match part["type"].as_str() {
        Some("text") => Part::Text(part["text"].as_str().expect("a text").to_string()),
        _ => {
            let path = golden_dir().join(part["path"].as_str().expect("a path"));
            Part::Image(std::fs::read(path).expect("an image").into())
        }
    }
}

/// One sequence run without an engine: a cache of its own, chunk after chunk.
pub struct Run<'a> {
    model: &'a dyn Model,
    kv: KvPool,
    block_tables: Vec<Vec<u32>>,
    position: usize,
}

/// A cache of `num_blocks` blocks for every group of layers.
pub fn pool(model: &dyn Model, num_blocks: usize) -> KvPool {
    let spec = model.spec();
    let num_blocks = vec![num_blocks; spec.kv.groups().len()];
    KvPool::new(&spec.kv, &num_blocks, BLOCK_SIZE, spec.dtype, &spec.device).expect("a pool")
}

/// Slots per block in [`Run`].
pub const BLOCK_SIZE: usize = 16;

impl<'a> Run<'a> {
    /// A cache of at least `len` slots. Its blocks are handed out backwards, and in another order to each group of layers, so
    /// that a block table that is ignored or taken for another's shows.
    pub fn new(model: &'a dyn Model, len: usize) -> Self {
        let num_blocks = len.div_ceil(BLOCK_SIZE) + 1;
        let kv = pool(model, num_blocks);
        let backwards = || (0..num_blocks as u32).rev().collect::<Vec<_>>();
        let rotated = |group| {
            let mut table = backwards();
            table.rotate_left(group % num_blocks);
            table
        };
        Self { model, block_tables: (0..kv.num_groups()).map(rotated).collect(), kv, position: 0 }
    }

    /// The soft tokens of a prompt's images and the rows they belong to, if it has any.
    pub fn encode_images(&self, tap: &mut dyn Tap, prompt: &EncodedPrompt) -> Option<(Vec<usize>, Tensor)> {
        if prompt.images.is_empty() {
            return None;
        }
        let patches: Vec<_> = prompt.images.iter().map(|image| &image.patches).collect();
        let images = self.model.image_batch(&patches).expect("an image batch");
        let rows = prompt.images.iter().flat_map(|image| image.tokens.clone()).collect();
        Some((rows, self.model.encode_images(&images, tap).expect("soft tokens")))
    }

    /// Runs the next tokens and returns the logits of the wanted rows.
    pub fn forward(
        &mut self,
        tap: &mut dyn Tap,
        ids: &[u32],
        soft: Option<&(Vec<usize>, Tensor)>,
        how: How,
    ) -> Tensor {
        let chunk = Chunk {
            input_ids: ids,
            first_position: self.position,
            block_tables: self.block_tables.iter().map(Vec::as_slice).collect(),
            wanted: how.wanted,
        };
        let mut batch = Batch::new(&[chunk], BLOCK_SIZE, &self.model.spec().device).expect("a batch");
        batch.prompt_depth = how.depth;
        batch.soft_tokens = soft.and_then(|soft| self.soft_tokens(soft, ids.len()));
        self.position += ids.len();
        self.model.forward(&batch, &mut self.kv, tap).expect("a forward")
    }

    /// The part of `soft` that falls into the next `len` tokens.
    fn soft_tokens(&self, (positions, embeds): &(Vec<usize>, Tensor), len: usize) -> Option<SoftTokens> {
        let inside = |position: &usize| (self.position..self.position + len).contains(position);
        let which: Vec<u32> =
            (0..positions.len()).filter(|&i| inside(&positions[i])).map(|i| i as u32).collect();
        if which.is_empty() {
            return None;
        }
        let rows: Vec<u32> = which.iter().map(|&i| (positions[i as usize] - self.position) as u32).collect();
        let device = &self.model.spec().device;
        let tensor = |values: Vec<u32>| Tensor::from_vec(values, which.len(), device).expect("indices");
        let embeds = embeds.index_select(&tensor(which.clone()), 0).expect("rows");
        Some(SoftTokens { rows: tensor(rows), embeds })
    }
}

/// Which rows of a forward are wanted, and how deep the others go.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Whose logits.
    pub wanted: Wanted,
    /// How deep the others go.
    pub depth: PromptDepth,
}

/// As the engine runs: the last row, the others only as deep as the cache needs.
pub const LAST: How = How { wanted: Wanted::Last, depth: PromptDepth::CacheOnly };
/// As the reference runs when it records: every row through every layer.
pub const ALL: How = How { wanted: Wanted::All, depth: PromptDepth::AllLayers };
/// A chunk that is not the prompt's last.
pub const NOTHING: How = How { wanted: Wanted::Nothing, depth: PromptDepth::CacheOnly };

/// The likeliest id of the last row; the lowest on a tie.
pub fn argmax(logits: &Tensor) -> u32 {
    let rows = logits.to_vec2::<f32>().expect("logits");
    let row = rows.last().expect("a row");
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter().position(|x| *x == best).expect("a best") as u32
}

/// Greedy decoding without an engine: `max_tokens` ids, or fewer if a stop id comes; the stop id is the last.
pub fn greedy(loaded: &LoadedModel, prompt: &EncodedPrompt, max_tokens: usize, stop_ids: &[u32]) -> Vec<u32> {
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len() + max_tokens);
    let soft = run.encode_images(&mut NoTap, prompt);
    let mut logits = run.forward(&mut NoTap, &prompt.input_ids, soft.as_ref(), LAST);
    let mut ids = Vec::new();
    loop {
        let id = argmax(&logits);
        ids.push(id);
        if ids.len() == max_tokens || stop_ids.contains(&id) {
            return ids;
        }
        logits = run.forward(&mut NoTap, &[id], None, LAST);
    }
}

/// The device that the tests run models on: the CPU, or what `PYREX_TEST_DEVICE` names.
pub fn device() -> Device {
    device_choice().open().expect("the device opens")
}

fn device_choice() -> DeviceChoice {
    let name = std::env::var("PYREX_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    name.parse().expect("PYREX_TEST_DEVICE names a device")
}

/// Whether this is the test binary `ahead`, where steps are launched before the tokens of the last are read, as on a device. Then
/// one step more than is needed runs after a token that ends an answer, so a test that counts steps has nothing to say.
pub fn runs_ahead() -> bool {
    let binary = std::env::current_exe().expect("a test knows its binary");
    binary.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ahead-"))
}

/// The defaults for `model` on the tests' device, in f32 as the goldens are, and what the test binary says of running ahead.
pub fn options(model: impl Into<ModelInput>) -> EngineOptions {
    EngineOptions {
        device: device_choice(),
        dtype: Some(ActivationDtype::F32),
        runs_ahead: runs_ahead().then_some(true),
        ..EngineOptions::new(model)
    }
}
