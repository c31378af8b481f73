//! [`Dump`]: a [`Tap`] that keeps what it sees and writes it to a safetensors file; [`dump_prefill`] runs one for it.
//!
//! No engine takes part: one prompt, one forward pass, every layer and every row, as the reference records it.
//! Tensors are written in f32 under their tap names. Three more show what went in: `prep.input_ids` `[T]`,
//! `prep.pixel_values` `[P, patch values]` and `prep.position_ids` `[P, 2]`; and `logits` is what came out.

use crate::batch::{Batch, Chunk, ImageBatch, PromptDepth, SoftTokens, Wanted};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::{Model, ModelSpec, Processor};
use crate::prompt::{EncodedPrompt, Patches, Prompt};
use crate::trace::Tap;
use candle_core::{DType, Tensor};
use glob::Pattern;
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What to write, and what to call it.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// A glob over tap names, such as `*layers.0.*`; everything if not given.
    pub taps: Option<String>,
    /// What the manifest calls the model.
    pub model: String,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpSummary {
    /// Tensors.
    pub num_tensors: usize,
    /// Bytes of their elements.
    pub num_bytes: usize,
}

/// Keeps the tensors whose names match.
#[derive(Debug, Default)]
pub struct Dump {
    pattern: Option<Pattern>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    shape: Vec<usize>,
    elements: Elements,
}

#[derive(Debug)]
enum Elements {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// Runs one prefill of `prompt` and writes what its taps see to `out`.
///
/// # Errors
/// `InvalidRequest` if the glob or the prompt is wrong, `Io` if the file cannot be written.
pub fn dump_prefill(
    model: &dyn Model,
    processor: &dyn Processor,
    prompt: &Prompt,
    options: &DumpOptions,
    out: &Path,
) -> Result<DumpSummary> {
    let mut dump = Dump::new(options.taps.as_deref())?;
    let encoded = processor.encode(prompt)?;
    dump.keep("prep.input_ids", &Tensor::new(encoded.input_ids.as_slice(), &candle_core::Device::Cpu)?)?;
    let soft_tokens = encode_images(model, &encoded, &mut dump)?;
    let logits = prefill(model, &encoded.input_ids, soft_tokens, &mut dump)?;
    if !dump.tensors.contains_key("logits") {
        dump.keep("logits", &logits)?;
    }
    dump.write(out, manifest(model.spec(), &encoded.input_ids, &options.model))
}

fn encode_images(model: &dyn Model, encoded: &EncodedPrompt, dump: &mut Dump) -> Result<Option<SoftTokens>> {
    if encoded.images.is_empty() {
        return Ok(None);
    }
    let patches: Vec<&Patches> = encoded.images.iter().map(|image| &image.patches).collect();
    let batch = model.image_batch(&patches)?;
    dump.keep("prep.pixel_values", &pixel_values(&batch)?)?;
    dump.keep("prep.position_ids", &batch.positions)?;
    let embeds = model.encode_images(&batch, dump)?;
    let rows: Vec<u32> =
        encoded.images.iter().flat_map(|image| image.tokens.clone()).map(|row| row as u32).collect();
    let num_rows = rows.len();
    Ok(Some(SoftTokens { rows: Tensor::from_vec(rows, num_rows, &model.spec().device)?, embeds }))
}

/// `u8 · (1 / 255)` in f32, one multiplication, as the reference rescales.
fn pixel_values(batch: &ImageBatch) -> Result<Tensor> {
    let pixels = batch.pixels.flatten_all()?.to_vec1::<u8>()?;
    let values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) * (1.0 / 255.0)).collect();
    Ok(Tensor::from_vec(values, batch.pixels.shape(), &candle_core::Device::Cpu)?)
}

