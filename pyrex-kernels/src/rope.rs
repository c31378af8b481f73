//! Rotary embedding: the angles' table, and heads that are normed, rotated and written to the cache in one pass.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Module, Queue, count};
use crate::norm::Norm;
use crate::rows::{Rows, SPAN, activations, aligned, expect, launch_flat};

const MODULE: Module = Module { name: "rope", ptx: include_str!("rope.ptx") };
/// The widest head: a warp has no more of it in registers.
const MAX_HEAD_DIM: usize = 512;

/// Cosines and sines of the angles `positions[t, a] · inv_freq[i]`, the product in f32, of any size, rounded to the dtype of `cos`.
///
/// `positions`: `[T]` or `[T, axes]` u32; `inv_freq`: `[pairs]` f32; `cos`, `sin`: `[T, axes · pairs]` f32 or bf16.
///
/// # Errors
/// `Arguments` if they do not fit; what the queue says.
pub fn rope_table(
    queue: &dyn Queue,
    positions: Buffer<'_>,
    inv_freq: Buffer<'_>,
    axes: usize,
    cos: Buffer<'_>,
    sin: Buffer<'_>,
) -> Result<()> {
    let element = activations("cos", cos)?;
    if axes == 0 || !positions.len().is_multiple_of(axes) {
        return Err(Error::arguments(format_args!("{} positions on {axes} axes", positions.len())));
    }
    expect("positions", positions, Element::U32, positions.len())?;
    expect("inv_freq", inv_freq, Element::F32, inv_freq.len())?;
    let len = positions.len() * inv_freq.len();
    expect("cos", cos, element, len)?;
    expect("sin", sin, element, len)?;
    let (pairs, len) = (count("inv_freq", inv_freq.len())?, count("cos", len)?);
    let arguments = vec![positions.into(), inv_freq.into(), cos.into(), sin.into(), pairs.into(), len.into()];
    launch_flat(queue, &MODULE, format!("rope_table_{}", element.suffix()), len, arguments)
}

/// The angles of every token, as [`rope_table`] wrote them.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// `[T, D / 2]` cosines, in the dtype of the heads.
    pub cos: Buffer<'a>,
    /// `[T, D / 2]` sines.
    pub sin: Buffer<'a>,
    /// Into how many segments of equal width a head is cut: in each, number `j` turns with the one half a segment on.
    pub axes: usize,
}

/// Heads that are normed, then rotated.
#[derive(Clone, Copy, Debug)]
pub struct NormRope<'a> {
    /// `[T, H, D]` f32 or bf16.
    pub x: Buffer<'a>,
    /// Over each head.
    pub norm: Option<Norm<'a>>,
    /// What it is rotated by afterwards.
    pub rope: Option<Rope<'a>>,
    /// Heads of a token, `H`.
    pub heads: usize,
    /// Width of a head, `D`: even, at most 512.
    pub head_dim: usize,
    /// `[T, H, D]`; may be `x`.
    pub out: Buffer<'a>,
}

/// `out = rope(r(norm(x)))`, where the rotation rounds both products and their sum to the dtype of `x`.
///
/// # Errors
/// `Arguments` if the buffers do not fit, or the head; what the queue says.
pub fn norm_rope(queue: &dyn Queue, step: &NormRope<'_>) -> Result<()> {
    let NormRope { x, norm, rope, heads, head_dim, out } = *step;
    let element = activations("x", x)?;
    expect("x", x, element, x.len())?;
    expect("out", out, element, x.len())?;
    let unweighted = Norm { weight: None, eps: 0.0 };
    let weights = norm.unwrap_or(unweighted);
    let shape = HeadShape { heads, head_dim, axes: rope.map_or(1, |rope| rope.axes) };
    let rows = shape.rows("x", x)?;
    weights.expect("norm.weight", head_dim)?;
    if let Some(rope) = rope {
        rope.expect(element, x.len() / heads / 2)?;
    }
    let (cos, sin) = (rope.map(|rope| rope.cos), rope.map(|rope| rope.sin));
    let buffers = [x, out, weights.weight.unwrap_or(x), cos.unwrap_or(x), sin.unwrap_or(x)];
    let mut arguments: Vec<Argument> = vec![
        x.into(),
        u32::from(norm.is_some()).into(),
        weights.weight.into(),
        weights.eps.into(),
        cos.into(),
        sin.into(),
        out.into(),
    ];
    arguments.extend(shape.arguments(&rows, &buffers));
    rows.launch(queue, &MODULE, format!("norm_rope_{}", element.suffix()), arguments)
}

