//! Attention: causal over a paged cache for a decoder, open inside each segment for a vision tower.
//!
//! Scores, softmax and sums are f32; the result is rounded once, to the dtype of the queries. How long a sequence is, and where its
//! keys lie, is read on the device alone: a launch is shaped by the sizes of its buffers, so that it can be recorded and replayed.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, count};
use std::ops::Range;

pub use crate::paged_decode::{DecodeSizes, decode_scratch_len, paged_decode};
pub use crate::paged_prefill::paged_prefill;
pub use crate::segment_attention::{Segments, segment_attention};

/// The widest head that a kernel holds.
pub const MAX_HEAD_DIM: usize = 512;

/// Grouped-query attention over a paged cache: query head `h` uses key head `h / (H / K)`, and the row at position `p` of its
/// sequence sees the keys `j ≤ p` of which, with a window `W`, `p − j < W`. No other key, value or entry of a table is read.
///
/// `B` sequences have `T` rows of `H` heads; the cache has `K` heads, each of `D` = `head_dim` numbers, a multiple of 8.
#[derive(Clone, Debug)]
pub struct Paged<'a> {
    /// `[T, H, D]`, f32 or bf16.
    pub q: Buffer<'a>,
    /// `[slots, K, D]`, as `q`. Those of the rows themselves are already there.
    pub keys: Buffer<'a>,
    /// `[slots, K, D]`, as `q`.
    pub values: Buffer<'a>,
    /// `[B, N]` u32: the blocks of each sequence.
    pub block_tables: Buffer<'a>,
    /// `[B + 1]` u32: rows `query_start[b]..query_start[b + 1]` belong to sequence `b`.
    pub query_start: Buffer<'a>,
    /// `[T]` u32: the position of each row in its sequence.
    pub positions: Buffer<'a>,
    /// `[T, H, D]`, as `q`.
    pub out: Buffer<'a>,
    /// The sequences whose rows are computed.
    pub sequences: Range<usize>,
    /// `H`.
    pub heads: usize,
    /// `K`, which divides `H`.
    pub kv_heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// Slots of a block, a power of two.
    pub block_size: usize,
    /// `W`, if there is a window.
    pub window: Option<usize>,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Paged<'_> {
    /// How many entries a sequence's table has.
    pub(crate) fn table_len(&self) -> usize {
        self.block_tables.len() / self.query_start.len().saturating_sub(1).max(1)
    }

    /// Whether no row is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequences.is_empty() || self.positions.is_empty()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let element = float("q", &self.q)?;
        check_heads(self.heads, self.kv_heads, self.head_dim)?;
        let (rows, slot_len) = (self.positions.len(), self.kv_heads * self.head_dim);
        let sequences = self.query_start.len().saturating_sub(1);
        self.q.expect("q", element, rows * self.heads * self.head_dim, 16)?;
        self.out.expect("out", element, rows * self.heads * self.head_dim, 16)?;
        self.keys.expect("keys", element, self.keys.len() / slot_len * slot_len, 16)?;
        self.values.expect("values", element, self.keys.len(), 16)?;
        self.block_tables.expect("block_tables", Element::U32, self.table_len() * sequences, 4)?;
        self.query_start.expect("query_start", Element::U32, sequences + 1, 4)?;
        self.positions.expect("positions", Element::U32, rows, 4)?;
        if self.sequences.start > self.sequences.end || self.sequences.end > sequences {
            let range = &self.sequences;
            return Err(Error::arguments(format_args!("sequences {range:?} are asked for, of {sequences}")));
        }
        if !self.block_size.is_power_of_two() || self.window == Some(0) || !self.scale.is_finite() {
            return Err(Error::arguments(format_args!(
                "blocks of {}, a window of {:?}, a scale of {}; expected a power of two, at least 1, a number",
                self.block_size, self.window, self.scale
            )));
        }
        Ok(())
    }

    /// What every paged kernel begins with.
    pub(crate) fn arguments(&self) -> Result<Vec<Argument>> {
        // A window that no position passes is none.
        let window = self.window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX));
        Ok(vec![
            self.q.into(),
            self.keys.into(),
            self.values.into(),
            self.block_tables.into(),
            self.query_start.into(),
            self.positions.into(),
            self.out.into(),
            count("sequences", self.sequences.start)?.into(),
            count("sequences", self.sequences.end)?.into(),
            count("heads", self.heads)?.into(),
            count("kv_heads", self.kv_heads)?.into(),
            count("head_dim", self.head_dim)?.into(),
            count("table_len", self.table_len())?.into(),
            self.block_size.trailing_zeros().into(),
            window.into(),
            self.scale.into(),
        ])
    }
}

/// The dtype of a buffer that must hold f32 or bf16.
pub(crate) fn float(name: &str, buffer: &Buffer<'_>) -> Result<Element> {
    match buffer.element() {
        element @ (Element::F32 | Element::Bf16) => Ok(element),
        other => Err(Error::arguments(format_args!("{name} has {other:?}, expected F32 or Bf16"))),
    }
}

pub(crate) fn check_heads(heads: usize, kv_heads: usize, head_dim: usize) -> Result<()> {
    let grouped = kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads);
    if !grouped || head_dim == 0 || head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(8) {
        return Err(Error::arguments(format_args!(
            "{heads} heads over {kv_heads} of {head_dim}: expected groups of a size, and a multiple of 8 up to {MAX_HEAD_DIM}"
        )));
    }
    Ok(())
}

/// Bytes of shared memory that attention by plain multiplications takes for so many rows, as `FmaAttention` lays them out.
pub(crate) fn fma_shared_bytes(rows: usize, head_dim: usize) -> u32 {
    const KEYS: usize = 32;
    let pitch = head_dim.next_multiple_of(32) + 4;
    let words = (rows + KEYS) * pitch + KEYS * rows + rows + KEYS;
    u32::try_from(words * 4).expect("heads of at most 512 were checked")
}

/// Threads of attention in tiles on tensor cores, as in attention_tiles.cuh.
pub(crate) const TILE_THREADS: u32 = 256;

/// Bytes of shared memory that it takes: as `Bf16Products` lays them out, with scores on their way between slices, or `F32Products`,
/// with the queries of 128 rows.
pub(crate) fn tile_shared_bytes(element: Element, head_dim: usize, slices: usize) -> u32 {
    const KEYS: usize = 32;
    let ring = 4 * KEYS * head_dim * element.size();
    let beside = match element {
        Element::F32 => 128 * head_dim * 4,
        _ if slices > 1 => 8 * KEYS * 16 * 4,
        _ => 0,
    };
    u32::try_from(ring + beside).expect("heads of at most 512 were checked")
}

/// How many tiles the rows of so many sequences make at most.
pub(crate) fn tiles(rows: usize, tile_rows: usize, sequences: usize) -> Result<u32> {
    count("tiles", rows / tile_rows + sequences)
}
