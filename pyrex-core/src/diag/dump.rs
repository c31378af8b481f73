//! [`dump()`]: every named tensor of a prefill, and of the greedy decode steps after it, to disk as they come.
//!
//! No engine takes part: one prompt, every layer and every row, as the reference records it (`reference/dump.py`). The
//! taps of step `n` are named `step<n>.…`.

use super::manifest::{FORMAT, Manifest};
use super::pass::{Pass, Rows, likeliest};
use super::writer::{DumpSummary, DumpWriter};
use crate::error::{Error, Result};
use crate::models::{LoadFormat, LoadedModel, ModelSource, ModelSpec};
use crate::prompt::{EncodedPrompt, Prompt};
use crate::trace::{Origin, Tap};
use crate::weights::digest;
use crate::weights::files::Files;
use candle_core::{DType, Tensor};
use glob::Pattern;
use std::collections::BTreeMap;
use std::path::Path;

/// What to write, and what to call it.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Globs over tap names, such as `*layers.0.*`; everything if there are none.
    pub taps: Vec<String>,
    /// Greedy decode steps after the prefill.
    pub steps: usize,
    /// What the manifest calls the model.
    pub model: String,
    /// Where the model's weights came from: made-up ones have no digests.
    pub format: LoadFormat,
}

/// What is dumped: a prompt, or one that is encoded already.
#[derive(Clone, Copy, Debug)]
pub enum DumpInput<'a> {
    /// Text and images.
    Prompt(&'a Prompt),
    /// Ids and patches.
    Encoded(&'a EncodedPrompt),
}

/// Runs `input` through the model loaded from `source` and writes what its taps see to `out`: raw f32 and a JSON index
/// beside it if the name ends in `.bin`, else safetensors.
///
/// # Errors
/// `InvalidRequest` if a glob or the prompt is wrong, `Io` if the file cannot be written.
pub fn dump(
    loaded: &LoadedModel,
    source: &ModelSource,
    input: DumpInput<'_>,
    options: &DumpOptions,
    out: &Path,
) -> Result<DumpSummary> {
    let patterns = options.taps.iter().map(|glob| pattern(glob)).collect::<Result<Vec<_>>>()?;
    let (encoded, images) = match input {
        DumpInput::Prompt(prompt) => (loaded.processor.encode(prompt)?, image_files(prompt)),
        DumpInput::Encoded(encoded) => (encoded.clone(), Vec::new()),
    };
    let mut pass = Pass::new(&*loaded.model, encoded.input_ids.len() + options.steps)?;
    let mut tap = Dump { writer: DumpWriter::create(out)?, patterns, prefix: String::new() };
    let mut logits = pass.prefill(&mut tap, &encoded, Rows::All)?;
    for step in 1..=options.steps {
        tap.prefix = format!("step{step}.");
        logits = pass.decode(&mut tap, likeliest(&logits)?)?;
    }
    let manifest = Manifest {
        prompt_ids: encoded.input_ids,
        images: images.iter().map(|bytes| digest::sha256(bytes)).collect(),
        steps: options.steps,
        ..manifest(loaded.model.spec(), source, options)?
    };
    tap.writer.finish(&manifest)
}

fn image_files(prompt: &Prompt) -> Vec<&[u8]> {
    match prompt {
        Prompt::Chat(chat) => chat.images().map(|bytes| &**bytes).collect(),
        Prompt::Text(_) => Vec::new(),
    }
}

fn pattern(glob: &str) -> Result<Pattern> {
    Pattern::new(glob).map_err(|e| Error::invalid_request(format_args!("tap glob {glob:?}: {e}")))
}

/// What can be said of a model without running it.
fn manifest(spec: &ModelSpec, source: &ModelSource, options: &DumpOptions) -> Result<Manifest> {
    let version = env!("CARGO_PKG_VERSION").to_string();
    Ok(Manifest {
        format: FORMAT.to_string(),
        producer: format!("pyrex {version}"),
        versions: BTreeMap::from([("pyrex".to_string(), version)]),
        model: options.model.clone(),
        family: spec.family.to_string(),
        config_sha256: digest::sha256(&source.require("config.json")?),
        weights: match options.format {
            LoadFormat::Safetensors => digest::of_tensors(&Files::open(source.weight_files()?)?),
            LoadFormat::Dummy => BTreeMap::new(),
        },
        dtype: if spec.dtype == DType::BF16 { "bf16" } else { "f32" }.to_string(),
        device: if spec.device.is_cuda() { "cuda" } else { "cpu" }.to_string(),
        attention: "paged".to_string(),
        ..Manifest::default()
    })
}

/// Writes what its patterns match.
struct Dump {
    writer: DumpWriter,
    patterns: Vec<Pattern>,
    prefix: String,
}

impl Tap for Dump {
    fn watching(&self) -> bool {
        true
    }

    fn visit(&mut self, name: &str, tensor: &Tensor, _origin: Origin) -> Result<Option<Tensor>> {
        let name = format!("{}{name}", self.prefix);
        if self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(&name)) {
            self.writer.put(&name, tensor)?;
        }
        Ok(None)
    }
}
