//! Row by row: norms, rotation, the cache, embeddings, elementwise.

use super::{Lane, View, view, view_of};
use crate::error::Result;
use crate::ops::Matrix;
use crate::ops::heads::CacheWrite;
use crate::ops::per_layer::PerLayer;
use crate::ops::rms_norm::{AddNorm, Norm};
use crate::ops::rope::RopeTable;
use candle_core::{D, DType, Tensor};
use pyrex_kernels::{Buffer, elementwise, gather, gelu, norm, pool, rope as rotation};

/// The memory of a norm's weight, borrowed.
struct NormView {
    weight: Option<View>,
    eps: f32,
}

impl NormView {
    fn new(norm: Norm<'_>) -> Result<Self> {
        Ok(Self { weight: norm.weight.map(view).transpose()?, eps: norm.eps as f32 })
    }

    fn norm(&self) -> norm::Norm<'_> {
        norm::Norm { weight: self.weight.as_ref().map(View::buffer), eps: self.eps }
    }
}

/// The memory of a table of angles, borrowed.
struct RopeView {
    cos: View,
    sin: View,
    axes: usize,
}

impl RopeView {
    fn new(table: &RopeTable) -> Result<Self> {
        Ok(Self { cos: view(&table.cos)?, sin: view(&table.sin)?, axes: table.axes })
    }

    fn rope(&self) -> rotation::Rope<'_> {
        rotation::Rope { cos: self.cos.buffer(), sin: self.sin.buffer(), axes: self.axes }
    }
}

/// A kernel with one input and an output like it.
fn map(
    lane: &Lane,
    x: &Tensor,
    run: impl FnOnce(Buffer<'_>, Buffer<'_>) -> pyrex_kernels::Result<()>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let out = lane.unwritten(x.shape(), x.dtype())?;
    run(view(&x)?.buffer(), view(&out)?.buffer())?;
    Ok(out)
}

pub(crate) fn rms_norm(lane: &Lane, x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    let (width, norm) = (x.dim(D::Minus1)?, NormView::new(norm)?);
    map(lane, x, |x, out| norm::rms_norm(lane, x, &norm.norm(), width, out))
}

pub(crate) fn add_norm(lane: &Lane, x: &Tensor, end: &AddNorm<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let (x, residual) = (x.contiguous()?, end.residual.contiguous()?);
    let sum = lane.unwritten(x.shape(), x.dtype())?;
    let next = end.next.map(NormView::new).transpose()?;
    let normed = next.is_some().then(|| lane.unwritten(x.shape(), x.dtype())).transpose()?;
    let normed_view = normed.as_ref().map(view).transpose()?;
    norm::add_norm(
        lane,
        &norm::AddNorm {
            x: view(&x)?.buffer(),
            residual: view(&residual)?.buffer(),
            norm: NormView::new(end.norm)?.norm(),
            scale: end.scale,
            width: x.dim(D::Minus1)?,
            sum: view(&sum)?.buffer(),
            next: next.as_ref().zip(normed_view.as_ref()).map(|(next, out)| (next.norm(), out.buffer())),
        },
    )?;
    drop(normed_view);
    Ok((sum, normed))
}

pub(crate) fn rope_table(
    lane: &Lane,
    positions: &Tensor,
    inv_freq: &Tensor,
    axes: usize,
    dtype: DType,
) -> Result<RopeTable> {
    let shape = (positions.dim(0)?, axes * inv_freq.dim(0)?);
    let (cos, sin) = (lane.unwritten(shape, dtype)?, lane.unwritten(shape, dtype)?);
    let positions = positions.contiguous()?;
    rotation::rope_table(
        lane,
        view(&positions)?.buffer(),
        view(inv_freq)?.buffer(),
        axes,
        view(&cos)?.buffer(),
        view(&sin)?.buffer(),
    )?;
    Ok(RopeTable { cos, sin, axes })
}

