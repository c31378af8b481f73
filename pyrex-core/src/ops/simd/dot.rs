//! Dot products of some rows of activations with many rows of weights, widened in registers.
//!
//! Each weight comes from memory once and meets all rows before it leaves the cache. While a tile of weights is multiplied,
//! the next is asked for: so few rows cost what reading costs, and many what the products cost. A row's sums run over
//! its columns in the same order whatever goes with it: the result does not depend on the other rows.

use super::weight::Weight;
use super::{AlignedBuffer, Level};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of activations one weight is multiplied with while it is in a register.
const GROUP_ROWS: usize = 4;

/// Rows of weights that go through several groups: a multiple of how many any kernel takes at once.
const TILE_ROWS: usize = 12;

/// Activations that stay in a first-level cache of 32 KB or more while weights run through it.
const CACHED_BYTES: usize = 28 << 10;

/// A row of weights of at most this many bytes is over before its sums have left the pipeline.
const SHORT_ROW_BYTES: usize = 1024;

/// How far ahead long rows of weights ask for the next bytes: half a page.
const NEAR_BYTES: usize = 2048;

/// Bytes of the widest step: two vectors of 16 floats.
const MAX_STEP_BYTES: usize = 128;

/// Rows of activations in the order the kernel reads them, padded with zeros to whole steps of two vectors.
///
/// Up to [`GROUP_ROWS`] rows make a group, in which each step of all rows lies together.
#[derive(Debug)]
pub struct DotRows {
    buffer: AlignedBuffer,
    rows: usize,
    /// Steps in a row.
    steps: usize,
    /// Elements in a step.
    step_len: usize,
}

impl DotRows {
    /// Room for `rows` of `cols`.
    pub fn new(level: Level, rows: usize, cols: usize) -> Self {
        let step_len = 2 * level.lanes();
        let steps = cols.div_ceil(step_len);
        Self { buffer: AlignedBuffer::zeros(rows * steps * step_len), rows, steps, step_len }
    }

    /// Each group of rows with its elements, for [`Lay`] to fill.
    pub fn split_mut(&mut self) -> Vec<(Range<usize>, &mut [f32])> {
        let (groups, row_len) = (self.groups(), self.steps * self.step_len);
        let mut rest = self.buffer.as_mut_slice();
        let mut parts = Vec::new();
        for group in groups {
            let (part, tail) = rest.split_at_mut(group.len() * row_len);
            parts.push((group, part));
            rest = tail;
        }
        parts
    }

    fn num_groups(&self) -> usize {
        self.rows.div_ceil(GROUP_ROWS)
    }

    fn row_bytes(&self) -> usize {
        self.steps * self.step_len * size_of::<f32>()
    }

    /// The rows, shared out evenly.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, count) = (self.rows, self.num_groups());
        (0..count).map(move |i| i * rows / count..(i + 1) * rows / count)
    }

    /// The steps in blocks, so that a group's stay in the cache; several groups share it with a tile of weights.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (steps, row_bytes) = (self.steps, self.row_bytes());
        let count = match self.rows {
            // So few wait for memory longer than for any cache.
            0..=2 => 1,
            3..=GROUP_ROWS => (GROUP_ROWS * row_bytes).div_ceil(CACHED_BYTES),
            _ => (GROUP_ROWS * row_bytes).div_ceil(CACHED_BYTES / 2),
        };
        (0..count).map(move |i| i * steps / count..(i + 1) * steps / count)
    }

    /// Some steps of a group.
    fn block(&self, group: &Range<usize>, steps: &Range<usize>) -> &[f32] {
        let at = |step: usize| (group.start * self.steps + step * group.len()) * self.step_len;
        &self.buffer.as_slice()[at(steps.start)..at(steps.end)]
    }
}

/// Lays rows of activations out as a group of [`DotRows`].
#[derive(Debug)]
pub struct Lay<'a, W> {
    /// Rows of `cols`.
    pub x: &'a [f32],
    /// Elements in a row.
    pub cols: usize,
    /// The group.
    pub target: &'a mut [f32],
    /// What the rows will be multiplied with: pairs want even and odd elements apart.
    pub weights: PhantomData<W>,
}

impl<W: Weight> WithSimd for Lay<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let step_len = 2 * S::F32_LANES;
        let rows = self.x.chunks_exact(self.cols);
        let num_rows = rows.len();
        for (row, source) in rows.enumerate() {
            let mut steps = self.target.chunks_exact_mut(step_len).skip(row).step_by(num_rows);
            let whole = source.chunks_exact(step_len);
            let rest = whole.remainder();
            for (source, target) in whole.zip(&mut steps) {
                lay_step::<S, W>(source, target);
            }
            if let Some(target) = steps.next() {
                let mut padded = [0.0; MAX_STEP_BYTES / size_of::<f32>()];
                padded[..rest.len()].copy_from_slice(rest);
                lay_step::<S, W>(&padded[..step_len], target);
            }
        }
    }
}

