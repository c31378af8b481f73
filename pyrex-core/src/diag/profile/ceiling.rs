//! [`Ceilings`]: the most a machine gives, measured: multiply-adds in registers, and memory read in order.

use super::cost::Cost;
use crate::ops::simd::Level;
use crate::ops::simd::peak::MultiplyAdd;
use crate::ops::threads::num_cores;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// What no operation can exceed, as long as its weights come from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations per second in f32, a multiply-add counting as two.
    pub flops_per_s: f64,
    /// Bytes per second of reading memory.
    pub bytes_per_s: f64,
}

/// Which ceiling an operation would reach first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The arithmetic.
    Arithmetic,
    /// The memory.
    Memory,
}

impl Ceilings {
    /// The time that `cost` takes at the least, and what it is bound by.
    pub fn ideal_ms(&self, cost: Cost) -> (f64, Bound) {
        let arithmetic = cost.flops as f64 / self.flops_per_s * 1e3;
        let memory = cost.bytes as f64 / self.bytes_per_s * 1e3;
        if arithmetic > memory { (arithmetic, Bound::Arithmetic) } else { (memory, Bound::Memory) }
    }
}

impl Bound {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Memory => "memory",
        }
    }
}

/// Measures the ceilings again and again, and keeps the highest: other work on the machine only ever lowers them.
pub(super) struct Gauge {
    memory: MemoryReader,
    best: Ceilings,
}

impl Gauge {
    /// For the threads of the pool that this runs in.
    pub(super) fn new() -> Self {
        let num_threads = rayon::current_num_threads();
        Self { memory: MemoryReader::new(Some(num_threads)), best: Ceilings::default() }
    }

    /// Measures once, with the threads of the pool that this runs in.
    pub(super) fn read(&mut self) {
        let best = &mut self.best;
        best.flops_per_s = best.flops_per_s.max(flops_per_s());
        best.bytes_per_s = best.bytes_per_s.max(self.memory.bytes_per_s());
    }

    /// The highest so far.
    pub(super) fn best(&self) -> Ceilings {
        self.best
    }
}

/// What all threads of the pool multiply and add in a moment.
fn flops_per_s() -> f64 {
    const MOMENT: Duration = Duration::from_millis(30);
    const ROUNDS: usize = 4096;
    let rates = rayon::broadcast(|_| {
        let (started, mut operations) = (Instant::now(), 0);
        while started.elapsed() < MOMENT {
            operations += MultiplyAdd { rounds: ROUNDS }.run(Level::Widest);
        }
        operations as f64 / started.elapsed().as_secs_f64()
    });
    rates.into_iter().sum()
}

/// Memory to read, larger than any cache: how fast it is read changes with whatever else the machine does.
#[derive(Debug)]
pub struct MemoryReader {
    words: Vec<u64>,
    num_threads: usize,
}

impl MemoryReader {
    const BYTES: usize = 512 << 20;

    /// For as many threads, one per core if not given.
    pub fn new(num_threads: Option<usize>) -> Self {
        let num_threads = num_threads.unwrap_or_else(num_cores);
        Self { words: vec![1; Self::BYTES / 8], num_threads }
    }

    /// Reads everything once, a part on each thread; returns bytes per second.
    pub fn bytes_per_s(&self) -> f64 {
        let started = Instant::now();
        thread::scope(|scope| {
            for part in self.words.chunks(self.words.len().div_ceil(self.num_threads)) {
                scope.spawn(|| black_box(part.iter().fold(0, |sum, word| sum ^ word)));
            }
        });
        Self::BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_ceiling_bounds() {
        let ceilings = Ceilings { flops_per_s: 100e9, bytes_per_s: 10e9 };
        let cost = |flops, bytes| Cost { flops, bytes, weight_bytes: 0 };
        assert_eq!(ceilings.ideal_ms(cost(1_000_000_000, 50_000_000)), (10.0, Bound::Arithmetic));
        assert_eq!(ceilings.ideal_ms(cost(1_000_000_000, 200_000_000)), (20.0, Bound::Memory));
        assert_eq!(ceilings.ideal_ms(cost(0, 0)), (0.0, Bound::Memory));
    }

    #[test]
    fn two_threads_multiply_more_than_none() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        assert!(pool.install(flops_per_s) > 0.0);
    }
}
