//! Many rows: blocks of weights are widened into scratch and multiplied with panels of activations.

use super::Clip;
use crate::ops::simd::math::{Function, Map};
use crate::ops::simd::tile::{Accumulate, Panel, Panels, fill_lane};
use crate::ops::simd::weight::Weight;
use crate::ops::simd::{AlignedBuffer, Level};
use rayon::prelude::*;

/// Rows of weights in a block: the first of its tiles waits for a panel, so there should be many of them.
const BLOCK_ROWS: usize = 128;
/// Columns in a block: with `BLOCK_ROWS` and a panel of 48 lanes, 350 KB of a second-level cache of 1 MB.
const BLOCK_COLS: usize = 512;
/// Most panels in a task: their sums take another 290 KB of that cache.
const GROUP_PANELS: usize = 12;
/// Columns of a panel filled at once, so that the lines written stay in the first cache.
const FILL_COLS: usize = 64;

/// `x · Wᵀ` into `out`. `x`: `[T, C]`, `weights`: `[N, C]`, `out`: `[T, N]`.
pub(super) fn matmul<W: Weight>(
    level: Level,
    x: &[f32],
    weights: &[W],
    cols: usize,
    clip: &Clip,
    out: &mut [f32],
) {
    let panels = pack(level, x, cols, clip);
    let num_rows = weights.len() / cols;
    let blocks = num_rows.div_ceil(BLOCK_ROWS);
    let wanted_groups = (4 * rayon::current_num_threads()).div_ceil(blocks);
    let group_len = panels.list.len().div_ceil(wanted_groups).clamp(1, GROUP_PANELS);
    let mut tasks: Vec<Task<'_, W>> = panels
        .list
        .chunks(group_len)
        .flat_map(|group| {
            weights.chunks(BLOCK_ROWS * cols).map(move |weights| Task { group, weights, out: Vec::new() })
        })
        .collect();
    let rows_per_group = panels.list[0].width * group_len;
    for (row, line) in out.chunks_exact_mut(num_rows).enumerate() {
        let tasks = &mut tasks[row / rows_per_group * blocks..][..blocks];
        for (task, part) in tasks.iter_mut().zip(line.chunks_mut(BLOCK_ROWS)) {
            task.out.push(part);
        }
    }
    tasks
        .par_iter_mut()
        .for_each_init(Scratch::default, |scratch, task| task.run(level, &panels, clip, scratch));
}

/// The rows of `x` as panels, limited to the input bounds.
fn pack(level: Level, x: &[f32], cols: usize, clip: &Clip) -> Panels {
    let mut panels = Panels::new(level, x.len() / cols, cols);
    panels.split_mut().into_par_iter().for_each(|(panel, target)| {
        for (block, target) in target.chunks_mut(FILL_COLS * panel.width).enumerate() {
            let start = block * FILL_COLS;
            let end = cols.min(start + FILL_COLS);
            for (lane, row) in panel.rows.clone().enumerate() {
                fill_lane(&x[row * cols + start..row * cols + end], lane, panel.width, target);
            }
            if *clip != Clip::NONE {
                level.run(Map(Function::Clamp(clip.input.0, clip.input.1), target));
            }
        }
    });
    panels
}

/// A block of weights with a group of panels.
struct Task<'a, W> {
    group: &'a [Panel],
    weights: &'a [W],
    out: Vec<&'a mut [f32]>,
}

#[derive(Default)]
struct Scratch {
    weights: AlignedBuffer,
    sums: AlignedBuffer,
}

impl<W: Weight> Task<'_, W> {
    fn run(&mut self, level: Level, panels: &Panels, clip: &Clip, scratch: &mut Scratch) {
        let cols = panels.cols;
        let rows = self.weights.len() / cols;
        let lanes: usize = self.group.iter().map(|panel| panel.width).sum();
        scratch.weights.grow(BLOCK_ROWS * BLOCK_COLS);
        scratch.sums.grow(rows * lanes);
        let sums = &mut scratch.sums.as_mut_slice()[..rows * lanes];
        sums.fill(0.0);
        for start in (0..cols).step_by(BLOCK_COLS) {
            let range = start..cols.min(start + BLOCK_COLS);
            let (block, stride) = widened(level, self.weights, cols, range.clone(), &mut scratch.weights);
            let mut offset = 0;
            for panel in self.group {
                level.run(Accumulate {
                    weights: block,
                    stride,
                    rows,
                    panel: panels.columns(panel, range.clone()),
                    vectors: panel.vectors,
                    sums: &mut sums[offset..offset + rows * panel.width],
                });
                offset += rows * panel.width;
            }
        }
        level.run(Map(Function::Clamp(clip.output.0, clip.output.1), sums));
        self.write(rows, sums);
    }

    /// Turns `[rows, lanes]` into rows of the output.
    fn write(&mut self, rows: usize, sums: &[f32]) {
        let (mut offset, mut out) = (0, self.out.iter_mut());
        for panel in self.group {
            let sums = &sums[offset..offset + rows * panel.width];
            for (lane, out) in out.by_ref().take(panel.rows.len()).enumerate() {
                for (out, sums) in out.iter_mut().zip(sums.chunks_exact(panel.width)) {
                    *out = sums[lane];
                }
            }
            offset += rows * panel.width;
        }
    }
}

/// Columns `range` of all rows as f32, and how far apart the rows lie: in place if they are f32 already.
fn widened<'a, W: Weight>(
    level: Level,
    weights: &'a [W],
    cols: usize,
    range: std::ops::Range<usize>,
    scratch: &'a mut AlignedBuffer,
) -> (&'a [f32], usize) {
    if W::IS_F32 {
        return (&bytemuck::cast_slice(weights)[range.start..], cols);
    }
    for (row, target) in weights.chunks_exact(cols).zip(scratch.as_mut_slice().chunks_exact_mut(BLOCK_COLS)) {
        W::widen(level, &row[range.clone()], &mut target[..range.len()]);
    }
    (scratch.as_slice(), BLOCK_COLS)
}