#[inline(always)]
fn lay_step<S: Simd, W: Weight>(source: &[f32], target: &mut [f32]) {
    if !W::PAIRS {
        return target.copy_from_slice(source);
    }
    let (even, odd) = target.split_at_mut(S::F32_LANES);
    for i in 0..S::F32_LANES {
        even[i] = source[2 * i];
        odd[i] = source[2 * i + 1];
    }
}

/// `out[r][n] = x[r] · weights[n]`.
#[derive(Debug)]
pub struct Dot<'a, 'b, W> {
    /// Whole rows of weights.
    pub weights: &'a [W],
    /// Elements in a row.
    pub cols: usize,
    /// The activations.
    pub x: &'a DotRows,
    /// Scratch of any size.
    pub sums: &'a mut AlignedBuffer,
    /// One slice per row of activations, each as long as there are rows of weights.
    pub out: &'a mut [&'b mut [f32]],
}

impl<W: Weight> WithSimd for Dot<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weights, cols, x, sums, out } = self;
        let num_rows = weights.len() / cols;
        let padded_rows = num_rows.next_multiple_of(TILE_ROWS);
        sums.grow(padded_rows * x.rows * S::F32_LANES);
        let row_bytes = cols * size_of::<W>();
        // One or two rows read fastest one row of weights after another, unless it is over before its sums have left
        // the pipeline, or the activations do not stay in the cache.
        let singly = x.rows <= 2 && row_bytes > SHORT_ROW_BYTES && x.row_bytes() * x.rows <= CACHED_BYTES;
        let kernel_rows = |group_len| match (group_len, S::REGISTER_COUNT >= 32) {
            _ if singly => 1,
            (1..=2, _) | (3, true) => 4,
            // More share each vector of activations, until the sums no longer fit: with four, one is spilled on
            // AVX-512, and 215 GFLOP/s in the cache become 190.
            (_, true) => 3,
            (_, false) => 2,
        };
        for steps in x.blocks() {
            let is_last = steps.end == x.steps;
            for first_row in (0..num_rows).step_by(TILE_ROWS) {
                let rows = first_row..num_rows.min(first_row + TILE_ROWS);
                let block_bytes = steps.len() * 2 * S::F32_LANES * size_of::<W>();
                let next = match (x.num_groups(), kernel_rows(x.rows)) {
                    // Nothing is read twice: what is asked for should be near, and outside these rows if they are short.
                    (1, rows) if rows > 1 && rows * block_bytes <= CACHED_BYTES => rows * row_bytes,
                    (1, _) => NEAR_BYTES,
                    // The next tile lies below this one or, after the last, at the top of the next block.
                    _ if rows.end < num_rows || is_last => TILE_ROWS * row_bytes,
                    _ => block_bytes.wrapping_sub(first_row * row_bytes),
                };
                for (group_idx, group) in x.groups().enumerate() {
                    let offset = (group.start * padded_rows + first_row * group.len()) * S::F32_LANES;
                    let sums = &mut sums.as_mut_slice()[offset..];
                    Pass {
                        weights: &weights[rows.start * cols..rows.end * cols],
                        cols,
                        first_col: steps.start * 2 * S::F32_LANES,
                        kernel_rows: kernel_rows(group.len()),
                        x: x.block(&group, &steps),
                        next,
                        share: (group_idx, x.num_groups()),
                    }
                    .run(simd, group.len(), sums);
                    if is_last {
                        reduce(simd, sums, rows.clone(), &mut out[group]);
                    }
                }
            }
        }
    }
}

/// Sums up the lanes.
#[inline(always)]
fn reduce<S: Simd>(simd: S, sums: &[f32], rows: Range<usize>, out: &mut [&mut [f32]]) {
    let (sums, _) = S::as_simd_f32s(sums);
    for (n, sums) in rows.zip(sums.chunks_exact(out.len())) {
        for (out, &sum) in out.iter_mut().zip(sums) {
            out[n] = simd.reduce_sum_f32s(sum);
        }
    }
}

/// A tile of weights with one group of activations, in one block of columns.
struct Pass<'a, W> {
    weights: &'a [W],
    cols: usize,
    first_col: usize,
    kernel_rows: usize,
    x: &'a [f32],
    /// How many bytes after this tile the next begins.
    next: usize,
    /// Which part of the next tile to ask for, and how many parts there are.
    share: (usize, usize),
}

