//! One tile of queries against one tile of keys: scores, the online softmax, and the values they weigh.
//!
//! Each lane is a query. Scores and sums stay transposed (`[keys, lanes]`, `[D, lanes]`), so that the softmax runs down the
//! lanes without a horizontal step, and keys and values are read where they lie.

use super::AlignedBuffer;
use super::math::exp;
use super::tile::{Panel, fill_lane, outer, outer_columns, tile_rows};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Keys in a tile: with 48 lanes their scores take half of a first-level cache.
pub const KEY_TILE: usize = 128;

/// Weights summed before they join a tile's sum, and that the whole: a sum of thousands one by one loses a digit.
const SUM_KEYS: usize = 16;

/// The queries of a tile, side by side.
#[derive(Debug)]
pub struct Lanes {
    /// `[D, width]`.
    queries: AlignedBuffer,
    /// The first key each lane sees.
    first: AlignedBuffer,
    /// The first key each lane no longer sees.
    end: AlignedBuffer,
    width: usize,
    vectors: usize,
    /// Keys that some lane sees.
    pub seen_by_any: Range<usize>,
    /// Keys that all lanes see.
    seen_by_all: Range<usize>,
}

impl Lanes {
    /// Lays `queries` of `head_dim` elements side by side; each comes with the keys it sees.
    pub fn new<'a>(
        panel: &Panel,
        head_dim: usize,
        queries: impl Iterator<Item = (&'a [f32], Range<usize>)>,
    ) -> Self {
        let width = panel.width;
        let buffer = AlignedBuffer::zeros;
        let mut lanes = Self {
            queries: buffer(head_dim * width),
            first: buffer(width),
            end: buffer(width),
            width,
            vectors: panel.vectors,
            seen_by_any: Range { start: usize::MAX, end: 0 },
            seen_by_all: 0..usize::MAX,
        };
        for (lane, (query, seen)) in queries.enumerate() {
            fill_lane(query, lane, width, lanes.queries.as_mut_slice());
            lanes.first.as_mut_slice()[lane] = seen.start as f32;
            lanes.end.as_mut_slice()[lane] = seen.end as f32;
            let (any, all) = (&lanes.seen_by_any, &lanes.seen_by_all);
            let (any, all) = (
                any.start.min(seen.start)..any.end.max(seen.end),
                all.start.max(seen.start)..all.end.min(seen.end),
            );
            (lanes.seen_by_any, lanes.seen_by_all) = (any, all);
        }
        lanes
    }
}

/// What a tile of queries knows of the keys so far.
#[derive(Debug)]
pub struct Softmax {
    /// The greatest score of each lane.
    max: AlignedBuffer,
    /// `Σ e^(score − max)` of each lane.
    sum: AlignedBuffer,
    /// `[D, width]`: the values weighed alike.
    values: AlignedBuffer,
    scores: AlignedBuffer,
    width: usize,
}

impl Softmax {
    /// Nothing seen yet.
    pub fn new(lanes: &Lanes, head_dim: usize) -> Self {
        let width = lanes.width;
        let mut max = AlignedBuffer::zeros(width);
        max.as_mut_slice().fill(f32::NEG_INFINITY);
        Self {
            max,
            sum: AlignedBuffer::zeros(width),
            values: AlignedBuffer::zeros(head_dim * width),
            scores: AlignedBuffer::zeros(KEY_TILE * width),
            width,
        }
    }

    /// Adds what another saw of other keys.
    pub fn merge(&mut self, other: &Self) {
        for lane in 0..self.width {
            let (a, b) = (self.max.as_slice()[lane], other.max.as_slice()[lane]);
            let max = a.max(b);
            let share = |x: f32| if x == f32::NEG_INFINITY { 0.0 } else { (x - max).exp() };
            let (a, b) = (share(a), share(b));
            self.max.as_mut_slice()[lane] = max;
            let sum = &mut self.sum.as_mut_slice()[lane];
            *sum = *sum * a + other.sum.as_slice()[lane] * b;
            let column = other.values.as_slice().iter().skip(lane).step_by(self.width);
            for (x, y) in self.values.as_mut_slice().iter_mut().skip(lane).step_by(self.width).zip(column) {
                *x = *x * a + y * b;
            }
        }
    }

    /// Writes a lane's attention; zeros if it saw nothing.
    pub fn write(&self, lane: usize, out: &mut [f32]) {
        let sum = self.sum.as_slice()[lane];
        let share = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        for (out, values) in out.iter_mut().zip(self.values.as_slice().chunks_exact(self.width)) {
            *out = values[lane] * share;
        }
    }
}

