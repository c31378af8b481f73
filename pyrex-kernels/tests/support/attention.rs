//! A batch over a paged cache in which nothing is written but what its rows see, and attention to it as its formula says.

#![allow(dead_code, reason = "each test uses its own half")]

use crate::support::{Emulated, noise};
use pyrex_emulator::Report;
use pyrex_kernels::attention::Paged;
use pyrex_kernels::{Element, Launch, Queue, Result};
use std::cell::RefCell;
use std::ops::Range;

/// What is asked, and of what cache.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) element: Element,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_size: usize,
    pub(crate) window: Option<usize>,
    pub(crate) scale: f32,
    /// Of each sequence its keys, and how many of the last ones ask.
    pub(crate) sequences: Vec<Sequence>,
    /// Entries of a table, beyond the longest sequence's.
    pub(crate) spare_blocks: usize,
}

/// `len` keys, of which the last `rows` ask; what they hold follows from `seed`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) len: usize,
    pub(crate) rows: usize,
    pub(crate) seed: u64,
}

/// Queries, keys and values of one sequence.
struct Numbers {
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    pub(crate) fn new(element: Element, (heads, kv_heads, head_dim): (usize, usize, usize)) -> Self {
        Self {
            element,
            heads,
            kv_heads,
            head_dim,
            block_size: 16,
            window: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            sequences: Vec::new(),
            spare_blocks: 3,
        }
    }

    /// With sequences of so many keys, of which so many ask.
    pub(crate) fn of(mut self, sequences: &[(usize, usize)]) -> Self {
        let numbered = sequences.iter().enumerate();
        self.sequences =
            numbered.map(|(i, &(len, rows))| Sequence { len, rows, seed: 100 + i as u64 * 10 }).collect();
        self
    }

    pub(crate) fn windowed(mut self, window: usize) -> Self {
        self.window = Some(window);
        self
    }

    pub(crate) fn scaled(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    pub(crate) fn in_blocks_of(mut self, block_size: usize) -> Self {
        self.block_size = block_size;
        self
    }

    /// One sequence of this case, with a table of another length.
    pub(crate) fn alone(&self, index: usize, spare_blocks: usize) -> Self {
        Self { sequences: vec![self.sequences[index]], spare_blocks, ..self.clone() }
    }

    fn numbers(&self, sequence: &Sequence) -> Numbers {
        let keys_len = sequence.len * self.kv_heads * self.head_dim;
        Numbers {
            q: noise(self.element, sequence.rows * self.heads * self.head_dim, sequence.seed),
            keys: noise(self.element, keys_len, sequence.seed + 1),
            values: noise(self.element, keys_len, sequence.seed + 2),
        }
    }

    /// The keys that the row at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }

    fn rows(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.rows).sum()
    }

    /// What attention is, in f64.
    pub(crate) fn wanted(&self) -> Vec<f64> {
        let mut wanted = Vec::new();
        for sequence in &self.sequences {
            let numbers = self.numbers(sequence);
            for row in 0..sequence.rows {
                let seen = self.seen(sequence.len - sequence.rows + row);
                for head in 0..self.heads {
                    let q = &numbers.q[(row * self.heads + head) * self.head_dim..][..self.head_dim];
                    let kv_head = head / (self.heads / self.kv_heads);
                    wanted.extend(attend(q, &numbers, seen.clone(), (kv_head, self.kv_heads), self.scale));
                }
            }
        }
        wanted
    }

