//! Dot products of a few rows of activations with many rows of weights, widened in registers.
//!
//! The work is bound by reading the weights once; a step covers two vectors of elements. 16-bit weights are read as
//! pairs in 32-bit words: shifts and masks split a word vector into its even and its odd elements, and the
//! activations lie in the same order beforehand.

use super::weight::Weight;
use super::{AlignedBuffer, Level};
use pulp::{Simd, WithSimd};

/// Most rows of activations the kernel takes at once.
pub const MAX_ROWS: usize = 8;

/// Activations that stay in a first-level cache of 32 KB or more while weights run through it.
const MAX_CACHED_BYTES: usize = 28 << 10;

/// How far ahead of a row of weights the next bytes are asked for: half a page. Measured on [1536, 12288] bf16, two
/// threads: 41 GB/s, against 36 without; 1024 and 4096 are within two of it.
const PREFETCH_BYTES: usize = 2048;

/// A row of weights of at most this many bytes is over before its sums have left the pipeline.
const SHORT_ROW_BYTES: usize = 1024;

/// Bytes of the widest step: two vectors of 16 floats.
const MAX_STEP_BYTES: usize = 128;

/// Rows of activations in the order the kernel reads them, padded with zeros to whole steps.
///
/// Up to [`GROUP_ROWS`] rows make a group, in which each step of all rows lies together.
#[derive(Debug)]
pub struct DotRows {
    buffer: AlignedBuffer,
    rows: usize,
    row_len: usize,
}

/// Rows of activations one weight is multiplied with while it is in a register.
const GROUP_ROWS: usize = 4;

impl DotRows {
    /// Prepares `x`, rows of `cols`, for weights of type `W`.
    pub fn new<W: Weight>(level: Level, x: &[f32], cols: usize) -> Self {
        let lanes = level.lanes();
        let (rows, row_len) = (x.len() / cols.max(1), cols.next_multiple_of(2 * lanes));
        let mut buffer = AlignedBuffer::zeros(rows * row_len);
        let groups = buffer.as_mut_slice().chunks_mut(GROUP_ROWS * row_len);
        for (source, target) in x.chunks(GROUP_ROWS * cols).zip(groups) {
            let count = source.len() / cols;
            for (row, source) in source.chunks_exact(cols).enumerate() {
                let steps = target.chunks_exact_mut(2 * lanes).skip(row).step_by(count);
                for (source, target) in source.chunks(2 * lanes).zip(steps) {
                    for (i, &value) in source.iter().enumerate() {
                        target[if W::PAIRS { i / 2 + i % 2 * lanes } else { i }] = value;
                    }
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
        let Self { weights, cols, x, clamp, out } = self;
        let groups = x.buffer.as_slice().chunks(GROUP_ROWS * x.row_len);
        for (x, out) in groups.zip(out.chunks_mut(GROUP_ROWS)) {
            // One row of weights after another is read fastest, unless a row is short or the activations no longer fit
            // the first-level cache: then several rows go together, as many as their sums and the registers allow.
            let together = size_of_val(x) > MAX_CACHED_BYTES || cols * size_of::<W>() <= SHORT_ROW_BYTES;
            match (out.len(), together && S::REGISTER_COUNT >= 32) {
                (1, false) => rows::<S, W, 1, 1>(simd, weights, cols, x, clamp, out),
                (2, false) => rows::<S, W, 2, 1>(simd, weights, cols, x, clamp, out),
                (3, false) => rows::<S, W, 3, 1>(simd, weights, cols, x, clamp, out),
                (_, false) => rows::<S, W, 4, 1>(simd, weights, cols, x, clamp, out),
                (1, true) => rows::<S, W, 1, 4>(simd, weights, cols, x, clamp, out),
                (2, true) => rows::<S, W, 2, 4>(simd, weights, cols, x, clamp, out),
                (3, true) => rows::<S, W, 3, 2>(simd, weights, cols, x, clamp, out),
                (_, true) => rows::<S, W, 4, 2>(simd, weights, cols, x, clamp, out),
            }
        }
    }
}

/// One group of activations with all weights, `N` rows of them at once.
#[inline(always)]
fn rows<S: Simd, W: Weight, const R: usize, const N: usize>(
    simd: S,
    weights: &[W],
    cols: usize,
    x: &[f32],
    (low, high): (f32, f32),
    out: &mut [&mut [f32]],
) {
    let (x, _) = pulp::as_arrays::<2, _>(S::as_simd_f32s(x).0);
    let (x, _) = pulp::as_arrays::<R, _>(x);
    for (first, weights) in (0..).step_by(N).zip(weights.chunks(N * cols)) {
        let count = weights.len() / cols;
        // The last rows may be fewer than `N`: the last is then taken more than once.
        let group =
            std::array::from_fn(|i| bytemuck::cast_slice(&weights[i.min(count - 1) * cols..][..cols]));
        let sums = products::<S, W, R, N>(simd, group, x);
        for (n, sums) in (first..).zip(&sums[..count]) {
            for (out, &sum) in out.iter_mut().zip(sums) {
                out[n] = if sum.is_nan() { sum } else { sum.max(low).min(high) };
            }
        }
    }
}

#[allow(unsafe_code)]
#[inline(always)]
fn products<S: Simd, W: Weight, const R: usize, const N: usize>(
    simd: S,
    weights: [&[u8]; N],
    x: &[[[S::f32s; 2]; R]],
) -> [[f32; R]; N] {
    let step_bytes = 2 * S::F32_LANES * size_of::<W>();
    let steps = weights[0].len() / step_bytes;
    assert!(weights.iter().all(|row| row.len() == weights[0].len()), "rows have the same length");
    let mut sums = [[[simd.splat_f32s(0.0); 2]; R]; N];
    for (step, x) in x.iter().enumerate().take(steps) {
        for i in 0..N {
            // SAFETY: `step < steps`, and every row is at least `steps * step_bytes` long. Checked, the kernel falls
            // from the speed of memory to half of it.
            let bytes = unsafe { weights[i].get_unchecked(step * step_bytes..(step + 1) * step_bytes) };
            prefetch(bytes.as_ptr().wrapping_add(PREFETCH_BYTES), step_bytes);
            add_products(simd, &mut sums[i], W::load(simd, bytes), x);
        }
    }
    if let Some(x) = x.get(steps) {
        for i in 0..N {
            let rest = &weights[i][steps * step_bytes..];
            let mut padded = [0u8; MAX_STEP_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            add_products(simd, &mut sums[i], W::load(simd, &padded[..step_bytes]), x);
        }
    }
    sums.map(|sums| sums.map(|[first, second]| simd.reduce_sum_f32s(simd.add_f32s(first, second))))
}

/// Asks for the lines at `address`, which may lie anywhere: the processor's own guesses end at every page.
#[allow(unsafe_code)]
#[inline(always)]
fn prefetch(address: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                address.wrapping_add(offset).cast(),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address.wrapping_add(offset);
    }
}

#[inline(always)]
fn add_products<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[S::f32s; 2]; R],
    weights: [S::f32s; 2],
    x: &[[S::f32s; 2]; R],
) {
    for (sums, x) in sums.iter_mut().zip(x) {
        sums[0] = simd.mul_add_e_f32s(weights[0], x[0], sums[0]);
        sums[1] = simd.mul_add_e_f32s(weights[1], x[1], sums[1]);
    }
}