pub(crate) fn rope(lane: &Lane, x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    rotated(lane, x, None, table)
}

pub(crate) fn norm_rope(lane: &Lane, x: &Tensor, norm: Norm<'_>, table: &RopeTable) -> Result<Tensor> {
    rotated(lane, x, Some(norm), table)
}

fn rotated(lane: &Lane, x: &Tensor, norm: Option<Norm<'_>>, table: &RopeTable) -> Result<Tensor> {
    let (_, heads, head_dim) = x.dims3()?;
    let (norm, table) = (norm.map(NormView::new).transpose()?, RopeView::new(table)?);
    map(lane, x, |x, out| {
        let (norm, rope) = (norm.as_ref().map(NormView::norm), Some(table.rope()));
        rotation::norm_rope(lane, &rotation::NormRope { x, norm, rope, heads, head_dim, out })
    })
}

pub(crate) fn write_keys_values(
    lane: &Lane,
    new: &CacheWrite<'_>,
    key_pool: &Tensor,
    value_pool: &Tensor,
) -> Result<()> {
    let (_, heads, head_dim) = new.keys.dims3()?;
    let (keys, values) = (new.keys.contiguous()?, new.values.contiguous()?);
    Ok(rotation::norm_rope_write(
        lane,
        &rotation::KeyValue {
            k: view(&keys)?.buffer(),
            v: view(&values)?.buffer(),
            k_norm: NormView::new(new.k_norm)?.norm(),
            v_norm: NormView::new(new.v_norm)?.norm(),
            rope: RopeView::new(new.rope)?.rope(),
            slots: view(new.slot_mapping)?.buffer(),
            keys: view(key_pool)?.buffer(),
            values: view(value_pool)?.buffer(),
            heads,
            head_dim,
        },
    )?)
}

pub(crate) fn gelu_mul(lane: &Lane, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let width = gate.dim(D::Minus1)?;
    let up = if up.rank() == 2 { up.clone() } else { up.reshape(((), width))? };
    let (up_view, up_stride) = column_block(&up)?;
    map(lane, gate, |gate, out| {
        let (up, up_offset) = (up_view.buffer(), 0);
        gelu::gelu_mul(lane, &gelu::GeluMul { gate, up, up_offset, up_stride, width, out })
    })
}

/// The memory of `x`, `[T, C]`, and how far its rows lie apart: it may be a column block of a wider tensor.
pub(super) fn column_block(x: &Tensor) -> Result<(View, usize)> {
    let (rows, width) = x.dims2()?;
    let strided = x.stride()[1] == 1 && x.stride()[0] >= width;
    let x = if strided { x.clone() } else { x.contiguous()? };
    let (start, stride) = (x.layout().start_offset(), x.stride()[0]);
    Ok((view_of(&x, start..start + rows.saturating_sub(1) * stride + width)?, stride))
}

pub(crate) fn soft_cap(lane: &Lane, x: &Tensor, cap: f32) -> Result<Tensor> {
    map(lane, x, |x, out| elementwise::soft_cap(lane, x, cap, out))
}

pub(crate) fn scale(lane: &Lane, x: &Tensor, factor: f32) -> Result<Tensor> {
    map(lane, x, |x, out| elementwise::scale(lane, x, factor, out))
}

pub(crate) fn gather_rows(
    lane: &Lane,
    table: &Matrix,
    ids: &Tensor,
    factor: f32,
    dtype: DType,
) -> Result<Tensor> {
    let ids = ids.contiguous()?;
    let out = lane.unwritten((ids.elem_count(), table.cols()), dtype)?;
    table.with_buffer(|table_buffer, _| {
        Ok(gather::gather_rows(
            lane,
            &gather::Gather {
                table: table_buffer,
                ids: view(&ids)?.buffer(),
                width: table.cols(),
                factor,
                out: view(&out)?.buffer(),
            },
        )?)
    })?;
    Ok(out)
}

