//! Few rows: one pass over the weights, bound by how fast memory gives them.

use super::Clip;
use crate::ops::simd::Level;
use crate::ops::simd::dot::{Dot, DotRows};
use crate::ops::simd::math::{Function, Map};
use crate::ops::simd::weight::Weight;
use rayon::prelude::*;

/// Weights one task reads: long against a fork and a join, short enough to share out evenly.
const TASK_BYTES: usize = 1 << 18;

/// `x · Wᵀ` into `out`. `x`: `[T, C]`, `weights`: `[N, C]`, `out`: `[T, N]`.
pub(super) fn matmul<W: Weight>(
    level: Level,
    x: &[f32],
    weights: &[W],
    cols: usize,
    clip: &Clip,
    out: &mut [f32],
) {
    let mut x = DotRows::new::<W>(level, x, cols);
    if *clip != Clip::NONE {
        level.run(Map(Function::Clamp(clip.input.0, clip.input.1), x.as_mut_slice()));
    }
    let num_rows = weights.len() / cols;
    let rows_per_task = (TASK_BYTES / (cols * size_of::<W>())).next_multiple_of(4);
    let mut tasks: Vec<_> =
        weights.chunks(rows_per_task * cols).map(|weights| (weights, Vec::with_capacity(x.rows()))).collect();
    for row in out.chunks_exact_mut(num_rows) {
        for (task, part) in tasks.iter_mut().zip(row.chunks_mut(rows_per_task)) {
            task.1.push(part);
        }
    }
    tasks.par_iter_mut().for_each(|(weights, out)| {
        level.run(Dot { weights, cols, x: &x, clamp: clip.output, out });
    });
}
