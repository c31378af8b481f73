//! The vocabulary of scheduling, in integers: no tensor and no device is known here.
//!
//! A [`Sequence`] is one request's tokens and how many of them the cache already holds. The [`Scheduler`] turns the
//! sequences it knows into a [`Plan`] for one step, and the [`BlockAllocator`] says which cache blocks are free.

pub mod blocks;
pub mod scheduler;
pub mod sequence;

pub use blocks::{BlockAllocator, BlockTable};
pub use scheduler::{Plan, PlannedChunk, Scheduler};
pub use sequence::{Sequence, SequenceId};

/// How many tokens one cache block holds.
pub const BLOCK_SIZE: usize = 16;
