//! [`Runner`]: from a plan to a batch to logits. It owns the model and the cache's tensors.

use super::control::RequestControl;
use super::images::{FeatureCache, FeatureCounts};
use crate::batch::{Batch, Chunk, SoftTokens, Wanted};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::Model;
use crate::prompt::Patches;
use crate::schedule::{Digest, PlannedChunk, Sequence, SequenceId};
use crate::trace::{Origin, Tap};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::time::Instant;
use tracing::Span;

/// Soft tokens whose features are remembered.
const FEATURE_TOKENS: usize = 8192;

/// The model and its cache.
pub(crate) struct Runner {
    model: Box<dyn Model>,
    pool: KvPool,
    features: FeatureCache,
}

/// One sequence's part of a step, with what is needed to run it.
pub(crate) struct Part<'a> {
    pub(crate) chunk: &'a PlannedChunk,
    pub(crate) sequence: &'a Sequence,
    /// The images of its prompt.
    pub(crate) images: &'a [Patches],
    pub(crate) control: &'a RequestControl,
    pub(crate) span: &'a Span,
}

/// The features of the images that a step reads.
#[derive(Default)]
pub(crate) struct Features {
    by_digest: HashMap<Digest, Tensor>,
    /// Whose images had to be encoded.
    pub(crate) encoded_for: Vec<SequenceId>,
}

/// The logits of the rows that sample, one after another.
pub(crate) struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
}

/// Ends a pass between two layers once most of its rows are wanted by nobody: then the others are sooner done alone.
struct WhileWanted<'a>(Vec<(&'a RequestControl, usize)>);

impl Tap for WhileWanted<'_> {
    fn watching(&self) -> bool {
        false
    }

    fn visit(&mut self, _name: &str, _tensor: &Tensor, _origin: Origin) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn proceed(&mut self) -> Result<()> {
        let now = Instant::now();
        let total: usize = self.0.iter().map(|(_, rows)| rows).sum();
        let unwanted = self.0.iter().filter(|(control, _)| control.check(now).is_err()).map(|(_, rows)| rows);
        match 2 * unwanted.sum::<usize>() >= total {
            true => Err(Error::cancelled("most of the step is wanted by nobody any more")),
            false => Ok(()),
        }
    }
}

impl Runner {
    pub(crate) fn new(model: Box<dyn Model>, pool: KvPool) -> Self {
        Self { model, pool, features: FeatureCache::new(FEATURE_TOKENS) }
    }

    fn device(&self) -> &Device {
        &self.model.spec().device
    }

    pub(crate) fn feature_counts(&self) -> FeatureCounts {
        self.features.counts
    }

