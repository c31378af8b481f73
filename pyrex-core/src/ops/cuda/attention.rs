//! Attention: rows that decode by one kernel, all others by another.

use super::{Lane, view};
use crate::error::Result;
use crate::ops::attention::{PagedKv, Queries};
use candle_core::{DType, Tensor};
use pyrex_kernels::attention::{
    DecodeSizes, Paged, Segments, decode_scratch_len, paged_decode, paged_prefill, segment_attention,
};

/// As [`paged_attention`](crate::ops::attention::paged_attention), with the window and the scale.
pub(crate) fn paged(
    lane: &Lane,
    q: &Tensor,
    kv: &PagedKv<'_>,
    queries: &Queries,
    (window, scale): (Option<usize>, f32),
) -> Result<Tensor> {
    let (_, heads, head_dim) = q.dims3()?;
    let kv_heads = kv.keys.dim(1)?;
    let (sequences, table_len) = kv.block_tables.dims2()?;
    let q = q.contiguous()?;
    let out = lane.unwritten(q.shape(), q.dtype())?;
    let (q_view, out_view) = (view(&q)?, view(&out)?);
    let (keys, values, tables) = (view(kv.keys)?, view(kv.values)?, view(kv.block_tables)?);
    let (positions, starts) = (view(&queries.positions)?, view(&queries.query_start)?);
    let of = |sequences| Paged {
        q: q_view.buffer(),
        keys: keys.buffer(),
        values: values.buffer(),
        block_tables: tables.buffer(),
        query_start: starts.buffer(),
        positions: positions.buffer(),
        out: out_view.buffer(),
        sequences,
        heads,
        kv_heads,
        head_dim,
        block_size: kv.block_size,
        window,
        scale,
    };
    let num_single = queries.num_single.min(sequences);
    if num_single > 0 {
        let block_size = kv.block_size;
        let sizes =
            DecodeSizes { sequences: num_single, table_len, block_size, window, heads, kv_heads, head_dim };
        let scratch = lane.unwritten(decode_scratch_len(lane, &sizes), DType::F32)?;
        paged_decode(lane, &of(0..num_single), view(&scratch)?.buffer())?;
    }
    if num_single < sequences {
        paged_prefill(lane, &of(num_single..sequences))?;
    }
    drop((q_view, out_view));
    Ok(out)
}

/// As [`segment_attention`](crate::ops::attention::segment_attention).
pub(crate) fn segments(
    lane: &Lane,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    segment_start: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let (_, heads, head_dim) = q.dims3()?;
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let out = lane.unwritten(q.shape(), q.dtype())?;
    segment_attention(
        lane,
        &Segments {
            q: view(&q)?.buffer(),
            k: view(&k)?.buffer(),
            v: view(&v)?.buffer(),
            segment_start: view(segment_start)?.buffer(),
            out: view(&out)?.buffer(),
            heads,
            head_dim,
            scale,
        },
    )?;
    Ok(out)
}
