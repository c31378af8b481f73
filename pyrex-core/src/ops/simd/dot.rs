//! Dot products of a few rows of activations with many rows of weights, widened in registers.
//!
//! The work is bound by reading the weights once; a step covers two vectors of elements. 16-bit weights are read as
//! pairs in 32-bit words: shifts and masks split a word vector into its even and its odd elements, and the
//! activations lie in the same order beforehand.

use super::float::Float;
use super::{AlignedBuffer, Level};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

/// Most rows of activations the kernel takes at once.
pub const MAX_ROWS: usize = 8;

/// Bytes of the widest step: two vectors of 16 floats.
const MAX_STEP_BYTES: usize = 128;

/// An element type of weights.
pub trait Weight: Float + bytemuck::Pod {
    /// Whether a vector load splits into even and odd elements.
    const PAIRS: bool;

    /// The two vectors of one step. `bytes`: exactly two vectors of elements.
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2];
}

impl Weight for f32 {
    const PAIRS: bool = false;

    #[inline(always)]
    fn load<S: Simd>(_: S, bytes: &[u8]) -> [S::f32s; 2] {
        let (first, second) = bytes.split_at(size_of::<S::f32s>());
        [bytemuck::pod_read_unaligned(first), bytemuck::pod_read_unaligned(second)]
    }
}

impl Weight for bf16 {
    const PAIRS: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2] {
        let words: S::u32s = bytemuck::pod_read_unaligned(bytes);
        let even = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16));
        let odd = simd.and_u32s(words, simd.splat_u32s(0xffff_0000));
        [simd.transmute_f32s_u32s(even), simd.transmute_f32s_u32s(odd)]
    }
}

impl Weight for f16 {
    const PAIRS: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2] {
        let words: S::u32s = bytemuck::pod_read_unaligned(bytes);
        let odd = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(16));
        [widen_f16(simd, words), widen_f16(simd, odd)]
    }
}

/// The lower halves of `words`, as f16. The exponent is rebased by a product with `2^112`, which is exact.
#[inline(always)]
fn widen_f16<S: Simd>(simd: S, words: S::u32s) -> S::f32s {
    let magnitude = simd.and_u32s(words, simd.splat_u32s(0x7fff));
    let magnitude = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(magnitude, simd.splat_u32s(13)));
    let finite = simd.mul_f32s(magnitude, simd.splat_f32s(f32::from_bits(0x7780_0000)));
    let infinite = simd.or_u32s(simd.transmute_u32s_f32s(magnitude), simd.splat_u32s(0x7f80_0000));
    let is_finite = simd.less_than_f32s(magnitude, simd.splat_f32s(f32::from_bits(0x0f80_0000)));
    let value = simd.select_f32s(is_finite, finite, simd.transmute_f32s_u32s(infinite));
    let sign = simd.wrapping_dyn_shl_u32s(simd.and_u32s(words, simd.splat_u32s(0x8000)), simd.splat_u32s(16));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(value), sign))
}

/// Rows of activations in the order the kernel reads them, padded with zeros to whole steps.
#[derive(Debug)]
pub struct DotRows {
    buffer: AlignedBuffer,
    rows: usize,
    row_len: usize,
}

impl DotRows {
    /// Prepares `x`, rows of `cols`, for weights of type `W`.
    pub fn new<W: Weight>(level: Level, x: &[f32], cols: usize) -> Self {
        let lanes = level.lanes();
        let (rows, row_len) = (x.len() / cols.max(1), cols.next_multiple_of(2 * lanes));
        let mut buffer = AlignedBuffer::zeros(rows * row_len);
        for (source, target) in
            x.chunks_exact(cols.max(1)).zip(buffer.as_mut_slice().chunks_exact_mut(row_len))
        {
            if !W::PAIRS {
                target[..cols].copy_from_slice(source);
                continue;
            }
            for (source, target) in source.chunks(2 * lanes).zip(target.chunks_exact_mut(2 * lanes)) {
                for (i, &value) in source.iter().enumerate() {
                    target[i / 2 + (i % 2) * lanes] = value;
                }
            }
        }
        Self { buffer, rows, row_len }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The elements in the kernel's order, to change each of them alike.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.buffer.as_mut_slice()
    }
}

