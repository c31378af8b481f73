//! Attention on the CPU: tiles of queries over tiles of keys, with an online softmax and no matrix of scores.

use crate::ops::simd::attend::{Attend, KEY_TILE, Lanes, Softmax};
use crate::ops::simd::tile::Panel;
use crate::ops::simd::weight::Weight;
use crate::ops::simd::{AlignedBuffer, Level};
use rayon::prelude::*;
use std::ops::Range;

/// Keys a task must at least have before those of one tile are shared out: long against a fork and a join.
const MIN_TASK_KEYS: usize = 256;

/// Keys and values, `[slots, K, D]` each.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a, T> {
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
    pub(super) heads: usize,
    pub(super) head_dim: usize,
}

/// Where key `j` of a sequence lies.
#[derive(Clone, Copy)]
pub(super) enum Slots<'a> {
    /// `start + j`.
    From(usize),
    /// In block `j / block_size` of the table.
    Blocks { table: &'a [u32], block_size: usize },
}

impl Slots<'_> {
    fn slot(self, key: usize) -> usize {
        match self {
            Self::From(start) => start + key,
            Self::Blocks { table, block_size } => {
                table[key / block_size] as usize * block_size + key % block_size
            }
        }
    }
}

/// One query head of one token.
pub(super) struct Query<'a> {
    pub(super) row: &'a [f32],
    /// The keys it sees.
    pub(super) seen: Range<usize>,
    pub(super) out: &'a mut [f32],
}

/// The queries that share the keys of one sequence and head.
pub(super) struct Group<'a> {
    pub(super) slots: Slots<'a>,
    pub(super) kv_head: usize,
    pub(super) queries: Vec<Query<'a>>,
}

/// Attends all groups. Every key a query sees must lie in the cache.
pub(super) fn attend<T: Weight>(level: Level, cache: Cache<'_, T>, scale: f32, groups: &mut [Group<'_>]) {
    let mut tiles = Vec::new();
    for group in groups {
        let mut rest = &mut group.queries[..];
        for panel in Panel::split(level, rest.len()) {
            let (queries, tail) = rest.split_at_mut(panel.rows.len());
            tiles.push(Tile { panel, slots: group.slots, kv_head: group.kv_head, queries });
            rest = tail;
        }
    }
    let threads = rayon::current_num_threads();
    let parts = if tiles.len() < 2 * threads { threads } else { 1 };
    tiles.par_iter_mut().for_each(|tile| tile.run(level, cache, scale, parts));
}

/// As many queries of a group as one panel holds.
struct Tile<'a, 'b> {
    panel: Panel,
    slots: Slots<'b>,
    kv_head: usize,
    queries: &'a mut [Query<'b>],
}

impl Tile<'_, '_> {
    fn run<T: Weight>(&mut self, level: Level, cache: Cache<'_, T>, scale: f32, parts: usize) {
        let queries = self.queries.iter().map(|query| (query.row, query.seen.clone()));
        let lanes = Lanes::new(&self.panel, cache.head_dim, queries);
        let seen = lanes.seen_by_any.clone();
        let part_len = seen.len().div_ceil(parts).max(MIN_TASK_KEYS);
        let reader = Reader { cache, slots: self.slots, kv_head: self.kv_head };
        let parts: Vec<Softmax> = (seen.start..seen.end)
            .into_par_iter()
            .step_by(part_len)
            .map(|start| reader.see(level, &lanes, start..seen.end.min(start + part_len), scale))
            .collect();
        let mut parts = parts.into_iter();
        let Some(mut softmax) = parts.next() else { return };
        parts.for_each(|part| softmax.merge(&part));
        for (lane, query) in self.queries.iter_mut().enumerate() {
            softmax.write(lane, query.out);
        }
    }
}

/// One head of one sequence's keys and values.
#[derive(Clone, Copy)]
struct Reader<'a, T> {
    cache: Cache<'a, T>,
    slots: Slots<'a>,
    kv_head: usize,
}

impl<T: Weight> Reader<'_, T> {
    /// What the queries make of `keys`.
    fn see(&self, level: Level, lanes: &Lanes, keys: Range<usize>, scale: f32) -> Softmax {
        let mut softmax = Softmax::new(lanes, self.cache.head_dim);
        let (mut key_scratch, mut value_scratch) = (AlignedBuffer::default(), AlignedBuffer::default());
        for first_key in keys.clone().step_by(KEY_TILE) {
            let tile = first_key..keys.end.min(first_key + KEY_TILE);
            let keys = self.rows(level, self.cache.keys, tile.clone(), &mut key_scratch);
            let values = self.rows(level, self.cache.values, tile, &mut value_scratch);
            level.run(Attend {
                lanes,
                first_key,
                keys: &keys,
                values: &values,
                scale,
                softmax: &mut softmax,
            });
        }
        softmax
    }

    /// The rows of some keys: in place if they are f32, widened into `scratch` otherwise.
    fn rows<'s>(
        &'s self,
        level: Level,
        pool: &'s [T],
        keys: Range<usize>,
        scratch: &'s mut AlignedBuffer,
    ) -> Vec<&'s [f32]> {
        let head_dim = self.cache.head_dim;
        let row = |key| {
            let offset = (self.slots.slot(key) * self.cache.heads + self.kv_head) * head_dim;
            &pool[offset..offset + head_dim]
        };
        if T::IS_F32 {
            return keys.map(|key| bytemuck::cast_slice(row(key))).collect();
        }
        scratch.grow(KEY_TILE * head_dim);
        for (key, target) in keys.clone().zip(scratch.as_mut_slice().chunks_exact_mut(head_dim)) {
            T::widen(level, row(key), target);
        }
        scratch.as_slice().chunks_exact(head_dim).take(keys.len()).collect()
    }
}
