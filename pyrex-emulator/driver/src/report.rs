//! What the process did with the device, for tests and whoever wants to know where the time goes.

use pyrex_emulator::Report as LaunchReport;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// Counts since the process began. Grows at its end: who reads it says how many bytes it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Counters {
    /// Kernels that ran, those of graphs among them.
    pub(crate) launches: u64,
    /// Graphs that ran.
    pub(crate) graph_launches: u64,
    /// Matrix products of cuBLAS and cuBLASLt.
    pub(crate) products: u64,
    /// How often the program waited: for a stream, an event, all, or a copy to memory that is not pinned.
    pub(crate) synchronizations: u64,
    /// Copies from and to memory that is not pinned.
    pub(crate) pageable_copies: u64,
    /// Allocations of device memory, those of graphs among them.
    pub(crate) allocations: u64,
    /// Bytes that were copied from and to the program's memory.
    pub(crate) bytes_to_device: u64,
    pub(crate) bytes_to_host: u64,
    /// What is allocated now.
    pub(crate) live_allocations: u64,
    pub(crate) live_bytes: u64,
    /// Sums over all launches of what the emulator counts.
    pub(crate) instructions: u64,
    pub(crate) sectors_read: u64,
    pub(crate) sectors_written: u64,
}

/// The counts, and where the time went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counters: Counters,
    kernels: HashMap<Arc<str>, (u64, Duration, u64)>,
}

impl Report {
    /// Notes that a kernel ran.
    pub(crate) fn launched(&mut self, kernel: &Arc<str>, took: Duration, report: &LaunchReport) {
        self.counters.launches += 1;
        self.counters.instructions += report.instructions;
        self.counters.sectors_read += report.sectors_read;
        self.counters.sectors_written += report.sectors_written;
        let (launches, time, instructions) = self.kernels.entry(Arc::clone(kernel)).or_default();
        *launches += 1;
        *time += took;
        *instructions += report.instructions;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { live_allocations, live_bytes, .. } = self.counters;
        writeln!(
            f,
            "{live_allocations} allocations of {live_bytes} bytes were not freed; {:?}",
            self.counters
        )?;
        let mut kernels: Vec<_> = self.kernels.iter().collect();
        kernels.sort_by_key(|(_, (_, time, _))| std::cmp::Reverse(*time));
        for (kernel, (launches, time, instructions)) in kernels {
            let mut line = String::new();
            write!(
                line,
                "{:>9.3} s  {launches:>7} launches  {instructions:>12} instructions  {kernel}",
                time.as_secs_f64()
            )?;
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
