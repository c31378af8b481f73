//! The product of many rows with many rows, in registers: `M` rows broadcast against a panel of vectors.
//!
//! A [`Panels`] holds the rows of `x` side by side, one per vector lane, so that the other operand is read row by row where
//! it lies and nothing has to be transposed but `x`, once.

use super::{AlignedBuffer, Level};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Most vectors in a panel: their sums fill 24 of 32 registers, or 8 of 16. Three of 16 would leave none over, and the
/// compiler spills: 38 GFLOP/s on a core of Zen 3 that does 73 to 100 with two.
pub const fn max_vectors(register_count: usize) -> usize {
    if register_count >= 32 { 3 } else { 2 }
}

/// Rows broadcast at once.
pub const fn tile_rows(register_count: usize) -> usize {
    if register_count >= 32 { 8 } else { 4 }
}

/// Most rows [`tile_rows`] answers.
pub const MAX_TILE_ROWS: usize = 8;

/// `Σ_k rows[i][k] · panel[k][j]` for all rows and vectors. Rows are at least as long as the panel.
///
/// # Panics
/// If a row is shorter.
#[allow(unsafe_code)]
#[inline(always)]
pub fn outer<S: Simd, const M: usize, const V: usize>(
    simd: S,
    rows: [&[f32]; M],
    panel: &[[S::f32s; V]],
) -> [[S::f32s; V]; M] {
    let depth = panel.len();
    assert!(rows.iter().all(|row| row.len() >= depth), "rows are as long as the panel");
    let mut sums = [[simd.splat_f32s(0.0); V]; M];
    for (k, panel) in panel.iter().enumerate() {
        for i in 0..M {
            // SAFETY: `k < depth`, and the assertion above holds `depth` against the length of every row. A checked
            // index here costs a third of the speed: eight lengths and eight pointers do not fit the registers.
            let a = simd.splat_f32s(unsafe { *rows[i].get_unchecked(k) });
            for j in 0..V {
                sums[i][j] = simd.mul_add_e_f32s(a, panel[j], sums[i][j]);
            }
        }
    }
    sums
}

/// `Σ_k columns[k][first + i] · panel[k][j]` for `M` columns from `first` on: as [`outer`], with the other operand transposed.
#[inline(always)]
pub fn outer_columns<S: Simd, const M: usize, const V: usize>(
    simd: S,
    columns: &[&[f32]],
    first: usize,
    panel: &[[S::f32s; V]],
) -> [[S::f32s; V]; M] {
    let mut sums = [[simd.splat_f32s(0.0); V]; M];
    for (column, panel) in columns.iter().zip(panel) {
        for (sums, &a) in sums.iter_mut().zip(&column[first..first + M]) {
            let a = simd.splat_f32s(a);
            for j in 0..V {
                sums[j] = simd.mul_add_e_f32s(a, panel[j], sums[j]);
            }
        }
    }
    sums
}

/// Rows laid side by side: element `k` of every row of a panel lies together.
#[derive(Debug)]
pub struct Panels {
    buffer: AlignedBuffer,
    /// Elements in a row.
    pub cols: usize,
    /// One per panel, in order.
    pub list: Vec<Panel>,
}

/// Up to [`max_vectors`] vectors of rows.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The rows in it.
    pub rows: Range<usize>,
    /// Vectors it takes; the last may have unused lanes.
    pub vectors: usize,
    /// Rows and unused lanes.
    pub width: usize,
    /// Lanes of the panels before it.
    first_lane: usize,
}

impl Panel {
    /// Shares `rows` out among panels as wide as they can be.
    pub fn split(level: Level, rows: usize) -> Vec<Self> {
        let (lanes, max_vectors) = (level.lanes(), max_vectors(level.registers()));
        let mut list = Vec::new();
        let (mut start, mut first_lane) = (0, 0);
        while start < rows {
            let vectors = (rows - start).div_ceil(lanes).min(max_vectors);
            let width = vectors * lanes;
            let end = rows.min(start + width);
            list.push(Self { rows: start..end, vectors, width, first_lane });
            first_lane += width;
            start = end;
        }
        list
    }
}

impl Panels {
    /// Room for `rows` of `cols`.
    pub fn new(level: Level, rows: usize, cols: usize) -> Self {
        let list = Panel::split(level, rows);
        let lanes: usize = list.iter().map(|panel| panel.width).sum();
        Self { buffer: AlignedBuffer::zeros(lanes * cols), cols, list }
    }

    /// Columns `range` of a panel.
    pub fn columns(&self, panel: &Panel, range: Range<usize>) -> &[f32] {
        let offset = panel.first_lane * self.cols;
        &self.buffer.as_slice()[offset + range.start * panel.width..offset + range.end * panel.width]
    }

    /// Each panel with its elements, to fill.
    pub fn split_mut(&mut self) -> Vec<(&Panel, &mut [f32])> {
        let mut rest = self.buffer.as_mut_slice();
        let mut parts = Vec::with_capacity(self.list.len());
        for panel in &self.list {
            let (part, tail) = rest.split_at_mut(panel.width * self.cols);
            parts.push((panel, part));
            rest = tail;
        }
        parts
    }
}

/// Writes row `source` into lane `lane` of a panel `width` lanes wide.
pub fn fill_lane(source: &[f32], lane: usize, width: usize, panel: &mut [f32]) {
    for (target, &value) in panel.chunks_exact_mut(width).zip(source) {
        target[lane] = value;
    }
}

/// `sums[n][lane] += Σ_k weights[n][k] · panel[k][lane]`.
#[derive(Debug)]
pub struct Accumulate<'a> {
    /// Rows of weights, `stride` apart.
    pub weights: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// How many rows.
    pub rows: usize,
    /// `[depth, width]`.
    pub panel: &'a [f32],
    /// Vectors in the panel.
    pub vectors: usize,
    /// `[rows, width]`.
    pub sums: &'a mut [f32],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (tile_rows(S::REGISTER_COUNT), self.vectors) {
            (8, 1) => self.tiles::<S, 8, 1>(simd),
            (8, 2) => self.tiles::<S, 8, 2>(simd),
            (8, _) => self.tiles::<S, 8, 3>(simd),
            (_, 1) => self.tiles::<S, 4, 1>(simd),
            (..) => self.tiles::<S, 4, 2>(simd),
        }
    }
}

impl Accumulate<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize, const V: usize>(self, simd: S) {
        let (panel, _) = S::as_simd_f32s(self.panel);
        let (panel, _) = pulp::as_arrays::<V, _>(panel);
        let (sums, _) = S::as_mut_simd_f32s(self.sums);
        let (sums, _) = pulp::as_arrays_mut::<V, _>(sums);
        let mut first = 0;
        while first < self.rows {
            // The last tile repeats its last row rather than running a kernel of its own.
            let rows = std::array::from_fn(|i| &self.weights[(first + i).min(self.rows - 1) * self.stride..]);
            let tile = outer::<S, M, V>(simd, rows, panel);
            for (sums, tile) in sums[first..self.rows].iter_mut().zip(&tile) {
                for j in 0..V {
                    sums[j] = simd.add_f32s(sums[j], tile[j]);
                }
            }
            first += M;
        }
    }
}