    /// Puts all on the device: blocks lie in no order, and slots and entries of tables that no row needs are not written.
    pub(crate) fn upload<'a>(&self, queue: &'a Emulated) -> Paged<'a> {
        let longest = self.sequences.iter().map(|sequence| sequence.len).max().unwrap_or(0);
        let table_len = longest.div_ceil(self.block_size) + self.spare_blocks;
        let blocks = self.sequences.len() * table_len;
        let slot_len = self.kv_heads * self.head_dim;
        let pool = || queue.unwritten(self.element, (blocks + 1) * self.block_size * slot_len);
        let (keys, values) = (pool(), pool());
        let block_tables = queue.unwritten(Element::U32, blocks);
        let (mut q, mut starts, mut positions) = (Vec::new(), vec![0], Vec::new());
        for (index, sequence) in self.sequences.iter().enumerate() {
            let numbers = self.numbers(sequence);
            let first_row = sequence.len - sequence.rows;
            let seen = if sequence.rows == 0 { 0..0 } else { self.seen(first_row).start..sequence.len };
            for key in seen {
                let entry = index * table_len + key / self.block_size;
                let block = permuted(entry, blocks);
                queue.fill(queue.part(block_tables, entry, 1), &[block as f32]);
                let slot = block * self.block_size + key % self.block_size;
                let of_key = key * slot_len..(key + 1) * slot_len;
                queue.fill(queue.part(keys, slot * slot_len, slot_len), &numbers.keys[of_key.clone()]);
                queue.fill(queue.part(values, slot * slot_len, slot_len), &numbers.values[of_key]);
            }
            q.extend(numbers.q);
            positions.extend((first_row..sequence.len).map(|position| position as u32));
            starts.push(positions.len() as u32);
        }
        Paged {
            q: queue.upload(self.element, &q),
            keys,
            values,
            block_tables,
            query_start: queue.upload_u32(&starts),
            positions: queue.upload_u32(&positions),
            out: queue.unwritten(self.element, self.rows() * self.heads * self.head_dim),
            sequences: 0..self.sequences.len(),
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            window: self.window,
            scale: self.scale,
        }
    }

    /// What the keys and values that a row needs take in memory, of all rows together.
    pub(crate) fn bytes_seen(&self) -> u64 {
        let rows = self.sequences.iter().filter(|sequence| sequence.rows == 1);
        let keys: usize = rows.map(|sequence| self.seen(sequence.len - 1).len()).sum();
        (keys * self.kv_heads * self.head_dim * self.element.size() * 2) as u64
    }
}

/// A queue of the emulator whose device may have fewer multiprocessors, so that parts are longer, and that notes what each launch did.
pub(crate) struct Noting<'a> {
    queue: &'a Emulated,
    multiprocessors: u32,
    reports: RefCell<Vec<Report>>,
}

impl<'a> Noting<'a> {
    pub(crate) fn new(queue: &'a Emulated, multiprocessors: u32) -> Self {
        Self { queue, multiprocessors, reports: RefCell::default() }
    }

    pub(crate) fn reports(self) -> Vec<Report> {
        self.reports.into_inner()
    }
}

impl Queue for Noting<'_> {
    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.queue.launch(launch)?;
        self.reports.borrow_mut().push(self.queue.report());
        Ok(())
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn max_shared_bytes(&self) -> u32 {
        self.queue.max_shared_bytes()
    }
}

/// A number below `len` that no other `index` below `len` has.
fn permuted(index: usize, len: usize) -> usize {
    (index * 7919 + 13) % len.max(1)
}

fn attend(
    q: &[f32],
    numbers: &Numbers,
    seen: Range<usize>,
    (kv_head, kv_heads): (usize, usize),
    scale: f32,
) -> Vec<f64> {
    let row = |of: &[f32], key: usize| -> Vec<f64> {
        let first = (key * kv_heads + kv_head) * q.len();
        of[first..first + q.len()].iter().map(|number| f64::from(*number)).collect()
    };
    let scores: Vec<f64> = seen
        .clone()
        .map(|key| {
            let products = q.iter().zip(row(&numbers.keys, key)).map(|(q, k)| f64::from(*q) * k);
            f64::from(scale) * products.sum::<f64>()
        })
        .collect();
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
    let denominator: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (key, weight) in seen.zip(weights) {
        for (out, value) in out.iter_mut().zip(row(&numbers.values, key)) {
            *out += weight / denominator * value;
        }
    }
    out
}

/// How far attention may lie from its formula. In f32 there are sums of at most 512 products behind each score, of about 1e-6 when
/// scores are large; in bf16 the result's own rounding is 1.7e-3 and nothing else may add much to it.
pub(crate) fn bound(element: Element) -> f64 {
    match element {
        Element::F32 => 5e-6,
        _ => 2e-3,
    }
}

/// A buffer's numbers as bits, to compare.
pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}
