//! Attention: causal over a paged cache for the decoder, open inside each image for the vision tower.
//!
//! Both are one kernel ([`cpu`]): a query sees a range of the keys of its sequence, and no more than the range differs.

mod cpu;
mod reference;

pub use reference::{paged_reference, segment_reference};

use super::has_kernel;
use super::host::{float_view, host_view, tensor_of};
use super::simd::Level;
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use cpu::{Cache, Group, Query, Slots, attend};
use half::bf16;
use std::ops::Range;

/// The rows that ask: where each stands in its sequence, and where each sequence's rows begin.
#[derive(Clone, Debug)]
pub struct Queries {
    /// `[T]` u32: the position of each row in its own sequence.
    pub positions: Tensor,
    /// `[B + 1]` u32: rows `query_start[b]..query_start[b + 1]` belong to sequence `b`.
    pub query_start: Tensor,
    /// How many of the first sequences are known to have one row or none, as they have in decoding: a device has a kernel for them.
    pub num_single: usize,
}

/// The keys and values a layer reads, in blocks.
#[derive(Clone, Copy, Debug)]
pub struct PagedKv<'a> {
    /// `[slots, K, D]`.
    pub keys: &'a Tensor,
    /// `[slots, K, D]`.
    pub values: &'a Tensor,
    /// `[B, N]` u32.
    pub block_tables: &'a Tensor,
    /// Slots per block.
    pub block_size: usize,
}

/// Grouped-query attention over the cache: the query at position `p` sees keys `j ≤ p`, and with a window `W` only `p - j < W`.
///
/// `q`: `[T, H, D]`, query head `h` uses key head `h / (H / K)`; keys of the new tokens are already in the cache.
/// Scores are scaled by `scale`, softmax in f32. Returns `[T, H, D]` in the dtype of `q`.
///
/// # Errors
/// `Internal` if the shapes do not fit, or a position lies outside the cache.
pub fn paged_attention(
    q: &Tensor,
    kv: &PagedKv<'_>,
    queries: &Queries,
    window: Option<usize>,
    scale: f32,
) -> Result<Tensor> {
    paged_attention_at(Level::Widest, q, kv, queries, window, scale)
}

/// [`paged_attention`] with the instructions of `level`.
///
/// # Errors
/// As [`paged_attention`].
pub fn paged_attention_at(
    level: Level,
    q: &Tensor,
    kv: &PagedKv<'_>,
    queries: &Queries,
    window: Option<usize>,
    scale: f32,
) -> Result<Tensor> {
    let rows = q.dim(0)?;
    check_heads(q, kv.keys, kv.values)?;
    let (sequences, _) = kv.block_tables.dims2()?;
    if queries.positions.dims() != [rows]
        || queries.query_start.dims() != [sequences + 1]
        || kv.block_size == 0
    {
        return Err(Error::internal(format_args!(
            "attention of {:?} with positions {:?}, starts {:?}, block tables {:?} of blocks of {}",
            q.shape(),
            queries.positions.shape(),
            queries.query_start.shape(),
            kv.block_tables.shape(),
            kv.block_size
        )));
    }
    if q.elem_count() == 0 {
        return Ok(q.clone());
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(q) {
        return super::cuda::attention::paged(&lane, q, kv, queries, (window, scale));
    }
    if !has_kernel(q) || !has_kernel(kv.keys) {
        return paged_reference(q, kv, queries, window, scale, DType::F32);
    }
    let (positions, starts, tables) =
        (queries.positions.contiguous()?, queries.query_start.contiguous()?, kv.block_tables.contiguous()?);
    let (positions, starts, tables) = (host_view(&positions)?, host_view(&starts)?, host_view(&tables)?);
    let (positions, tables) = (positions.slice::<u32>()?, tables.slice::<u32>()?);
    let segments = segments(starts.slice()?, rows)?;
    let table_len = tables.len() / sequences;
    let num_slots = kv.keys.dim(0)?;
    let mut sources = Vec::with_capacity(sequences);
    for (sequence, rows) in segments.into_iter().enumerate() {
        let table = &tables[sequence * table_len..(sequence + 1) * table_len];
        let len = positions[rows.clone()].iter().max().map_or(0, |&last| last as usize + 1);
        check_blocks(table, kv.block_size, len, num_slots)?;
        sources.push((rows, Slots::Blocks { table, block_size: kv.block_size }));
    }
    let seen = |row: usize, _: &Range<usize>| {
        let end = positions[row] as usize + 1;
        window.map_or(0, |window| end.saturating_sub(window))..end
    };
    run(level, (q, kv.keys, kv.values), &sources, &seen, scale)
}

/// Attention inside each segment, without order: every patch sees all patches of its own image.
///
/// `q`, `k`, `v`: `[P, H, D]`; `segment_start`: `[segments + 1]` u32. Returns `[P, H, D]`.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn segment_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segment_start: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    segment_attention_at(Level::Widest, q, k, v, segment_start, scale)
}

