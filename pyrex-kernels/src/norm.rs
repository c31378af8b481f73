//! Root mean square norms: alone, and with the residual stream that they add to.

use crate::buffer::{Buffer, Element};
use crate::error::Result;
use crate::launch::{Module, Queue};
use crate::rows::{Rows, SPAN, activations, aligned, expect};

const MODULE: Module = Module { name: "norm", ptx: include_str!("norm.ptx") };

/// What a norm multiplies with, and what it adds to the mean.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[C]` f32, as stored; none is all ones.
    pub weight: Option<Buffer<'a>>,
    /// Added to the mean of the squares.
    pub eps: f32,
}

impl Norm<'_> {
    pub(crate) fn expect(&self, name: &str, width: usize) -> Result<()> {
        self.weight.map_or(Ok(()), |weight| expect(name, weight, Element::F32, width))
    }
}

/// `out = r(x · (mean(x²) + eps)^-½ · weight)` over rows of `width`, in f32, rounded once to the dtype of `x`.
///
/// `x`, `out`: `[T, width]` f32 or bf16; they may be the same.
///
/// # Errors
/// `Arguments` if they do not fit, or `width` is 0 or above 8192; what the queue says.
pub fn rms_norm(
    queue: &dyn Queue,
    x: Buffer<'_>,
    norm: &Norm<'_>,
    width: usize,
    out: Buffer<'_>,
) -> Result<()> {
    let element = activations("x", x)?;
    let rows = Rows::of("x", x, width)?;
    expect("x", x, element, x.len())?;
    expect("out", out, element, x.len())?;
    norm.expect("norm.weight", width)?;
    let aligned = aligned(SPAN, width, &[x, out, norm.weight.unwrap_or(x)]);
    let arguments = vec![
        x.into(),
        norm.weight.into(),
        norm.eps.into(),
        out.into(),
        rows.count.into(),
        rows.width.into(),
        aligned.into(),
    ];
    rows.launch(queue, &MODULE, format!("rms_norm_{}", element.suffix()), arguments)
}

/// One step of the residual stream, and the norm of what reads it next.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm<'a> {
    /// `[T, width]` f32 or bf16: what is normed and added.
    pub x: Buffer<'a>,
    /// `[T, width]`: the stream so far.
    pub residual: Buffer<'a>,
    /// Of `x`.
    pub norm: Norm<'a>,
    /// What the sum is multiplied with.
    pub scale: f32,
    /// Numbers of a row.
    pub width: usize,
    /// `[T, width]`: the stream from here on; may be `residual`.
    pub sum: Buffer<'a>,
    /// The norm of `sum`, and where its result goes, `[T, width]`.
    pub next: Option<(Norm<'a>, Buffer<'a>)>,
}

/// `sum = r(r(residual + r(norm(x))) · scale)`, then `next = r(norm(sum))`, where `r` rounds to the dtype of `x`.
///
/// # Errors
/// As [`rms_norm`].
pub fn add_norm(queue: &dyn Queue, step: &AddNorm<'_>) -> Result<()> {
    let AddNorm { x, residual, norm, scale, width, sum, next } = *step;
    let element = activations("x", x)?;
    let rows = Rows::of("x", x, width)?;
    let (next_norm, next_out) = next.unzip();
    let tensors = [("x", x), ("residual", residual), ("sum", sum), ("next", next_out.unwrap_or(sum))];
    for (name, tensor) in tensors {
        expect(name, tensor, element, x.len())?;
    }
    let next_norm = next_norm.unwrap_or(Norm { weight: None, eps: 0.0 });
    norm.expect("norm.weight", width)?;
    next_norm.expect("next.weight", width)?;
    let weights = [norm.weight.unwrap_or(x), next_norm.weight.unwrap_or(x)];
    let aligned = aligned(SPAN, width, &[&tensors.map(|(_, tensor)| tensor)[..], &weights].concat());
    let arguments = vec![
        x.into(),
        residual.into(),
        norm.weight.into(),
        norm.eps.into(),
        scale.into(),
        sum.into(),
        next_norm.weight.into(),
        next_norm.eps.into(),
        next_out.into(),
        rows.count.into(),
        rows.width.into(),
        aligned.into(),
    ];
    rows.launch(queue, &MODULE, format!("add_norm_{}", element.suffix()), arguments)
}
