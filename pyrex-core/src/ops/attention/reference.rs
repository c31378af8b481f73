//! The definition of attention, in tensor operations.
//!
//! Nothing is read back from the device and nothing depends on a value held on it, so that a step that uses it can be recorded.

use super::PagedKv;
use super::Queries;
use crate::error::Result;
use candle_core::{D, DType, Device, Tensor};

/// [`super::paged_attention`] in tensor operations: every query against every slot of every block table, masked.
/// `probabilities`: the dtype that the softmax is rounded to; f32 but to see what rounding does.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn paged_reference(
    q: &Tensor,
    kv: &PagedKv<'_>,
    queries: &Queries,
    window: Option<usize>,
    scale: f32,
    probabilities: DType,
) -> Result<Tensor> {
    let device = q.device();
    let rows = q.dim(0)?;
    let (sequences, blocks) = kv.block_tables.dims2()?;
    let (block_size, context) = (kv.block_size, blocks * kv.block_size);
    let first_slots =
        (kv.block_tables.to_dtype(DType::F32)? * block_size as f64)?.reshape((sequences, blocks, 1))?;
    let slots = first_slots.broadcast_add(&count(block_size, device)?.reshape((1, 1, block_size))?)?;
    let slots = slots.flatten_all()?.to_dtype(DType::U32)?;

    let distance = {
        let positions = queries.positions.to_dtype(DType::F32)?.reshape((rows, 1))?;
        positions.broadcast_sub(&count(context, device)?.reshape((1, context))?)?
    };
    let mut seen = distance.ge(0f64)?;
    if let Some(window) = window {
        seen = (seen * distance.lt(window as f64)?)?;
    }
    let owner = segment_of(&queries.query_start, rows)?.reshape((rows, 1))?;
    let own = owner.broadcast_eq(&count(sequences, device)?.reshape((1, sequences))?)?;
    let seen = own.reshape((rows, sequences, 1))?.broadcast_mul(&seen.reshape((rows, 1, context))?)?;
    let seen = seen.reshape((rows, sequences * context))?;
    let (keys, values) = (kv.keys.index_select(&slots, 0)?, kv.values.index_select(&slots, 0)?);
    masked((q, &keys, &values), &seen, scale, probabilities)
}

/// [`super::segment_attention`] in tensor operations: every patch against every patch, masked.
/// `probabilities` as for [`paged_reference`].
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn segment_reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segment_start: &Tensor,
    scale: f32,
    probabilities: DType,
) -> Result<Tensor> {
    let patches = q.dim(0)?;
    let segment = segment_of(segment_start, patches)?;
    let seen = segment.reshape((patches, 1))?.broadcast_eq(&segment.reshape((1, patches))?)?;
    masked((q, k, v), &seen, scale, probabilities)
}

/// Attention of `[T, H, D]` to `[N, K, D]` where `seen`, `[T, N]` u8, is not zero.
fn masked(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    seen: &Tensor,
    scale: f32,
    probabilities: DType,
) -> Result<Tensor> {
    let (rows, heads, head_dim) = q.dims3()?;
    let (keys, kv_heads, _) = k.dims3()?;
    // A key head serves the queries of its group: they are rows of one product.
    let group = heads / kv_heads;
    let queries =
        q.to_dtype(DType::F32)?.reshape((rows, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?;
    let queries = queries.contiguous()?.reshape((kv_heads, group * rows, head_dim))?;
    let by_head = |x: &Tensor| x.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous();
    let scores = (queries.matmul(&by_head(k)?.transpose(1, 2)?.contiguous()?)? * f64::from(scale))?;
    let scores = scores.reshape((kv_heads, group, rows, keys))?;
    let unseen = scores.zeros_like()?.affine(1.0, f64::NEG_INFINITY)?;
    let seen = seen.reshape((1, 1, rows, keys))?.broadcast_as(scores.shape())?.contiguous()?;
    let weights =
        softmax(&seen.where_cond(&scores, &unseen)?)?.to_dtype(probabilities)?.to_dtype(DType::F32)?;
    let weights = weights.reshape((kv_heads, group * rows, keys))?;
    let out = weights.matmul(&by_head(v)?)?.reshape((kv_heads, group, rows, head_dim))?;
    let out = out.permute((2, 0, 1, 3))?.contiguous()?.reshape((rows, heads, head_dim))?;
    Ok(out.to_dtype(q.dtype())?)
}

/// The segment each of `rows` rows lies in, `[rows]` f32: how many segments after the first have begun.
fn segment_of(starts: &Tensor, rows: usize) -> Result<Tensor> {
    let later = starts.dim(0)?.saturating_sub(2);
    let row = count(rows, starts.device())?;
    if later == 0 {
        return Ok(row.zeros_like()?);
    }
    let starts = starts.narrow(0, 1, later)?.to_dtype(DType::F32)?.reshape((1, later))?;
    Ok(row.reshape((rows, 1))?.broadcast_ge(&starts)?.to_dtype(DType::F32)?.sum(1)?)
}

/// `0, 1, …, len − 1` in f32, by doubling: it is made on the device, where `Tensor::arange` copies from the host.
fn count(len: usize, device: &Device) -> Result<Tensor> {
    let mut numbers = Tensor::zeros(1, DType::F32, device)?;
    let mut have = 1;
    while have < len {
        numbers = Tensor::cat(&[&numbers, &(&numbers + have as f64)?], 0)?;
        have *= 2;
    }
    Ok(numbers.narrow(0, 0, len)?.contiguous()?)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}
