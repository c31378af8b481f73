//! How to find a wrong number: [`dump`] writes every named tensor of one prefill, to be compared with another engine's.

pub mod dump;

pub use dump::{DumpOptions, DumpSummary, dump_prefill};
