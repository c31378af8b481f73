//! Rows looked up, moved and put together: embeddings, soft tokens into place, the cache's slots and blocks.
//!
//! Which rows lies in the device's memory, so nothing here can refuse a wrong one: what is read from outside of a table is NaN, and
//! nothing is written outside of a target.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Module, Queue, count};
use crate::norm::Norm;
use crate::rows::{Rows, SPAN, activations, aligned, expect, launch_flat, one_of};

const MODULE: Module = Module { name: "gather", ptx: include_str!("gather.ptx") };
const TABLES: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];

/// Ids and the table that they are looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Gather<'a> {
    /// `[R, width]` f32, bf16 or f16; may lie in the host's memory, if the device can reach it.
    pub table: Buffer<'a>,
    /// `[T]` u32.
    pub ids: Buffer<'a>,
    /// Numbers of a row.
    pub width: usize,
    /// What a row is multiplied with.
    pub factor: f32,
    /// `[T, width]` f32 or bf16.
    pub out: Buffer<'a>,
}

/// `out[t] = r(r(table[ids[t]]) · factor)`, where `r` rounds to the dtype of `out`; NaN for an id that the table has not.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn gather_rows(queue: &dyn Queue, gather: &Gather<'_>) -> Result<()> {
    let Gather { table, ids, width, factor, out } = *gather;
    let (element, stored) = (activations("out", out)?, one_of("table", table, &TABLES)?);
    let table_rows = num_rows("table", table, width)?;
    expect("ids", ids, Element::U32, ids.len())?;
    expect("out", out, element, ids.len() * width)?;
    let pack = 16 / stored.size();
    let rows = Rows::in_spans(count("ids", ids.len())?, width, width.div_ceil(pack))?;
    let arguments = vec![
        table.into(),
        table_rows.into(),
        factor.into(),
        ids.into(),
        out.into(),
        rows.count.into(),
        rows.width.into(),
        aligned(pack, width, &[table, out]).into(),
    ];
    rows.launch(queue, &MODULE, lookup("gather_rows", element, stored), arguments)
}

/// What the inputs of some layers are made of, for each token.
#[derive(Clone, Copy, Debug)]
pub struct PerLayer<'a> {
    /// `[T, layers, width]` f32 or bf16: the projection of the tokens' embeddings.
    pub context: Buffer<'a>,
    /// `[T]` u32, placeholders already replaced.
    pub ids: Buffer<'a>,
    /// `[V · num_layers, width]` f32, bf16 or f16; may lie in the host's memory, if the device can reach it.
    pub table: Buffer<'a>,
    /// Layers that the table has rows for, `L`.
    pub num_layers: usize,
    /// The first of those that are asked for.
    pub first_layer: usize,
    /// How many are asked for.
    pub layers: usize,
    /// Numbers of an input, `P`.
    pub width: usize,
    /// What a row of the table is multiplied with.
    pub factor: f32,
    /// What the projection is multiplied with.
    pub projection_scale: f32,
    /// Over the projection, per layer.
    pub norm: Norm<'a>,
    /// `[T, layers, width]`; may be `context`.
    pub out: Buffer<'a>,
}