/// [`segment_attention`] with the instructions of `level`.
///
/// # Errors
/// As [`segment_attention`].
pub fn segment_attention_at(
    level: Level,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segment_start: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let patches = q.dim(0)?;
    check_heads(q, k, v)?;
    if k.dim(0)? != patches || segment_start.rank() != 1 {
        return Err(Error::internal(format_args!("attention of {:?} to keys {:?}", q.shape(), k.shape())));
    }
    if q.elem_count() == 0 {
        return Ok(q.clone());
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(q) {
        return super::cuda::attention::segments(&lane, (q, k, v), segment_start, scale);
    }
    if !has_kernel(q) || !has_kernel(k) {
        return segment_reference(q, k, v, segment_start, scale, DType::F32);
    }
    let starts = segment_start.contiguous()?;
    let segments = segments(host_view(&starts)?.slice()?, patches)?;
    let sources: Vec<_> = segments.into_iter().map(|rows| (rows.clone(), Slots::From(rows.start))).collect();
    run(level, (q, k, v), &sources, &|_, rows| 0..rows.len(), scale)
}

/// Attends rows `sources[i].0` to the keys at `sources[i].1`; `seen` says which keys a row of such a range sees.
fn run(
    level: Level,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    sources: &[(Range<usize>, Slots<'_>)],
    seen: &dyn Fn(usize, &Range<usize>) -> Range<usize>,
    scale: f32,
) -> Result<Tensor> {
    let (_, heads, head_dim) = q.dims3()?;
    let kv_heads = k.dim(1)?;
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let (q_view, k_view, v_view) = (float_view(level, &q)?, host_view(&k)?, host_view(&v)?);
    let mut out = vec![0.0; q.elem_count()];
    let mut rows = q_view.as_slice()?.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    let mut groups = Vec::with_capacity(sources.len() * kv_heads);
    for (range, slots) in sources {
        let first = groups.len();
        groups.extend((0..kv_heads).map(|kv_head| Group { slots: *slots, kv_head, queries: Vec::new() }));
        for token in range.clone() {
            for (head, (row, out)) in rows.by_ref().take(heads).enumerate() {
                let group = &mut groups[first + head / (heads / kv_heads)];
                group.queries.push(Query { row, seen: seen(token, range), out });
            }
        }
    }
    if k.dtype() == DType::F32 {
        let cache =
            Cache { keys: k_view.slice::<f32>()?, values: v_view.slice()?, heads: kv_heads, head_dim };
        attend(level, cache, scale, &mut groups);
    } else {
        let cache =
            Cache { keys: k_view.slice::<bf16>()?, values: v_view.slice()?, heads: kv_heads, head_dim };
        attend(level, cache, scale, &mut groups);
    }
    drop(groups);
    tensor_of(level, out, q.shape(), q.dtype())
}

/// The ranges between `starts`, which must cover `rows` from the first to the last.
fn segments(starts: &[u32], rows: usize) -> Result<Vec<Range<usize>>> {
    let ordered = starts.is_sorted() && starts.first() == Some(&0);
    if !ordered || starts.last().is_none_or(|&end| end as usize != rows) {
        return Err(Error::internal(format_args!("{rows} rows do not lie between {starts:?}")));
    }
    Ok(starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

fn check_heads(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let ((_, heads, head_dim), (_, kv_heads, key_dim)) = (q.dims3()?, k.dims3()?);
    let fits = k.dims() == v.dims() && k.dtype() == v.dtype() && head_dim == key_dim;
    if !fits || kv_heads == 0 || heads % kv_heads != 0 {
        return Err(Error::internal(format_args!(
            "attention of {:?} to keys {:?} and values {:?}",
            q.shape(),
            k.shape(),
            v.shape()
        )));
    }
    Ok(())
}

/// Whether the first `len` keys of a sequence lie in the pool.
fn check_blocks(table: &[u32], block_size: usize, len: usize, num_slots: usize) -> Result<()> {
    let blocks = len.div_ceil(block_size);
    let inside =
        |&block: &u32| (block as usize + 1).checked_mul(block_size).is_some_and(|end| end <= num_slots);
    if blocks > table.len() || !table[..blocks].iter().all(inside) {
        return Err(Error::internal(format_args!(
            "{len} keys in blocks of {block_size} from {table:?} do not lie in a pool of {num_slots} slots"
        )));
    }
    Ok(())
}