/// Keys and values on their way to the cache.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue<'a> {
    /// `[T, K, D]` f32 or bf16.
    pub k: Buffer<'a>,
    /// `[T, K, D]`.
    pub v: Buffer<'a>,
    /// Over each head of `k`.
    pub k_norm: Norm<'a>,
    /// Over each head of `v`.
    pub v_norm: Norm<'a>,
    /// What keys are rotated by.
    pub rope: Rope<'a>,
    /// `[T]` u32, distinct: where each token goes. A slot that the pool has not is nobody's: the token is not written.
    pub slots: Buffer<'a>,
    /// `[slots, K, D]`.
    pub keys: Buffer<'a>,
    /// `[slots, K, D]`.
    pub values: Buffer<'a>,
    /// Heads of a token, `K`.
    pub heads: usize,
    /// Width of a head, `D`: even, at most 512.
    pub head_dim: usize,
}

/// `keys[slots[t]] = rope(r(norm(k[t])))` and `values[slots[t]] = r(norm(v[t]))`, rounded as in [`norm_rope`].
///
/// # Errors
/// As [`norm_rope`].
pub fn norm_rope_write(queue: &dyn Queue, step: &KeyValue<'_>) -> Result<()> {
    let KeyValue { k, v, k_norm, v_norm, rope, slots, keys, values, heads, head_dim } = *step;
    let element = activations("k", k)?;
    let shape = HeadShape { heads, head_dim, axes: rope.axes };
    let rows = shape.rows("k", k)?;
    let num_slots = shape.rows("keys", keys)?.count / heads as u32;
    for (name, buffer, len) in
        [("k", k, k.len()), ("v", v, k.len()), ("keys", keys, keys.len()), ("values", values, keys.len())]
    {
        expect(name, buffer, element, len)?;
    }
    k_norm.expect("k_norm.weight", head_dim)?;
    v_norm.expect("v_norm.weight", head_dim)?;
    rope.expect(element, k.len() / heads / 2)?;
    expect("slots", slots, Element::U32, rows.count as usize / heads)?;
    let weights = [k_norm.weight.unwrap_or(k), v_norm.weight.unwrap_or(v)];
    let buffers = [k, v, keys, values, rope.cos, rope.sin, weights[0], weights[1]];
    let mut arguments: Vec<Argument> = vec![
        k.into(),
        v.into(),
        k_norm.weight.into(),
        v_norm.weight.into(),
        k_norm.eps.into(),
        v_norm.eps.into(),
        rope.cos.into(),
        rope.sin.into(),
        slots.into(),
        keys.into(),
        values.into(),
        num_slots.into(),
    ];
    arguments.extend(shape.arguments(&rows, &buffers));
    rows.in_planes(2).launch(queue, &MODULE, format!("norm_rope_write_{}", element.suffix()), arguments)
}

impl Rope<'_> {
    fn expect(&self, element: Element, len: usize) -> Result<()> {
        expect("rope.cos", self.cos, element, len)?;
        expect("rope.sin", self.sin, element, len)
    }
}

struct HeadShape {
    heads: usize,
    head_dim: usize,
    axes: usize,
}

impl HeadShape {
    /// The heads in `x`, each of them a row.
    fn rows(&self, name: &str, x: Buffer<'_>) -> Result<Rows> {
        let Self { heads, head_dim, axes } = *self;
        if axes == 0 || heads == 0 || head_dim == 0 || !head_dim.is_multiple_of(2 * axes) {
            return Err(Error::arguments(format_args!("{heads} heads of {head_dim} in {axes} segments")));
        }
        let spans = axes * (head_dim / 2 / axes).div_ceil(SPAN);
        if spans * 2 * SPAN > MAX_HEAD_DIM {
            return Err(Error::arguments(format_args!(
                "heads of {head_dim} in {axes} segments, expected at most {MAX_HEAD_DIM}"
            )));
        }
        if !x.len().is_multiple_of(heads * head_dim) {
            return Err(Error::arguments(format_args!(
                "{name} has {} elements in {heads} heads of {head_dim}",
                x.len()
            )));
        }
        Rows::in_spans(count(name, x.len() / head_dim)?, head_dim, spans)
    }

    /// What the kernels are told of the shape.
    fn arguments(&self, rows: &Rows, buffers: &[Buffer<'_>]) -> [Argument; 5] {
        let step = self.head_dim / 2 / self.axes;
        [
            rows.count.into(),
            (self.heads as u32).into(),
            rows.width.into(),
            (self.axes as u32).into(),
            aligned(SPAN, step, buffers).into(),
        ]
    }
}