pub(crate) fn mask_ids(lane: &Lane, ids: &Tensor, placeholders: &[u32], pad: u32) -> Result<Tensor> {
    map(lane, ids, |ids, out| gather::mask_ids(lane, ids, placeholders, pad, out))
}

pub(crate) fn select_rows(lane: &Lane, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let (x, rows) = (x.contiguous()?, rows.contiguous()?);
    let mut shape = x.dims().to_vec();
    shape[0] = rows.dim(0)?;
    let out = lane.unwritten(shape, x.dtype())?;
    let width = x.elem_count() / x.dim(0)?.max(1);
    gather::select_rows(lane, view(&x)?.buffer(), view(&rows)?.buffer(), width, view(&out)?.buffer())?;
    Ok(out)
}

/// As [`copy_ids`](crate::ops::gather::copy_ids).
pub(crate) fn copy_ids(lane: &Lane, source: &Tensor, pairs: &[(u32, u32)], target: &Tensor) -> Result<()> {
    let flat: Vec<u32> = pairs.iter().flat_map(|(from, to)| [*from, *to]).collect();
    let pairs = Tensor::from_vec(flat, (pairs.len(), 2), target.device())?;
    let (source, target) = (view(source)?, view(target)?);
    Ok(gather::copy_ids(lane, source.buffer(), view(&pairs)?.buffer(), target.buffer())?)
}

pub(crate) fn scatter_rows(lane: &Lane, x: &Tensor, rows: &Tensor, source: &Tensor) -> Result<Tensor> {
    let out = x.copy()?.contiguous()?;
    write_slots(lane, &out, rows, source)?;
    Ok(out)
}

pub(crate) fn write_slots(lane: &Lane, pool: &Tensor, slots: &Tensor, source: &Tensor) -> Result<()> {
    let (slots, source) = (slots.contiguous()?, source.contiguous()?);
    let width = source.elem_count() / source.dim(0)?.max(1);
    let (source, rows, target) = (view(&source)?, view(&slots)?, view(pool)?);
    let (source, rows, target) = (source.buffer(), rows.buffer(), target.buffer());
    Ok(gather::scatter_rows(lane, &gather::Scatter { source, rows, width, target })?)
}

pub(crate) fn per_layer_inputs(
    lane: &Lane,
    context: &Tensor,
    ids: &Tensor,
    per_layer: &PerLayer<'_>,
) -> Result<Tensor> {
    let (context, ids) = (context.contiguous()?, ids.contiguous()?);
    let (layers, width) = (per_layer.layers.clone(), per_layer.table.cols());
    let out = lane.unwritten((ids.elem_count(), layers.len(), width), context.dtype())?;
    let norm = NormView::new(per_layer.norm)?;
    per_layer.table.with_buffer(|table, _| {
        Ok(gather::per_layer_inputs(
            lane,
            &gather::PerLayer {
                context: view(&context)?.buffer(),
                ids: view(&ids)?.buffer(),
                table,
                num_layers: per_layer.num_layers,
                first_layer: layers.start,
                layers: layers.len(),
                width,
                factor: per_layer.factor,
                projection_scale: per_layer.projection_scale,
                norm: norm.norm(),
                out: view(&out)?.buffer(),
            },
        )?)
    })?;
    Ok(out)
}

pub(crate) fn average_pool(
    lane: &Lane,
    x: &Tensor,
    slots: &Tensor,
    num_slots: usize,
    (tile_len, scale): (usize, f32),
) -> Result<Tensor> {
    let (x, slots) = (x.contiguous()?, slots.contiguous()?);
    let out = lane.unwritten((num_slots, x.dim(1)?), DType::F32)?;
    pool::average_pool(
        lane,
        &pool::Pool {
            x: view(&x)?.buffer(),
            slots: view(&slots)?.buffer(),
            num_slots,
            tile_len,
            scale,
            std_bias: None,
            std_scale: None,
            out: view(&out)?.buffer(),
        },
    )?;
    Ok(out)
}
