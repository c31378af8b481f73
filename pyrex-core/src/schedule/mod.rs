//! The vocabulary of scheduling, in integers: no tensor and no device is known here.

pub mod blocks;
pub mod scheduler;
pub mod sequence;