/// The whole prompt as one chunk in a cache of its own; returns the logits of every row, `[T, V]`.
fn prefill(
    model: &dyn Model,
    input_ids: &[u32],
    soft_tokens: Option<SoftTokens>,
    tap: &mut dyn Tap,
) -> Result<Tensor> {
    const BLOCK_SIZE: usize = 16;
    let ModelSpec { kv, dtype, device, max_position_embeddings, .. } = model.spec();
    let num_tokens = input_ids.len();
    if num_tokens == 0 || num_tokens > *max_position_embeddings {
        return Err(Error::invalid_request(format_args!(
            "the prompt has {num_tokens} tokens, expected 1 to {max_position_embeddings} (max_position_embeddings)"
        )));
    }
    let block_table: Vec<u32> = (0..num_tokens.div_ceil(BLOCK_SIZE) as u32).collect();
    let num_groups = kv.groups().len();
    let mut pool = KvPool::new(kv, &vec![block_table.len(); num_groups], BLOCK_SIZE, *dtype, device)?;
    let block_tables = vec![block_table.as_slice(); num_groups];
    let chunk = Chunk { input_ids, first_position: 0, block_tables, wanted: Wanted::All };
    let mut batch = Batch::new(&[chunk], BLOCK_SIZE, device)?;
    batch.soft_tokens = soft_tokens;
    batch.prompt_depth = PromptDepth::AllLayers;
    model.forward(&batch, &mut pool, tap)
}

/// What the file's `__metadata__` says about where its numbers come from; lists are JSON in a string.
fn manifest(spec: &ModelSpec, input_ids: &[u32], model: &str) -> HashMap<String, String> {
    let entries = [
        ("pyrex_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("model", model.to_owned()),
        ("family", spec.family.to_owned()),
        ("prompt_ids", format!("{input_ids:?}")),
        ("dtype", spec.dtype.as_str().to_owned()),
        ("device", if spec.device.is_cuda() { "cuda" } else { "cpu" }.to_owned()),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl Dump {
    /// Keeps what matches `glob`, or everything.
    ///
    /// # Errors
    /// `InvalidRequest` if the glob is malformed.
    pub fn new(glob: Option<&str>) -> Result<Self> {
        let compiled = glob.map(Pattern::new).transpose();
        let pattern = compiled.map_err(|e| Error::invalid_request(format_args!("tap glob {glob:?}: {e}")))?;
        Ok(Self { pattern, tensors: BTreeMap::new() })
    }

    /// Keeps a copy of `tensor` if its name matches: floats as f32, integers as i64.
    ///
    /// # Errors
    /// `Internal` if there is one of that name already.
    pub fn keep(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(name)) {
            return Ok(());
        }
        let shape = tensor.dims().to_vec();
        let flat = tensor.flatten_all()?;
        let elements = match tensor.dtype() {
            DType::U8 | DType::U32 | DType::I64 => Elements::I64(flat.to_dtype(DType::I64)?.to_vec1()?),
            _ => Elements::F32(flat.to_dtype(DType::F32)?.to_vec1()?),
        };
        match self.tensors.insert(name.to_owned(), Entry { shape, elements }) {
            None => Ok(()),
            Some(_) => Err(Error::internal(format_args!("two tensors are named {name}"))),
        }
    }

    /// Writes all that was kept.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub fn write(&self, out: &Path, manifest: HashMap<String, String>) -> Result<DumpSummary> {
        let tensors = self.tensors.iter().map(|(name, entry)| (name.as_str(), entry));
        safetensors::serialize_to_file(tensors, Some(manifest), out)
            .map_err(|e| Error::io(format_args!("{}: {e}", out.display())))?;
        let num_bytes = self.tensors.values().map(|entry| entry.bytes().len()).sum();
        Ok(DumpSummary { num_tensors: self.tensors.len(), num_bytes })
    }
}

impl Tap for Dump {
    fn watching(&self) -> bool {
        true
    }

    fn visit(&mut self, name: &str, tensor: &Tensor) -> Result<Option<Tensor>> {
        self.keep(name, tensor)?;
        Ok(None)
    }
}

impl View for &Entry {
    fn dtype(&self) -> Dtype {
        Entry::dtype(self)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.bytes().len()
    }
}

impl Entry {
    fn dtype(&self) -> Dtype {
        match self.elements {
            Elements::F32(_) => Dtype::F32,
            Elements::I64(_) => Dtype::I64,
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.elements {
            Elements::F32(elements) => bytemuck::cast_slice(elements),
            Elements::I64(elements) => bytemuck::cast_slice(elements),
        }
    }
}
