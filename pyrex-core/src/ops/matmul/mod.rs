//! `x · Wᵀ`: [`few`] rows are bound by reading the weights, [`many`] by arithmetic.

mod few;
mod many;

use super::activation::gelu_mul;
use super::host::{float_view, tensor_of};
use super::matrix::HostElements;
use super::simd::Level;
use super::simd::weight::Weight;
use super::{Matrix, has_kernel};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};

/// Up to how many rows [`few`] is the faster, measured from 1 to 512.
const FEW_ROWS: usize = 64;

/// Bounds of a clipped linear: what its input and its output are clamped to.
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
}

/// `x · Wᵀ` in f32, rounded once to the dtype of `x`. `x`: `[T, C]`, `weight`: `[N, C]`, returns `[T, N]`.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn matmul(x: &Tensor, weight: &Matrix) -> Result<Tensor> {
    matmul_at(Level::Widest, x, weight, &Clip::NONE)
}

/// `clamp(clamp(x, input) · Wᵀ, output)`.
///
/// # Errors
/// As [`matmul`].
pub fn clipped_matmul(x: &Tensor, weight: &Matrix, clip: &Clip) -> Result<Tensor> {
    matmul_at(Level::Widest, x, weight, clip)
}

/// `gelu_tanh(x · Gᵀ) · (x · Uᵀ)`, each product, the GELU and what comes of them rounded to the dtype of `x`; each product
/// between the bounds of its own linear. `x`: `[T, C]`, `gate` and `up`: `[I, C]`, returns `[T, I]`.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn gated_matmul(x: &Tensor, gate: (&Matrix, &Clip), up: (&Matrix, &Clip)) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::products::gated_matmul(&lane, x, gate, up);
    }
    gated_matmul_reference(x, gate, up)
}

/// The definition of [`gated_matmul`]: one op after another.
///
/// # Errors
/// As [`gated_matmul`].
pub fn gated_matmul_reference(x: &Tensor, gate: (&Matrix, &Clip), up: (&Matrix, &Clip)) -> Result<Tensor> {
    gelu_mul(&clipped_matmul(x, gate.0, gate.1)?, &clipped_matmul(x, up.0, up.1)?)
}

/// `gelu_tanh(x · Wᵀ) · up`, the product, the GELU and what comes of them rounded to the dtype of `x`. `x`: `[T, C]`, `weight`:
/// `[N, C]`, `up`: `[T, N]`, which may be a column block of a wider tensor.
///
/// # Errors
/// `Internal` if the widths differ.
pub fn matmul_gelu_mul(x: &Tensor, weight: &Matrix, up: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::products::matmul_gelu_mul(&lane, x, weight, up);
    }
    gelu_mul(&matmul(x, weight)?, up)
}

/// `x · Wᵀ` with each of two weights, `[N, C]` and `[M, C]`.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_pair(x: &Tensor, first: &Matrix, second: &Matrix) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::products::matmul_pair(&lane, x, first, second);
    }
    Ok((matmul(x, first)?, matmul(x, second)?))
}

/// [`clipped_matmul`] with the instructions of `level`.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_at(level: Level, x: &Tensor, weight: &Matrix, clip: &Clip) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    if cols != weight.cols() {
        return Err(Error::internal(format_args!("matmul of [{rows}, {cols}] with {weight:?}")));
    }
    let shape = (rows, weight.rows());
    if rows == 0 || cols == 0 || weight.rows() == 0 {
        return Ok((Tensor::zeros(shape, x.dtype(), x.device())?.clamp(clip.output.0, clip.output.1))?);
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::products::matmul(&lane, x, weight, clip);
    }
    let Some(elements) = weight.host().filter(|_| has_kernel(x)) else {
        return reference(x, weight, clip);
    };
    let x_contiguous = x.contiguous()?;
    let x = float_view(level, &x_contiguous)?;
    let x = x.as_slice()?;
    let mut out = vec![0.0; rows * weight.rows()];
    match elements {
        HostElements::F32(weights) => run(level, x, weights, cols, clip, &mut out),
        HostElements::Bf16(weights) => run(level, x, weights, cols, clip, &mut out),
        HostElements::F16(weights) => run(level, x, weights, cols, clip, &mut out),
    }
    tensor_of(level, out, shape, x_contiguous.dtype())
}

fn run<W: Weight>(level: Level, x: &[f32], weights: &[W], cols: usize, clip: &Clip, out: &mut [f32]) {
    if x.len() / cols <= FEW_ROWS {
        few::matmul(level, x, weights, cols, clip, out);
    } else {
        many::matmul(level, x, weights, cols, clip, out);
    }
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`matmul`].
pub fn reference(x: &Tensor, weight: &Matrix, clip: &Clip) -> Result<Tensor> {
    let x_clamped = x.to_dtype(DType::F32)?.clamp(clip.input.0, clip.input.1)?;
    let weight = weight.to_tensor(x.device())?.to_dtype(DType::F32)?;
    let y = x_clamped.matmul(&weight.t()?)?.clamp(clip.output.0, clip.output.1)?;
    Ok(y.to_dtype(x.dtype())?)
}