    /// The features of all images that reach into the parts: those that are not known run through the vision tower together.
    pub(crate) fn encode_images(&mut self, parts: &[Part<'_>]) -> Result<Features> {
        let mut features = Features::default();
        let mut missing: Vec<(Digest, &Patches, usize)> = Vec::new();
        let (mut rows, mut spans) = (Vec::new(), Vec::new());
        for part in parts {
            for (image, patches) in part.images_inside() {
                let digest = image.digest;
                if features.by_digest.contains_key(&digest)
                    || missing.iter().any(|(other, ..)| *other == digest)
                {
                    continue;
                }
                match self.features.find(digest) {
                    Some(known) => drop(features.by_digest.insert(digest, known)),
                    None => {
                        missing.push((digest, patches, image.tokens.len()));
                        rows.push((part.control, image.tokens.len()));
                        features.encoded_for.push(part.sequence.id);
                        spans.push(tracing::debug_span!(parent: part.span, "encode", num_tokens = image.tokens.len()));
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(features);
        }
        let patches: Vec<&Patches> = missing.iter().map(|(_, patches, _)| *patches).collect();
        let batch = self.model.image_batch(&patches)?;
        let all = self.model.encode_images(&batch, &mut WhileWanted(rows))?;
        let (found, expected) = (all.dim(0)?, missing.iter().map(|(.., len)| len).sum::<usize>());
        if found != expected {
            return Err(Error::internal(format_args!(
                "the images have {found} soft tokens, expected {expected} as in the prompts"
            )));
        }
        let mut start = 0;
        for (digest, _, len) in missing {
            // A copy of its own: a view would keep the features of the whole run alive.
            let of_image = all.narrow(0, start, len)?.copy()?;
            self.features.insert(digest, of_image.clone(), len);
            features.by_digest.insert(digest, of_image);
            start += len;
        }
        Ok(features)
    }

    /// Runs the parts as one batch; returns the logits of those that sample, in their order.
    pub(crate) fn forward(&mut self, parts: &[Part<'_>], features: &Features) -> Result<Logits> {
        for copy in parts.iter().flat_map(|part| &part.chunk.copies) {
            self.pool.copy_block(copy.group, copy.from, copy.to)?;
        }
        let chunks: Vec<Chunk<'_>> = parts.iter().map(Part::as_chunk).collect();
        let mut batch = Batch::new(&chunks, self.pool.block_size(), self.device())?;
        batch.soft_tokens = soft_tokens(parts, features, self.device())?;
        let mut tap =
            WhileWanted(parts.iter().map(|part| (part.control, part.chunk.positions.len())).collect());
        let logits = self.model.forward(&batch, &mut self.pool, &mut tap)?;
        let vocab_size = self.model.spec().vocab_size;
        let expected = (parts.iter().filter(|part| part.chunk.samples).count(), vocab_size);
        if logits.dims2()? != expected {
            let found = logits.shape();
            return Err(Error::internal(format_args!("logits are {found:?}, expected {expected:?}")));
        }
        let values = if expected.0 == 0 {
            Vec::new()
        } else {
            logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?
        };
        Ok(Logits { values, vocab_size })
    }
}

impl Logits {
    /// Row by row, `[V]` each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.vocab_size)
    }
}

impl<'a> Part<'a> {
    fn as_chunk(&self) -> Chunk<'a> {
        let positions = self.chunk.positions.clone();
        Chunk {
            first_position: positions.start,
            input_ids: &self.sequence.token_ids[positions],
            block_tables: self.sequence.block_tables(),
            wanted: if self.chunk.samples { Wanted::Last } else { Wanted::Nothing },
        }
    }

    /// The images whose placeholders reach into the chunk. A chunk may begin or end inside an image.
    fn images_inside(&self) -> impl Iterator<Item = (&'a crate::schedule::ImageSpan, &'a Patches)> {
        let positions = self.chunk.positions.clone();
        let images = self.sequence.images.iter().zip(self.images);
        images.filter(move |(image, _)| {
            image.tokens.start < positions.end && image.tokens.end > positions.start
        })
    }
}

/// Puts image features on the rows of their placeholders.
fn soft_tokens(parts: &[Part<'_>], features: &Features, device: &Device) -> Result<Option<SoftTokens>> {
    let (mut rows, mut embeds): (Vec<u32>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut first_row = 0;
    for part in parts {
        let positions = &part.chunk.positions;
        for (image, _) in part.images_inside() {
            let (start, end) = (image.tokens.start.max(positions.start), image.tokens.end.min(positions.end));
            let not_encoded = || Error::internal("an image was not encoded before its rows");
            let features = features.by_digest.get(&image.digest).ok_or_else(not_encoded)?;
            rows.extend((start..end).map(|position| (first_row + position - positions.start) as u32));
            embeds.push(features.narrow(0, start - image.tokens.start, end - start)?);
        }
        first_row += positions.len();
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let num_rows = rows.len();
    let embeds = Tensor::cat(&embeds, 0)?.contiguous()?;
    Ok(Some(SoftTokens { rows: Tensor::from_vec(rows, num_rows, device)?, embeds }))
}