/// `out[r][n] = x[r] · weights[n]`, limited to `clamp`.
#[derive(Debug)]
pub struct Dot<'a, 'b, W> {
    /// Whole rows of weights.
    pub weights: &'a [W],
    /// Elements in a row.
    pub cols: usize,
    /// The activations.
    pub x: &'a DotRows,
    /// Lowest and highest output.
    pub clamp: (f32, f32),
    /// One slice per row of activations, each as long as there are rows of weights.
    pub out: &'a mut [&'b mut [f32]],
}

impl<W: Weight> WithSimd for Dot<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let row_len = self.x.row_len;
        let Self { weights, cols, x, clamp, out } = self;
        let mut first = 0;
        while first < x.rows {
            let count = (x.rows - first).min(4);
            let part = &x.buffer.as_slice()[first * row_len..(first + count) * row_len];
            let out = &mut out[first..first + count];
            match count {
                1 => rows::<S, W, 1, 4>(simd, weights, cols, part, clamp, out),
                2 => rows::<S, W, 2, 2>(simd, weights, cols, part, clamp, out),
                3 => rows::<S, W, 3, 2>(simd, weights, cols, part, clamp, out),
                _ => rows::<S, W, 4, 2>(simd, weights, cols, part, clamp, out),
            }
            first += count;
        }
    }
}

/// `R` rows of activations with all weights, `N` rows of them at a time.
#[inline(always)]
fn rows<S: Simd, W: Weight, const R: usize, const N: usize>(
    simd: S,
    weights: &[W],
    cols: usize,
    x: &[f32],
    clamp: (f32, f32),
    out: &mut [&mut [f32]],
) {
    let (x, _) = S::as_simd_f32s(x);
    let (x, _) = pulp::as_arrays::<2, _>(x);
    let steps = x.len() / R;
    let x: [&[[S::f32s; 2]]; R] = std::array::from_fn(|r| &x[r * steps..(r + 1) * steps]);
    let bytes: &[u8] = bytemuck::cast_slice(weights);
    let row_bytes = cols * size_of::<W>();
    let num_rows = weights.len() / cols.max(1);
    let mut n = 0;
    while n < num_rows {
        // The last group repeats its last row rather than running a kernel of its own.
        let group: [&[u8]; N] = std::array::from_fn(|i| {
            let row = (n + i).min(num_rows - 1);
            &bytes[row * row_bytes..(row + 1) * row_bytes]
        });
        let sums = products::<S, W, R, N>(simd, group, x);
        for (i, sums) in sums.iter().enumerate().take(num_rows - n) {
            for (r, &sum) in sums.iter().enumerate() {
                out[r][n + i] = if sum.is_nan() { sum } else { sum.max(clamp.0).min(clamp.1) };
            }
        }
        n += N;
    }
}

#[inline(always)]
fn products<S: Simd, W: Weight, const R: usize, const N: usize>(
    simd: S,
    weights: [&[u8]; N],
    x: [&[[S::f32s; 2]]; R],
) -> [[f32; R]; N] {
    let step_bytes = 2 * S::F32_LANES * size_of::<W>();
    let steps = weights[0].len() / step_bytes;
    let main = weights.map(|row| &row[..steps * step_bytes]);
    let mut sums = [[[simd.splat_f32s(0.0); 2]; R]; N];
    for step in 0..steps {
        for i in 0..N {
            let w = W::load(simd, &main[i][step * step_bytes..(step + 1) * step_bytes]);
            multiply(simd, &mut sums[i], w, x, step);
        }
    }
    if weights[0].len() > steps * step_bytes {
        for i in 0..N {
            let rest = &weights[i][steps * step_bytes..];
            let mut padded = [0u8; MAX_STEP_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            let w = W::load(simd, &padded[..step_bytes]);
            multiply(simd, &mut sums[i], w, x, steps);
        }
    }
    sums.map(|row| row.map(|[even, odd]| simd.reduce_sum_f32s(simd.add_f32s(even, odd))))
}

#[inline(always)]
fn multiply<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[S::f32s; 2]; R],
    w: [S::f32s; 2],
    x: [&[[S::f32s; 2]]; R],
    step: usize,
) {
    for r in 0..R {
        let x = x[r][step];
        sums[r][0] = simd.mul_add_e_f32s(w[0], x[0], sums[r][0]);
        sums[r][1] = simd.mul_add_e_f32s(w[1], x[1], sums[r][1]);
    }
}
