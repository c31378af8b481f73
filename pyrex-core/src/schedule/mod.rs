//! The vocabulary of scheduling, in integers: no tensor and no device is known here.
//!
//! A [`Sequence`] is one completion's tokens and how many of them the cache already holds. The [`Scheduler`] turns the
//! sequences it knows into a [`Plan`] for one step. The [`BlockCache`] says what each of them holds of the paged cache, and
//! finds prefixes that it remembers; the [`BlockAllocator`] underneath counts the holders of each block.

pub mod blocks;
pub mod cache;
pub mod prefix;
pub mod scheduler;
pub mod sequence;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod simulation;

pub use blocks::{BlockAllocator, Reuse};
pub use cache::{BlockCache, BlockCopy, BlockCounts, Lease, most_blocks};
pub use prefix::{Digest, Digests};
pub use scheduler::{Plan, PlannedChunk, Scheduler, SchedulerCounts, StepLimits};
pub use sequence::{ImageSpan, Sequence, SequenceId};

/// How many tokens one cache block holds.
pub const BLOCK_SIZE: usize = 16;
