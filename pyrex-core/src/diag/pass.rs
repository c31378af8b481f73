//! [`Pass`]: one sequence through a model without an engine: its images, its prompt, then token by token.

use crate::batch::{Batch, Chunk, PromptDepth, SoftTokens, Wanted};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::{Model, ModelSpec};
use crate::prompt::{EncodedImage, EncodedPrompt, Patches};
use crate::trace::Tap;
use candle_core::Tensor;

/// Slots per block.
const BLOCK_SIZE: usize = 16;

/// A sequence with a cache of its own.
pub struct Pass<'a> {
    model: &'a dyn Model,
    pool: KvPool,
    block_table: Vec<u32>,
    position: usize,
}

/// Whose logits a pass returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every row's, all of them through every layer, as the reference runs.
    All,
    /// The last row's, the others only as deep as the cache needs, as an engine runs.
    Last,
}

impl<'a> Pass<'a> {
    /// Room for `num_tokens`.
    ///
    /// # Errors
    /// `InvalidRequest` if there are none or more than the model can take.
    pub fn new(model: &'a dyn Model, num_tokens: usize) -> Result<Self> {
        let ModelSpec { kv, dtype, device, max_position_embeddings, .. } = model.spec();
        if num_tokens == 0 || num_tokens > *max_position_embeddings {
            return Err(Error::invalid_request(format_args!(
                "the prompt has {num_tokens} tokens, expected 1 to {max_position_embeddings} (max_position_embeddings)"
            )));
        }
        let block_table: Vec<u32> = (0..num_tokens.div_ceil(BLOCK_SIZE) as u32).collect();
        let num_blocks = vec![block_table.len(); kv.groups().len()];
        let pool = KvPool::new(kv, &num_blocks, BLOCK_SIZE, *dtype, device)?;
        Ok(Self { model, pool, block_table, position: 0 })
    }

    /// Encodes the images of `prompt` and runs its tokens; returns the logits of `rows`.
    ///
    /// # Errors
    /// `Unsupported` if there are images and no vision tower; whatever the tap says.
    pub fn prefill(&mut self, tap: &mut dyn Tap, prompt: &EncodedPrompt, rows: Rows) -> Result<Tensor> {
        let soft_tokens = self.encode_images(tap, &prompt.images)?;
        self.forward(tap, &prompt.input_ids, soft_tokens, rows)
    }

    /// Runs one more token; returns its logits.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn decode(&mut self, tap: &mut dyn Tap, id: u32) -> Result<Tensor> {
        self.forward(tap, &[id], None, Rows::All)
    }

    /// Back to the first token: what comes next writes over what the cache holds.
    pub fn rewind(&mut self) {
        self.position = 0;
    }

    /// The soft tokens of `images` and the rows they belong to; `None` if there are none.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn encode_images(&self, tap: &mut dyn Tap, images: &[EncodedImage]) -> Result<Option<SoftTokens>> {
        if images.is_empty() {
            return Ok(None);
        }
        let patches: Vec<&Patches> = images.iter().map(|image| &image.patches).collect();
        let embeds = self.model.encode_images(&self.model.image_batch(&patches)?, tap)?;
        let rows: Vec<u32> =
            images.iter().flat_map(|image| image.tokens.clone()).map(|row| row as u32).collect();
        let num_rows = rows.len();
        Ok(Some(SoftTokens { rows: Tensor::from_vec(rows, num_rows, &self.model.spec().device)?, embeds }))
    }

    /// Runs the next tokens; returns the logits of `rows`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn forward(
        &mut self,
        tap: &mut dyn Tap,
        input_ids: &[u32],
        soft_tokens: Option<SoftTokens>,
        rows: Rows,
    ) -> Result<Tensor> {
        let (wanted, prompt_depth) = match rows {
            Rows::All => (Wanted::All, PromptDepth::AllLayers),
            Rows::Last => (Wanted::Last, PromptDepth::CacheOnly),
        };
        let block_tables = vec![self.block_table.as_slice(); self.pool.num_groups()];
        let chunk = Chunk { input_ids, first_position: self.position, block_tables, wanted };
        let batch = Batch::new(&[chunk], BLOCK_SIZE, &self.model.spec().device)?;
        let batch = Batch { soft_tokens, prompt_depth, ..batch };
        self.position += input_ids.len();
        self.model.forward(&batch, &mut self.pool, tap)
    }
}

/// The likeliest id of the last row; the lowest of equals, as the reference chooses.
///
/// # Errors
/// `Internal` if there is no row.
pub fn likeliest(logits: &Tensor) -> Result<u32> {
    let last = logits.dim(0)?.checked_sub(1).ok_or_else(|| Error::internal("no row of logits"))?;
    let row = logits.get(last)?.to_vec1::<f32>()?;
    let better = |best: usize, id: usize| if row[id] > row[best] { id } else { best };
    Ok((0..row.len()).reduce(better).unwrap_or_default() as u32)
}