/// `out = r(r(r(norm(r(context · projection_scale))) + r(r(row) · factor)) · 2^-½)`, where `r` rounds to the dtype of `context` and
/// `row` is number `ids[t] · num_layers + layer` of the table; NaN for an id that the table has not.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn per_layer_inputs(queue: &dyn Queue, inputs: &PerLayer<'_>) -> Result<()> {
    let PerLayer { context, ids, table, num_layers, first_layer, layers, width, norm, out, .. } = *inputs;
    let (element, stored) = (activations("context", context)?, one_of("table", table, &TABLES)?);
    if layers == 0 || layers > num_layers || first_layer > num_layers - layers {
        return Err(Error::arguments(format_args!(
            "{layers} layers from {first_layer} on of {num_layers}, expected some of them"
        )));
    }
    let table_rows = num_rows("table", table, width)?;
    let rows = Rows::of("context", context, width)?;
    expect("ids", ids, Element::U32, ids.len())?;
    expect("context", context, element, ids.len() * layers * width)?;
    expect("out", out, element, context.len())?;
    norm.expect("norm.weight", width)?;
    let arguments = vec![
        context.into(),
        ids.into(),
        table.into(),
        table_rows.into(),
        inputs.factor.into(),
        norm.weight.into(),
        norm.eps.into(),
        inputs.projection_scale.into(),
        count("num_layers", num_layers)?.into(),
        count("first_layer", first_layer)?.into(),
        count("layers", layers)?.into(),
        out.into(),
        rows.count.into(),
        rows.width.into(),
        aligned(SPAN, width, &[context, table, out, norm.weight.unwrap_or(context)]).into(),
    ];
    rows.launch(queue, &MODULE, lookup("per_layer_inputs", element, stored), arguments)
}

fn lookup(kernel: &str, element: Element, table: Element) -> String {
    format!("{kernel}_{}_{}", element.suffix(), table.suffix())
}

/// `out[r] = x[rows[r]]`; all bits set, which is NaN, for a row that `x` has not.
///
/// `x`: `[T, width]` of anything but bytes; `rows`: `[R]` u32; `out`: `[R, width]`.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn select_rows(
    queue: &dyn Queue,
    x: Buffer<'_>,
    rows: Buffer<'_>,
    width: usize,
    out: Buffer<'_>,
) -> Result<()> {
    expect("out", out, x.element(), rows.len() * width)?;
    let list = Some(rows);
    move_rows(queue, &Move { source: x, from: list, target: out, to: None, count: rows.len(), width })
}

/// Rows, and where they go.
#[derive(Clone, Copy, Debug)]
pub struct Scatter<'a> {
    /// `[S, width]` of anything but bytes.
    pub source: Buffer<'a>,
    /// `[S]` u32, distinct. A row that the target has not is nobody's: nothing is written.
    pub rows: Buffer<'a>,
    /// Numbers of a row.
    pub width: usize,
    /// `[T, width]`.
    pub target: Buffer<'a>,
}

/// `target[rows[i]] = source[i]`, in place.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn scatter_rows(queue: &dyn Queue, scatter: &Scatter<'_>) -> Result<()> {
    let Scatter { source, rows, width, target } = *scatter;
    expect("source", source, target.element(), rows.len() * width)?;
    move_rows(queue, &Move { source, from: None, target, to: Some(rows), count: rows.len(), width })
}

/// `pool[slots[t]] = source[t]`, in place; a slot that the pool has not is nobody's.
///
/// `pool`: `[slots, K, D]`, `source`: `[T, K, D]` of anything but bytes; `slots`: `[T]` u32, distinct; `slot_len`: `K · D`.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn write_slots(
    queue: &dyn Queue,
    pool: Buffer<'_>,
    slots: Buffer<'_>,
    slot_len: usize,
    source: Buffer<'_>,
) -> Result<()> {
    scatter_rows(queue, &Scatter { source, rows: slots, width: slot_len, target: pool })
}

/// Copies blocks of `block_len` elements inside `pool`: for each of `pairs`, the first to the second.
///
/// `pairs`: `[n, 2]` u32; no block is copied to twice, or copied to and from. A pair whose second the pool has not is nobody's;
/// one whose first it has not sets all bits.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn copy_blocks(queue: &dyn Queue, pool: Buffer<'_>, pairs: Buffer<'_>, block_len: usize) -> Result<()> {
    let (from, to, count) = by_pairs(pairs)?;
    move_rows(queue, &Move { source: pool, from, target: pool, to, count, width: block_len })
}

