//! What one forward pass needs, as plain tensors on the device: [`Batch`] for the decoder, [`ImageBatch`] for the vision tower.
//!
//! Every length and index is a device tensor, filled before the launch: nothing in a forward pass reads one back.
//! Sequences lie one after another without padding. Nothing here knows weights or models.

use crate::error::{Error, Result};
pub use crate::ops::attention::Queries;
use candle_core::{DType, Device, Tensor};

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
    /// Where the cache of each group of layers lies, in the layout's order.
    pub tables: Vec<CacheTables>,
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

/// Where the keys and values of a group of layers lie.
#[derive(Clone, Debug)]
pub struct CacheTables {
    /// `[T]` u32: the cache slot each row's key and value go to.
    pub slot_mapping: Tensor,
    /// `[B, N]` u32: the cache blocks of each sequence in order; what a window has passed and unused tails are zero.
    pub block_tables: Tensor,
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
#[derive(Clone, Debug)]
pub struct Chunk<'a> {
    /// The new tokens.
    pub input_ids: &'a [u32],
    /// The position of the first of them.
    pub first_position: usize,
    /// The sequence's cache blocks in each group of layers, enough for its last new token.
    pub block_tables: Vec<&'a [u32]>,
    /// Whose logits are wanted.
    pub wanted: Wanted,
}

impl Batch {
    /// Lays `chunks` one after another and moves the indices to `device`.
    ///
    /// # Errors
    /// `Internal` if a chunk is empty, a block table is too short for its last token, or the chunks disagree on the groups.
    pub fn new(chunks: &[Chunk<'_>], block_size: usize, device: &Device) -> Result<Self> {
        let num_groups = chunks.first().map_or(0, |chunk| chunk.block_tables.len());
        let mut rows = HostRows::default();
        for chunk in chunks {
            check(chunk, num_groups, block_size)?;
            rows.push(chunk);
        }
        let group = |group| host_tables(chunks, group, block_size).on(device);
        // A device gives no memory of no bytes.
        let u32s = |values: Vec<u32>| -> Result<Tensor> {
            match values.len() {
                0 => Ok(Tensor::zeros(1, DType::U32, device)?.narrow(0, 0, 0)?),
                len => Ok(Tensor::from_vec(values, len, device)?),
            }
        };
        let wanted_positions = rows.wanted.iter().map(|&row| rows.positions[row as usize]).collect();
        Ok(Self {
            input_ids: u32s(rows.input_ids)?,
            queries: Queries {
                positions: u32s(rows.positions)?,
                num_single: num_single(&rows.query_start),
                query_start: u32s(rows.query_start)?,
            },
            tables: (0..num_groups).map(group).collect::<Result<_>>()?,
            block_size,
            logit_rows: u32s(rows.wanted)?,
            logit_queries: Queries {
                positions: u32s(wanted_positions)?,
                num_single: num_single(&rows.wanted_start),
                query_start: u32s(rows.wanted_start)?,
            },
            soft_tokens: None,
            prompt_depth: PromptDepth::default(),
        })
    }

    /// Where the keys and values of group `group` lie.
    ///
    /// # Errors
    /// `Internal` if the batch was laid out for fewer groups.
    pub fn group(&self, group: usize) -> Result<&CacheTables> {
        let found = self.tables.len();
        self.tables.get(group).ok_or_else(|| {
            Error::internal(format_args!("a layer of group {group}, and block tables for {found}"))
        })
    }

    /// The device the batch lies on.
    pub fn device(&self) -> &Device {
        self.input_ids.device()
    }
}

fn check(chunk: &Chunk<'_>, num_groups: usize, block_size: usize) -> Result<()> {
    let end = chunk.first_position + chunk.input_ids.len();
    let room = chunk.block_tables.iter().map(|table| table.len() * block_size).min().unwrap_or(0);
    if chunk.input_ids.is_empty() || end > room || chunk.block_tables.len() != num_groups {
        return Err(Error::internal(format_args!(
            "a chunk at positions {}..{end} in {} groups of layers needs at least one token and {end} cache slots in {num_groups}, found {room}",
            chunk.first_position,
            chunk.block_tables.len()
        )));
    }
    Ok(())
}

/// The tables of one group, on the host.
struct HostTables {
    slots: Vec<u32>,
    /// `[B, N]`.
    blocks: Vec<u32>,
    num_sequences: usize,
}

fn host_tables(chunks: &[Chunk<'_>], group: usize, block_size: usize) -> HostTables {
    let table_len = chunks.iter().map(|chunk| chunk.block_tables[group].len()).max().unwrap_or(0);
    let (mut slots, mut blocks) = (Vec::new(), vec![0; chunks.len() * table_len]);
    for (row, chunk) in blocks.chunks_mut(table_len.max(1)).zip(chunks) {
        let table = chunk.block_tables[group];
        row[..table.len()].copy_from_slice(table);
        let positions = chunk.first_position..chunk.first_position + chunk.input_ids.len();
        let slot =
            |position: usize| table[position / block_size] as usize * block_size + position % block_size;
        slots.extend(positions.map(|position| slot(position) as u32));
    }
    HostTables { slots, blocks, num_sequences: chunks.len() }
}

impl HostTables {
    fn on(self, device: &Device) -> Result<CacheTables> {
        let (num_rows, table_len) = (self.slots.len(), self.blocks.len() / self.num_sequences.max(1));
        Ok(CacheTables {
            slot_mapping: Tensor::from_vec(self.slots, num_rows, device)?,
            block_tables: Tensor::from_vec(self.blocks, (self.num_sequences, table_len), device)?,
        })
    }
}

/// How many of the first sequences have one row or none.
fn num_single(starts: &[u32]) -> usize {
    starts.windows(2).take_while(|pair| pair[1] - pair[0] <= 1).count()
}

struct HostRows {
    input_ids: Vec<u32>,
    positions: Vec<u32>,
    query_start: Vec<u32>,
    wanted: Vec<u32>,
    wanted_start: Vec<u32>,
}

impl Default for HostRows {
    fn default() -> Self {
        Self {
            input_ids: Vec::new(),
            positions: Vec::new(),
            query_start: vec![0],
            wanted: Vec::new(),
            wanted_start: vec![0],
        }
    }
}

impl HostRows {
    fn push(&mut self, chunk: &Chunk<'_>) {
        let first_row = self.input_ids.len() as u32;
        let end = chunk.first_position + chunk.input_ids.len();
        self.positions.extend((chunk.first_position..end).map(|position| position as u32));
        self.input_ids.extend_from_slice(chunk.input_ids);
        let end_row = self.input_ids.len() as u32;
        self.query_start.push(end_row);
        match chunk.wanted {
            Wanted::Nothing => {}
            Wanted::Last => self.wanted.push(end_row - 1),
            Wanted::All => self.wanted.extend(first_row..end_row),
        }
        self.wanted_start.push(self.wanted.len() as u32);
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
