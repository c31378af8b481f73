//! libpyrex: the engine for C and C++.
//!
//! Users read `include/pyrex.h`, which is generated from these files: every comment on something public is a comment of the
//! header, and says who owns what, what blocks, and what is written on failure. The rules that hold everywhere stand at the
//! head of the header, in `cbindgen.toml`; each `SAFETY` note here rests on them.
//!
//! The shape of every function: [`guard`] turns what goes wrong into a [`status`]; [`abi`] turns pointers into references and
//! text; the body is safe Rust. Nothing is decided here that the core has not decided.
//!
//! Read on in [`engine`], [`prompt`], [`request`].

// C's names, and C's rules on safety, which the header states once for all.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

pub mod abi;
mod callback;
pub mod diag;
pub mod engine;
pub mod event;
pub mod files;
mod guard;
pub mod log;
pub mod options;
pub mod prompt;
pub mod request;
pub mod sampling;
pub mod signal;
pub mod stats;
pub mod status;
pub mod text;
pub mod version;