impl<W: Weight> Pass<'_, W> {
    /// Adds to `sums`, or begins them in the first block.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, group_len: usize, sums: &mut [f32]) {
        match (group_len, self.kernel_rows) {
            (1, 1) => self.kernels::<S, 1, 1>(simd, sums),
            (1, _) => self.kernels::<S, 1, 4>(simd, sums),
            (2, 1) => self.kernels::<S, 2, 1>(simd, sums),
            (2, _) => self.kernels::<S, 2, 4>(simd, sums),
            (3, 4) => self.kernels::<S, 3, 4>(simd, sums),
            (3, _) => self.kernels::<S, 3, 2>(simd, sums),
            (_, 3) => self.kernels::<S, 4, 3>(simd, sums),
            (..) => self.kernels::<S, 4, 2>(simd, sums),
        }
    }

    /// `N` rows of weights at a time.
    #[inline(always)]
    fn kernels<S: Simd, const R: usize, const N: usize>(self, simd: S, sums: &mut [f32]) {
        let (x, _) = pulp::as_arrays::<2, _>(S::as_simd_f32s(self.x).0);
        let (x, _) = pulp::as_arrays::<R, _>(x);
        let (sums, _) = pulp::as_arrays_mut::<R, _>(S::as_mut_simd_f32s(sums).0);
        let (sums, _) = pulp::as_arrays_mut::<N, _>(sums);
        let cols = self.first_col..self.cols.min(self.first_col + x.len() * 2 * S::F32_LANES);
        let ahead = self.ahead::<S>(cols.len(), N);
        for (weights, sums) in self.weights.chunks(N * self.cols).zip(sums) {
            // The last rows may be fewer than `N`: the last is then taken more than once.
            let last = weights.len() / self.cols - 1;
            let rows = std::array::from_fn(|n| {
                bytemuck::cast_slice(&weights[n.min(last) * self.cols..][..self.cols][cols.clone()])
            });
            let start = if self.first_col == 0 { [[simd.splat_f32s(0.0); R]; N] } else { *sums };
            *sums = products::<S, W, R, N>(simd, rows, x, &ahead, start);
        }
    }
    /// What `rows` rows ask for: of whole rows, which lie one after another, all at one place, or else each its own columns.
    #[inline(always)]
    fn ahead<S: Simd>(&self, num_cols: usize, rows: usize) -> Ahead {
        let (part, parts) = self.share;
        let share = size_of::<W>() * 2 * S::F32_LANES / parts;
        let from = |bytes: usize| self.next.wrapping_add(part * bytes / parts);
        let block_bytes = num_cols * size_of::<W>();
        match num_cols == self.cols && self.next >= rows * block_bytes {
            true => Ahead { start: from(rows * block_bytes), step: rows * share, row: share },
            false => Ahead { start: from(block_bytes), step: share, row: self.cols * size_of::<W>() },
        }
    }
}

/// Where the bytes to ask for lie, from the first row on: `start + step_idx · step + row_idx · row`.
struct Ahead {
    start: usize,
    step: usize,
    row: usize,
}

/// `sums[n][r] += Σ weights[n] · x[r]`.
#[allow(unsafe_code)]
#[inline(always)]
fn products<S: Simd, W: Weight, const R: usize, const N: usize>(
    simd: S,
    weights: [&[u8]; N],
    x: &[[[S::f32s; 2]; R]],
    ahead: &Ahead,
    mut sums: [[S::f32s; R]; N],
) -> [[S::f32s; R]; N] {
    let step_bytes = 2 * S::F32_LANES * size_of::<W>();
    let steps = weights[0].len() / step_bytes;
    assert!(weights.iter().all(|row| row.len() == weights[0].len()), "rows have the same length");
    for (step, x) in x.iter().enumerate().take(steps) {
        let weights = std::array::from_fn(|n| {
            let offset = ahead.start.wrapping_add(step * ahead.step + n * ahead.row);
            prefetch(weights[0].as_ptr().wrapping_add(offset), step_bytes);
            // SAFETY: `step < steps`, and every row is at least `steps * step_bytes` long. Checked, the kernel falls
            // from the speed of memory to half of it.
            W::load(simd, unsafe { weights[n].get_unchecked(step * step_bytes..(step + 1) * step_bytes) })
        });
        add_products(simd, weights, x, &mut sums);
    }
    if let Some(x) = x.get(steps) {
        let weights = std::array::from_fn(|n| {
            let rest = &weights[n][steps * step_bytes..];
            let mut padded = [0u8; MAX_STEP_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            W::load(simd, &padded[..step_bytes])
        });
        add_products(simd, weights, x, &mut sums);
    }
    sums
}

#[inline(always)]
fn add_products<S: Simd, const R: usize, const N: usize>(
    simd: S,
    weights: [[S::f32s; 2]; N],
    x: &[[S::f32s; 2]; R],
    sums: &mut [[S::f32s; R]; N],
) {
    for half in 0..2 {
        for (sums, weights) in sums.iter_mut().zip(&weights) {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = simd.mul_add_e_f32s(weights[half], x[half], *sum);
            }
        }
    }
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
