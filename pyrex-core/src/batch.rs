//! What one forward pass needs, as plain tensors on the device: [`Batch`] for the decoder, [`ImageBatch`] for the vision tower.
//!
//! Every length and index is a device tensor, filled before the launch: nothing in a forward pass reads one back.
//! Sequences lie one after another without padding. Nothing here knows weights or models.

use crate::error::{Error, Result};
pub use crate::ops::attention::Queries;
use candle_core::{Device, Tensor};

/// Image features and the rows of the batch they replace.
#[derive(Clone, Debug)]
pub struct SoftTokens {
    /// `[S]` u32: rows of the batch.
    pub rows: Tensor,
    /// `[S, C]`: one projected feature per row.
    pub embeds: Tensor,
}

/// Which layers the rows whose logits nobody wants run through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptDepth {
    /// Only what writes keys and values; the logits that are wanted do not change.
    #[default]
    CacheOnly,
    /// Every layer, as the reference runs when it records hidden states.
    AllLayers,
}

/// One decoder forward pass over the new tokens of `B` sequences, `T` rows in all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[T]` u32: token ids, the image placeholder's where an image is.
    pub input_ids: Tensor,
    /// All `T` rows as queries.
    pub queries: Queries,
    /// `[T]` u32: the cache slot each row's key and value go to.
    pub slot_mapping: Tensor,
    /// `[B, N]` u32: the cache blocks of each sequence in order; unused tails are zero.
    pub block_tables: Tensor,
    /// Slots per block.
    pub block_size: usize,
    /// `[R]` u32: the rows whose logits are wanted.
    pub logit_rows: Tensor,
    /// The wanted rows as queries of their own.
    pub logit_queries: Queries,
    /// Image features to put into place, if any.
    pub soft_tokens: Option<SoftTokens>,
    /// How deep the other rows go.
    pub prompt_depth: PromptDepth,
}

/// The rows of a chunk whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: more of the prompt follows.
    Nothing,
    /// The last row's, to choose the next token from.
    Last,
    /// Every row's, to compare with a reference.
    All,
}

/// One sequence's part of a batch, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The new tokens.
    pub input_ids: &'a [u32],
    /// The position of the first of them.
    pub first_position: usize,
    /// The sequence's cache blocks, enough for its last new token.
    pub block_table: &'a [u32],
    /// Whose logits are wanted.
    pub wanted: Wanted,
}

impl Batch {
    /// Lays `chunks` one after another and moves the indices to `device`.
    ///
    /// # Errors
    /// `Internal` if a chunk is empty or its block table is too short for its last token.
    pub fn new(chunks: &[Chunk<'_>], block_size: usize, device: &Device) -> Result<Self> {
        let mut rows = HostRows::default();
        for chunk in chunks {
            rows.push(chunk, block_size)?;
        }
        let tables = chunks.iter().map(|chunk| chunk.block_table.len()).max().unwrap_or(0);
        let mut block_tables = vec![0u32; chunks.len() * tables];
        for (row, chunk) in block_tables.chunks_mut(tables.max(1)).zip(chunks) {
            row[..chunk.block_table.len()].copy_from_slice(chunk.block_table);
        }
        let u32s = |values: Vec<u32>| -> Result<Tensor> {
            let len = values.len();
            Ok(Tensor::from_vec(values, len, device)?)
        };
        let wanted_positions = rows.wanted.iter().map(|&row| rows.positions[row as usize]).collect();
        Ok(Self {
            input_ids: u32s(rows.input_ids)?,
            queries: Queries { positions: u32s(rows.positions)?, query_start: u32s(rows.query_start)? },
            slot_mapping: u32s(rows.slots)?,
            block_tables: Tensor::from_vec(block_tables, (chunks.len(), tables), device)?,
            block_size,
            logit_rows: u32s(rows.wanted)?,
            logit_queries: Queries {
                positions: u32s(wanted_positions)?,
                query_start: u32s(rows.wanted_start)?,
            },
            soft_tokens: None,
            prompt_depth: PromptDepth::default(),
        })
    }

    /// The device the batch lies on.
    pub fn device(&self) -> &Device {
        self.input_ids.device()
    }
}

struct HostRows {
    input_ids: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    query_start: Vec<u32>,
    wanted: Vec<u32>,
    wanted_start: Vec<u32>,
}

impl Default for HostRows {
    fn default() -> Self {
        Self {
            input_ids: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            query_start: vec![0],
            wanted: Vec::new(),
            wanted_start: vec![0],
        }
    }
}

impl HostRows {
    fn push(&mut self, chunk: &Chunk<'_>, block_size: usize) -> Result<()> {
        let end = chunk.first_position + chunk.input_ids.len();
        let room = chunk.block_table.len() * block_size;
        if chunk.input_ids.is_empty() || end > room {
            return Err(Error::internal(format_args!(
                "a chunk at positions {}..{end} needs at least one token and {end} cache slots, found {room}",
                chunk.first_position
            )));
        }
        let first_row = self.input_ids.len() as u32;
        for position in chunk.first_position..end {
            let block = chunk.block_table[position / block_size] as usize;
            self.slots.push((block * block_size + position % block_size) as u32);
            self.positions.push(position as u32);
        }
        self.input_ids.extend_from_slice(chunk.input_ids);
        let end_row = self.input_ids.len() as u32;
        self.query_start.push(end_row);
        match chunk.wanted {
            Wanted::Nothing => {}
            Wanted::Last => self.wanted.push(end_row - 1),
            Wanted::All => self.wanted.extend(first_row..end_row),
        }
        self.wanted_start.push(self.wanted.len() as u32);
        Ok(())
    }
}

/// Images for one run of a vision tower: the patches of all of them, one image after another, without padding.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    /// `[P, patch values]` u8, in the family's own order inside a patch.
    pub pixels: Tensor,
    /// `[P, 2]` u32: (x, y) of each patch in its image, in patches, origin top left.
    pub positions: Tensor,
    /// `[images + 1]` u32: patches `segment_start[i]..segment_start[i + 1]` belong to image `i`.
    pub segment_start: Tensor,
    /// `[P]` u32: the soft token of the batch each patch is pooled into.
    pub pool_slots: Tensor,
    /// How many soft tokens come out, `S`.
    pub num_soft_tokens: usize,
}
