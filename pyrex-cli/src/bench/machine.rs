//! What the machine gives: how fast memory is read right now, and how much of it this process has held.

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Instant;

/// Memory to read, larger than any cache.
pub(super) struct Reader {
    words: Vec<u64>,
    num_threads: usize,
}

impl Reader {
    const BYTES: usize = 512 << 20;

    /// For as many threads, one per core if not given.
    pub(super) fn new(num_threads: Option<usize>) -> Self {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { words: vec![1; Self::BYTES / 8], num_threads: num_threads.unwrap_or_else(cores) }
    }

    /// Reads everything once, a part on each thread.
    pub(super) fn bytes_per_s(&self) -> f64 {
        let started = Instant::now();
        thread::scope(|scope| {
            for part in self.words.chunks(self.words.len().div_ceil(self.num_threads)) {
                scope.spawn(|| black_box(part.iter().fold(0, |sum, word| sum ^ word)));
            }
        });
        Self::BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

/// The most memory this process has held, where the system says so.
pub(super) fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
