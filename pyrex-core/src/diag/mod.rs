//! How to find a wrong number, and where the time goes.
//!
//! [`dump()`] writes every named tensor of a pass to disk; [`compare()`] puts two dumps side by side; [`bisect()`] runs a
//! model against a dump of the reference and names the stage, layer, operation and function that goes wrong first;
//! [`diff_logits`] says where two would go on with another token; [`html`] makes a page of either.
//! [`profile()`] times the operations of a pass.
//! Requests and devices are not known here; JSON is, inside the files of dumps.

pub mod bisect;
pub mod compare;
pub mod dump;
pub mod elements;
pub mod figures;
pub mod file;
mod grid;
pub mod html;
pub mod logits;
pub mod manifest;
pub mod pass;
pub mod profile;
pub mod writer;

pub use bisect::{Bisection, Finger, Share, Trace, WeightFinding, bisect};
pub use compare::{Compared, Comparison, Outcome, Threshold, compare};
pub use dump::{DumpInput, DumpOptions, dump};
pub use figures::{Figures, Verdict};
pub use file::DumpFile;
pub use logits::{Candidate, LogitsDiff, Position, diff_logits};
pub use manifest::{Manifest, Noise};
pub use profile::{
    Ceilings, GroupBy, MemoryReader, Profile, ProfileOptions, ProfilePhase, ProfileRow, profile,
};
pub use writer::DumpSummary;
