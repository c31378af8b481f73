//! Few rows: one pass over the weights, which meet all rows while they are in the cache.

use super::Clip;
use crate::ops::simd::dot::{Dot, DotRows, Lay};
use crate::ops::simd::math::{Function, Map};
use crate::ops::simd::weight::Weight;
use crate::ops::simd::{AlignedBuffer, Level};
use rayon::prelude::*;
use std::marker::PhantomData;

/// Weights one task reads: long against a fork and a join, short enough to share out evenly.
const TASK_BYTES: usize = 1 << 18;

/// Fewest rows of weights in a task and what their number is a multiple of: they share a block of activations.
const TASK_ROWS: usize = 48;

/// `x · Wᵀ` into `out`. `x`: `[T, C]`, `weights`: `[N, C]`, `out`: `[T, N]`.
pub(super) fn matmul<W: Weight>(
    level: Level,
    x: &[f32],
    weights: &[W],
    cols: usize,
    clip: &Clip,
    out: &mut [f32],
) {
    let x = &lay::<W>(level, x, cols, clip);
    let num_rows = weights.len() / cols;
    let rows_per_task = (TASK_BYTES / (cols * size_of::<W>())).max(1).next_multiple_of(TASK_ROWS);
    let mut tasks: Vec<_> =
        weights.chunks(rows_per_task * cols).map(|weights| (weights, Vec::new())).collect();
    for row in out.chunks_exact_mut(num_rows) {
        for (task, part) in tasks.iter_mut().zip(row.chunks_mut(rows_per_task)) {
            task.1.push(part);
        }
    }
    tasks.par_iter_mut().for_each_init(AlignedBuffer::default, |sums, (weights, out)| {
        level.run(Dot { weights, cols, x, sums, out });
        if *clip != Clip::NONE {
            for out in out {
                level.run(Map(Function::Clamp(clip.output.0, clip.output.1), out));
            }
        }
    });
}

/// The rows of `x` in the order of the kernel, limited to the input bounds.
fn lay<W: Weight>(level: Level, x: &[f32], cols: usize, clip: &Clip) -> DotRows {
    let mut rows = DotRows::new(level, x.len() / cols, cols);
    rows.split_mut().into_par_iter().for_each(|(group, target)| {
        let x = &x[group.start * cols..group.end * cols];
        level.run(Lay { x, cols, target, weights: PhantomData::<W> });
        if *clip != Clip::NONE {
            level.run(Map(Function::Clamp(clip.input.0, clip.input.1), target));
        }
    });
    rows
}