/// `target[to] = source[from]` for each of `pairs`, `[n, 2]` u32: from and to. `source`, `target`: u32. A pair whose `to` the target
/// has not is nobody's; one whose `from` the source has not writes `u32::MAX`.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn copy_ids(queue: &dyn Queue, source: Buffer<'_>, pairs: Buffer<'_>, target: Buffer<'_>) -> Result<()> {
    let (from, to, count) = by_pairs(pairs)?;
    move_rows(queue, &Move { source, from, target, to, count, width: 1 })
}

/// Both lists of `[n, 2]` pairs, and `n`.
fn by_pairs<'a>(pairs: Buffer<'a>) -> Result<(Option<Buffer<'a>>, Option<Buffer<'a>>, usize)> {
    if !pairs.len().is_multiple_of(2) {
        return Err(Error::arguments(format_args!("pairs has {} elements, expected two each", pairs.len())));
    }
    let count = pairs.len() / 2;
    let to = if count == 0 { pairs } else { pairs.slice(1, pairs.len() - 1)? };
    Ok((Some(pairs), Some(to), count))
}

/// Rows of one buffer that go to rows of another: by lists of u32, or in order.
struct Move<'a> {
    source: Buffer<'a>,
    from: Option<Buffer<'a>>,
    target: Buffer<'a>,
    to: Option<Buffer<'a>>,
    count: usize,
    width: usize,
}

fn move_rows(queue: &dyn Queue, rows: &Move<'_>) -> Result<()> {
    let Move { source, from, target, to, width, .. } = *rows;
    let element = one_of("source", source, &[Element::F32, Element::Bf16, Element::F16, Element::U32])?;
    expect("source", source, element, source.len())?;
    expect("target", target, element, target.len())?;
    for list in [from, to].into_iter().flatten() {
        expect("rows", list, Element::U32, list.len())?;
    }
    let (source_rows, target_rows) = (num_rows("source", source, width)?, num_rows("target", target, width)?);
    // Both lists at once are pairs.
    let stride: u32 = if from.is_some() && to.is_some() { 2 } else { 1 };
    let bytes = width * element.size();
    let fits = |unit: u64| [source.address(), target.address(), bytes as u64].iter().all(|at| at % unit == 0);
    let unit = if fits(16) { 16 } else { element.size() };
    let units = bytes / unit;
    let rows = Rows::looping(count("rows", rows.count)?, count("width", units)?, units);
    let arguments = vec![
        source.into(),
        from.into(),
        source_rows.into(),
        target.into(),
        to.into(),
        target_rows.into(),
        stride.into(),
        rows.count.into(),
        rows.width.into(),
    ];
    rows.launch(queue, &MODULE, format!("move_rows_{unit}"), arguments)
}

fn num_rows(name: &str, x: Buffer<'_>, width: usize) -> Result<u32> {
    if width == 0 || !x.len().is_multiple_of(width) {
        return Err(Error::arguments(format_args!("{name} has {} elements in rows of {width}", x.len())));
    }
    expect(name, x, x.element(), x.len())?;
    count(name, x.len() / width)
}

/// `out = ids`, with `pad` in the place of the `placeholders`, of which there are at most four.
///
/// `ids`, `out`: `[T]` u32; they may be the same.
///
/// # Errors
/// `Arguments` if they do not fit; what the queue says.
pub fn mask_ids(
    queue: &dyn Queue,
    ids: Buffer<'_>,
    placeholders: &[u32],
    pad: u32,
    out: Buffer<'_>,
) -> Result<()> {
    if placeholders.len() > 4 {
        return Err(Error::arguments(format_args!(
            "{} placeholders, expected at most 4",
            placeholders.len()
        )));
    }
    expect("ids", ids, Element::U32, ids.len())?;
    expect("out", out, Element::U32, ids.len())?;
    let len = count("ids", ids.len())?;
    let mut arguments: Vec<Argument> = vec![ids.into(), out.into(), len.into(), pad.into()];
    arguments.extend((0..4).map(|i| Argument::from(placeholders.get(i).copied().unwrap_or(pad))));
    launch_flat(queue, &MODULE, "mask_ids".to_owned(), len, arguments)
}
