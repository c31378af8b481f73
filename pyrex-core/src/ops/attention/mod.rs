//! Attention: causal over a paged cache for the decoder, open inside each image for the vision tower.

use crate::batch::Queries;
use crate::error::Result;
use candle_core::{D, DType, Tensor};

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
/// `Internal` if the shapes do not fit.
pub fn paged_attention(q: &Tensor, kv: &PagedKv<'_>, queries: &Queries, window: Option<usize>, scale: f32) -> Result<Tensor> {
    reference(q, kv, queries, window, scale)
}

/// Attention inside each segment, without order: every patch sees all patches of its own image.
///
/// `q`, `k`, `v`: `[P, H, D]`; `segment_start`: `[segments + 1]` u32. Returns `[P, H, D]`.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn segment_attention(q: &Tensor, k: &Tensor, v: &Tensor, segment_start: &Tensor, scale: f32) -> Result<Tensor> {
    let starts = segment_start.to_vec1::<u32>()?;
    let mut outputs = Vec::new();
    for pair in starts.windows(2) {
        let (start, len) = (pair[0] as usize, (pair[1] - pair[0]) as usize);
        let part = |t: &Tensor| -> Result<Tensor> {
            Ok(t.narrow(0, start, len)?.transpose(0, 1)?.to_dtype(DType::F32)?.contiguous()?)
        };
        let scores = (part(q)?.matmul(&part(k)?.transpose(1, 2)?)? * f64::from(scale))?;
        let out = softmax(&scores)?.matmul(&part(v)?)?;
        outputs.push(out.transpose(0, 1)?.to_dtype(q.dtype())?);
    }
    Ok(Tensor::cat(&outputs, 0)?.contiguous()?)
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`paged_attention`].
pub fn reference(q: &Tensor, kv: &PagedKv<'_>, queries: &Queries, window: Option<usize>, scale: f32) -> Result<Tensor> {
    let (_, heads, _) = q.dims3()?;
    let kv_heads = kv.keys.dim(1)?;
    let starts = queries.query_start.to_vec1::<u32>()?;
    let positions = queries.positions.to_vec1::<u32>()?;
    let tables = kv.block_tables.to_vec2::<u32>()?;
    let mut outputs = Vec::new();
    for (pair, table) in starts.windows(2).zip(tables) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        if start == end {
            continue;
        }
        let len = positions[end - 1] as usize + 1;
        let slots: Vec<u32> =
            (0..len).map(|j| table[j / kv.block_size] * kv.block_size as u32 + (j % kv.block_size) as u32).collect();
        let slots = Tensor::from_vec(slots, len, q.device())?;
        let gathered = |pool: &Tensor| -> Result<Tensor> {
            let rows = pool.index_select(&slots, 0)?.transpose(0, 1)?.to_dtype(DType::F32)?;
            let (k, n, d) = rows.dims3()?;
            let group = heads / kv_heads;
            Ok(rows.unsqueeze(1)?.broadcast_as((k, group, n, d))?.reshape((heads, n, d))?.contiguous()?)
        };
        let mask: Vec<f32> = positions[start..end]
            .iter()
            .flat_map(|&p| {
                let p = p as usize;
                (0..len).map(move |j| {
                    let seen = j <= p && window.is_none_or(|w| p - j < w);
                    if seen { 0.0 } else { f32::NEG_INFINITY }
                })
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, end - start, len), q.device())?;
        let query = q.narrow(0, start, end - start)?.transpose(0, 1)?.to_dtype(DType::F32)?.contiguous()?;
        let scores = (query.matmul(&gathered(kv.keys)?.transpose(1, 2)?)? * f64::from(scale))?;
        let out = softmax(&scores.broadcast_add(&mask)?)?.matmul(&gathered(kv.values)?)?;
        outputs.push(out.transpose(0, 1)?.to_dtype(q.dtype())?);
    }
    Ok(Tensor::cat(&outputs, 0)?.contiguous()?)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}
