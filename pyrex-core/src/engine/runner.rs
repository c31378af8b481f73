//! [`Runner`]: from a plan to a batch to logits. It owns the model and the cache's tensors.

use super::handle::Canceller;
use crate::batch::{Batch, Chunk, SoftTokens, Wanted};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::Model;
use crate::prompt::Patches;
use crate::schedule::{PlannedChunk, Sequence};
use crate::trace::Tap;
use candle_core::{DType, Device, Tensor};

/// The model and its cache.
pub(crate) struct Runner {
    model: Box<dyn Model>,
    pool: KvPool,
}

/// One sequence's part of a step, with what is needed to run it.
pub(crate) struct Part<'a> {
    pub(crate) chunk: &'a PlannedChunk,
    pub(crate) sequence: &'a Sequence,
    /// `[S, C]`: the features of all its images, one after another.
    pub(crate) features: Option<&'a Tensor>,
    pub(crate) canceller: &'a Canceller,
}

/// Ends a pass between two layers once nobody wants it any more.
struct WhileWanted<'a>(Vec<&'a Canceller>);

impl Tap for WhileWanted<'_> {
    fn watching(&self) -> bool {
        false
    }

    fn visit(&mut self, _name: &str, _tensor: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn proceed(&mut self) -> Result<()> {
        match self.0.iter().all(|canceller| canceller.is_cancelled()) {
            true => Err(Error::cancelled("the request was cancelled")),
            false => Ok(()),
        }
    }
}

impl Runner {
    pub(crate) fn new(model: Box<dyn Model>, pool: KvPool) -> Self {
        Self { model, pool }
    }

    fn device(&self) -> &Device {
        &self.model.spec().device
    }

    /// The soft tokens of `images`, `[S, C]`; `num_soft_tokens` is how many placeholders the prompt has for them.
    pub(crate) fn encode_images(
        &self,
        images: &[&Patches],
        num_soft_tokens: usize,
        canceller: &Canceller,
    ) -> Result<Tensor> {
        let batch = self.model.image_batch(images)?;
        let features = self.model.encode_images(&batch, &mut WhileWanted(vec![canceller]))?;
        match features.dims2()? {
            (found, _) if found == num_soft_tokens => Ok(features),
            (found, _) => Err(Error::internal(format_args!(
                "the images have {found} soft tokens, expected {num_soft_tokens} as in the prompt"
            ))),
        }
    }

    /// Runs the parts as one batch; returns the logits of those that sample, in their order, `[V]` each.
    pub(crate) fn forward(&mut self, parts: &[Part<'_>]) -> Result<Vec<Vec<f32>>> {
        let chunks: Vec<Chunk<'_>> = parts.iter().map(Part::as_chunk).collect();
        let mut batch = Batch::new(&chunks, self.pool.block_size(), self.device())?;
        batch.soft_tokens = soft_tokens(parts, self.device())?;
        let mut tap = WhileWanted(parts.iter().map(|part| part.canceller).collect());
        let logits = self.model.forward(&batch, &mut self.pool, &mut tap)?;
        let expected = (parts.iter().filter(|part| part.chunk.samples).count(), self.model.spec().vocab_size);
        if logits.dims2()? != expected {
            return Err(Error::internal(format_args!(
                "logits are {:?}, expected {expected:?}",
                logits.shape()
            )));
        }
        if expected.0 == 0 {
            return Ok(Vec::new());
        }
        Ok(logits.to_dtype(DType::F32)?.to_vec2()?)
    }
}

impl<'a> Part<'a> {
    fn as_chunk(&self) -> Chunk<'a> {
        let positions = self.chunk.positions.clone();
        Chunk {
            first_position: positions.start,
            input_ids: &self.sequence.token_ids[positions],
            block_table: self.sequence.block_table.as_slice(),
            wanted: if self.chunk.samples { Wanted::Last } else { Wanted::Nothing },
        }
    }
}

/// Puts image features on the rows of their placeholders. A chunk may begin or end inside an image.
fn soft_tokens(parts: &[Part<'_>], device: &Device) -> Result<Option<SoftTokens>> {
    let (mut rows, mut embeds): (Vec<u32>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut first_row = 0;
    for Part { chunk, sequence, features, .. } in parts {
        let positions = &chunk.positions;
        let mut first_feature = 0;
        for image in &sequence.images {
            let (start, end) = (image.start.max(positions.start), image.end.min(positions.end));
            if start < end {
                let features =
                    features.ok_or_else(|| Error::internal("an image was not encoded before its rows"))?;
                rows.extend((start..end).map(|position| (first_row + position - positions.start) as u32));
                embeds.push(features.narrow(0, first_feature + start - image.start, end - start)?);
            }
            first_feature += image.len();
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
