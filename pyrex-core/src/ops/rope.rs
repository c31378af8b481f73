//! Rotary position embedding: standard, proportional and 2-D are one rotation with different tables.

use super::has_kernel;
use super::host::{TASK_LEN, host_view};
use super::simd::Level;
use super::simd::float::Float;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Cosines and sines of every angle, `[T, D / 2]` each, in the dtype of the activations.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
    /// How many equal segments of a head are rotated separately: 1 for text, 2 for patches.
    pub axes: usize,
}

impl RopeTable {
    /// Angles `positions[t, a] · inv_freq[i]`, computed in f32 and cast to `dtype`.
    ///
    /// `positions`: `[T]` or `[T, axes]` u32; `inv_freq`: `[D / 2 / axes]` f32. A frequency of 0 leaves its pair as it is.
    ///
    /// # Errors
    /// `Internal` if the device fails.
    pub fn new(positions: &Tensor, inv_freq: &Tensor, dtype: DType) -> Result<Self> {
        let tokens = positions.dim(0)?;
        let axes = if positions.rank() == 2 { positions.dim(1)? } else { 1 };
        #[cfg(feature = "cuda")]
        if let Some(lane) = super::cuda::lane(positions) {
            return super::cuda::rows::rope_table(&lane, positions, inv_freq, axes, dtype);
        }
        let pairs = inv_freq.dim(0)?;
        let positions = positions.to_dtype(DType::F32)?.reshape((tokens, axes, 1))?;
        let angles =
            positions.broadcast_mul(&inv_freq.reshape((1, 1, pairs))?)?.reshape((tokens, axes * pairs))?;
        Ok(Self { cos: angles.cos()?.to_dtype(dtype)?, sin: angles.sin()?.to_dtype(dtype)?, axes })
    }
}

/// Rotates each head. `x`: `[T, H, D]`; inside each of `axes` segments element `j` pairs with the one half a segment on.
/// In the dtype of `x` with its three roundings: both products and their sum.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    rope_at(Level::Widest, x, table)
}

/// [`rope`] with the instructions of `level`.
///
/// # Errors
/// As [`rope`].
pub fn rope_at(level: Level, x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (tokens, _, width) = x.dims3()?;
    let fits = |t: &Tensor| t.dims() == [tokens, width / 2] && t.dtype() == x.dtype();
    if !fits(&table.cos) || !fits(&table.sin) || table.axes == 0 || width % (2 * table.axes) != 0 {
        return Err(Error::internal(format_args!(
            "rope of {:?} {:?} with angles {:?} {:?} in {} segments",
            x.shape(),
            x.dtype(),
            table.cos.shape(),
            table.cos.dtype(),
            table.axes
        )));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::rope(&lane, x, table);
    }
    match x.dtype() {
        _ if x.elem_count() == 0 => Ok(x.clone()),
        _ if !has_kernel(x) => reference(x, table),
        DType::F32 => run::<f32>(level, x, table),
        _ => run::<bf16>(level, x, table),
    }
}

fn run<T: Float>(level: Level, x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    let (x, cos, sin) = (x.contiguous()?, table.cos.contiguous()?, table.sin.contiguous()?);
    let (x_view, cos_view, sin_view) = (host_view(&x)?, host_view(&cos)?, host_view(&sin)?);
    let (source, cos, sin) = (x_view.slice::<T>()?, cos_view.slice::<T>()?, sin_view.slice::<T>()?);
    let mut target = source.to_vec();
    let tokens_per_task = TASK_LEN.div_ceil(heads * width);
    let half = width / 2;
    let tables = cos.par_chunks(tokens_per_task * half).zip(sin.par_chunks(tokens_per_task * half));
    target.par_chunks_mut(tokens_per_task * heads * width).zip(tables).for_each(|(target, (cos, sin))| {
        level.run(Rotate { x: target, cos, sin, heads, axes: table.axes, half });
    });
    Ok(Tensor::from_vec(target, x.shape(), &Device::Cpu)?)
}

struct Rotate<'a, T> {
    x: &'a mut [T],
    cos: &'a [T],
    sin: &'a [T],
    heads: usize,
    axes: usize,
    half: usize,
}

impl<T: Float> WithSimd for Rotate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, cos, sin, heads, axes, half } = self;
        let part = half / axes;
        let tables = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (token, (cos, sin)) in x.chunks_exact_mut(heads * 2 * half).zip(tables) {
            for (segment, x) in token.chunks_exact_mut(2 * part).enumerate() {
                let angles = segment % axes * part;
                let (first, second) = x.split_at_mut(part);
                let tables = cos[angles..angles + part].iter().zip(&sin[angles..angles + part]);
                for ((a, b), (&cos, &sin)) in first.iter_mut().zip(second).zip(tables) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

/// The definition, in tensor operations.
///
/// # Errors
/// As [`rope`].
pub fn reference(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (tokens, heads, width) = x.dims3()?;
    let half = width / 2 / table.axes;
    let x = x.reshape((tokens, heads, table.axes, 2, half))?;
    let (a, b) = (x.narrow(3, 0, 1)?, x.narrow(3, 1, 1)?);
    let cos = table.cos.reshape((tokens, 1, table.axes, 1, half))?;
    let sin = table.sin.reshape((tokens, 1, table.axes, 1, half))?;
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Ok(Tensor::cat(&[first, second], 3)?.reshape((tokens, heads, width))?)
}
