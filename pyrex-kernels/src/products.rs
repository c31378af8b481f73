//! Products `x · Wᵀ`. Up to [`MAX_FEW_ROWS`] rows are bound by reading the weights; more, by arithmetic.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::Argument;

pub use crate::few_rows::{
    MAX_FEW_ROWS, few_rows, few_rows_gated, few_rows_gelu_mul, few_rows_several, few_rows_soft_capped,
};
pub use crate::many_rows::many_rows;
pub use crate::split_f32::split_f32;

/// Bounds of a clipped linear, infinite where there are none. NaN passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Lowest and highest input.
    pub input: (f32, f32),
    /// Lowest and highest output.
    pub output: (f32, f32),
}

impl Clip {
    /// No bounds.
    pub const NONE: Self =
        Self { input: (f32::NEG_INFINITY, f32::INFINITY), output: (f32::NEG_INFINITY, f32::INFINITY) };

    pub(crate) fn arguments(&self) -> [Argument; 4] {
        [self.input.0, self.input.1, self.output.0, self.output.1].map(Argument::F32)
    }
}

/// `out = clamp(clamp(x) · Wᵀ)`, summed in f32 and rounded once to the dtype of `x`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[T, C]`, f32 or bf16.
    pub x: Buffer<'a>,
    /// `[N, C]`, f32, bf16 or f16.
    pub weight: Buffer<'a>,
    /// `[T, N]`, of the dtype of `x`.
    pub out: Buffer<'a>,
    /// `T`.
    pub rows: usize,
    /// `C`.
    pub cols: usize,
    /// `N`.
    pub out_cols: usize,
    /// What is clamped, if anything.
    pub clip: Option<Clip>,
}

/// A gated MLP's first half: `out = gelu_tanh(x · Gᵀ) · (x · Uᵀ)`, rounded to the dtype of `x` after each of its four steps.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// `[T, C]`, f32 or bf16.
    pub x: Buffer<'a>,
    /// `G`: `[I, C]`, f32, bf16 or f16.
    pub gate: Buffer<'a>,
    /// `U`: `[I, C]`, of the dtype of `gate`.
    pub up: Buffer<'a>,
    /// `[T, I]`, of the dtype of `x`.
    pub out: Buffer<'a>,
    /// `T`.
    pub rows: usize,
    /// `C`.
    pub cols: usize,
    /// `I`.
    pub out_cols: usize,
    /// What the products with `gate` and with `up` clamp, if anything.
    pub clips: Option<(Clip, Clip)>,
}

/// Holds a product's buffers to its sizes, and its dtypes to those there are kernels for.
pub(crate) fn check(product: &Product<'_>) -> Result<()> {
    let Product { x, weight, out, rows, cols, out_cols, .. } = *product;
    if !matches!(x.element(), Element::F32 | Element::Bf16) {
        return Err(Error::arguments(format_args!("x has {:?}, expected F32 or Bf16", x.element())));
    }
    if !matches!(weight.element(), Element::F32 | Element::Bf16 | Element::F16) {
        return Err(Error::arguments(format_args!(
            "weight has {:?}, expected F32, Bf16 or F16",
            weight.element()
        )));
    }
    let expect = |name: &str, buffer: Buffer<'_>, element: Element, (rows, cols): (usize, usize)| {
        let len = rows.checked_mul(cols).ok_or_else(|| {
            Error::arguments(format_args!("{name} of [{rows}, {cols}] has more elements than can be counted"))
        })?;
        buffer.expect(name, element, len, element.size() as u64)
    };
    expect("x", x, x.element(), (rows, cols))?;
    expect("weight", weight, weight.element(), (out_cols, cols))?;
    expect("out", out, x.element(), (rows, out_cols))
}

/// Whether rows of `cols` elements in each of `buffers` begin at multiples of 16 bytes and have a multiple of 8 columns.
pub(crate) fn aligned(cols: usize, buffers: &[Buffer<'_>]) -> bool {
    cols.is_multiple_of(8) && buffers.iter().all(|buffer| buffer.address().is_multiple_of(16))
}

/// Whether a bf16 that is clamped to `bound` is still one.
pub(crate) fn is_bf16(bound: f32) -> bool {
    bound.to_bits().trailing_zeros() >= 16
}
