//! Pyrex turns text and images into a stream of tokens inside your process.

#![deny(unsafe_code)]

pub mod batch;
pub mod diag;
pub mod engine;
pub mod error;
pub mod kv;
pub mod models;
pub mod nn;
pub mod ops;
pub mod prompt;
pub mod schedule;
pub mod trace;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