/// Lets a tile of queries see a tile of at most [`KEY_TILE`] keys.
#[derive(Debug)]
pub struct Attend<'a> {
    /// The queries.
    pub lanes: &'a Lanes,
    /// The index of the first key.
    pub first_key: usize,
    /// Keys, one row each.
    pub keys: &'a [&'a [f32]],
    /// Their values.
    pub values: &'a [&'a [f32]],
    /// Factor of the scores.
    pub scale: f32,
    /// What they have seen.
    pub softmax: &'a mut Softmax,
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (tile_rows(S::REGISTER_COUNT), self.lanes.vectors) {
            (8, 1) => self.run::<S, 8, 1>(simd),
            (8, 2) => self.run::<S, 8, 2>(simd),
            (8, _) => self.run::<S, 8, 3>(simd),
            (_, 1) => self.run::<S, 4, 1>(simd),
            (..) => self.run::<S, 4, 2>(simd),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(self, simd: S) {
        let Softmax { max, sum, values, scores, .. } = self.softmax;
        let scores = &mut vectors_mut::<S, V>(scores.as_mut_slice())[..self.keys.len()];
        let (max, sum) = (
            &mut vectors_mut::<S, V>(max.as_mut_slice())[0],
            &mut vectors_mut::<S, V>(sum.as_mut_slice())[0],
        );
        let highest =
            score_keys::<S, M, V>(simd, self.lanes, (self.first_key, self.keys), self.scale, scores);
        let mut fade = [simd.splat_f32s(0.0); V];
        let mut base = fade;
        for j in 0..V {
            let new = simd.max_f32s(max[j], highest[j]);
            // A lane that has seen no key yet has no greatest score to subtract.
            let none = simd.equal_f32s(new, simd.splat_f32s(f32::NEG_INFINITY));
            base[j] = simd.select_f32s(none, simd.splat_f32s(0.0), new);
            fade[j] = exp(simd, simd.sub_f32s(max[j], base[j]));
            sum[j] = simd.mul_f32s(sum[j], fade[j]);
            max[j] = new;
        }
        let mut tile_sum = [simd.splat_f32s(0.0); V];
        for scores in scores.chunks_mut(SUM_KEYS) {
            let mut part = [simd.splat_f32s(0.0); V];
            for scores in scores {
                for j in 0..V {
                    scores[j] = exp(simd, simd.sub_f32s(scores[j], base[j]));
                    part[j] = simd.add_f32s(part[j], scores[j]);
                }
            }
            for j in 0..V {
                tile_sum[j] = simd.add_f32s(tile_sum[j], part[j]);
            }
        }
        for j in 0..V {
            sum[j] = simd.add_f32s(sum[j], tile_sum[j]);
        }
        weigh_values::<S, M, V>(simd, self.values, scores, fade, vectors_mut::<S, V>(values.as_mut_slice()));
    }
}

/// Fills `scores`, with −∞ where a lane does not see a key, and returns the greatest of each lane.
#[inline(always)]
fn score_keys<S: Simd, const M: usize, const V: usize>(
    simd: S,
    lanes: &Lanes,
    (first_key, keys): (usize, &[&[f32]]),
    scale: f32,
    scores: &mut [[S::f32s; V]],
) -> [S::f32s; V] {
    let queries = vectors::<S, V>(lanes.queries.as_slice());
    let (first, end) = (vectors::<S, V>(lanes.first.as_slice())[0], vectors::<S, V>(lanes.end.as_slice())[0]);
    let all_seen = lanes.seen_by_all.start <= first_key && first_key + keys.len() <= lanes.seen_by_all.end;
    let unseen = simd.splat_f32s(f32::NEG_INFINITY);
    let mut highest = [unseen; V];
    for (group, scores) in scores.chunks_mut(M).enumerate() {
        // The last group repeats its last key rather than running a kernel of its own.
        let rows = std::array::from_fn(|i| keys[(group * M + i).min(keys.len() - 1)]);
        let tile = outer::<S, M, V>(simd, rows, queries);
        for (i, (scores, tile)) in scores.iter_mut().zip(&tile).enumerate() {
            let key = simd.splat_f32s((first_key + group * M + i) as f32);
            for j in 0..V {
                let mut score = simd.mul_f32s(tile[j], simd.splat_f32s(scale));
                if !all_seen {
                    score = simd.select_f32s(simd.less_than_or_equal_f32s(first[j], key), score, unseen);
                    score = simd.select_f32s(simd.less_than_f32s(key, end[j]), score, unseen);
                }
                scores[j] = score;
                highest[j] = simd.max_f32s(highest[j], score);
            }
        }
    }
    highest
}

/// `sums[d] = sums[d] · fade + Σ_key values[key][d] · scores[key]`.
#[inline(always)]
fn weigh_values<S: Simd, const M: usize, const V: usize>(
    simd: S,
    values: &[&[f32]],
    scores: &[[S::f32s; V]],
    fade: [S::f32s; V],
    sums: &mut [[S::f32s; V]],
) {
    let head_dim = values[0].len();
    let (whole, rest) = sums[..head_dim].split_at_mut(head_dim / M * M);
    for (group, sums) in whole.chunks_exact_mut(M).enumerate() {
        let tile = outer_columns::<S, M, V>(simd, values, group * M, scores);
        for (sums, tile) in sums.iter_mut().zip(&tile) {
            for j in 0..V {
                sums[j] = simd.mul_add_e_f32s(sums[j], fade[j], tile[j]);
            }
        }
    }
    for (d, sums) in (head_dim / M * M..).zip(rest) {
        let [tile] = outer_columns::<S, 1, V>(simd, values, d, scores);
        for j in 0..V {
            sums[j] = simd.mul_add_e_f32s(sums[j], fade[j], tile[j]);
        }
    }
}

#[inline(always)]
fn vectors<S: Simd, const V: usize>(slice: &[f32]) -> &[[S::f32s; V]] {
    pulp::as_arrays(S::as_simd_f32s(slice).0).0
}

#[inline(always)]
fn vectors_mut<S: Simd, const V: usize>(slice: &mut [f32]) -> &mut [[S::f32s; V]] {
    pulp::as_arrays_mut(S::as_mut_simd_f32s(slice).0).0
}
