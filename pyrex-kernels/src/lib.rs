//! CUDA kernels, and the launchers that check what they are called with.
//!
//! Each kernel is a pair of files: `x.cu` beside `x.rs`, and `x.ptx`, which `make kernels` writes. A launcher takes [`Buffer`]s
//! and sizes, holds them to what the kernel was written for, and puts a [`Launch`] on a [`Queue`]: a stream of a device, or the
//! emulator that the tests run the same PTX on. Nothing here knows tensors, weights or models.

mod buffer;
mod error;
mod few_rows;
mod launch;
mod many_rows;
mod paged_decode;
mod paged_prefill;
mod rows;
mod segment_attention;
mod split_f32;

pub mod attention;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod elementwise;
pub mod gather;
pub mod gelu;
pub mod gemm;
pub mod norm;
pub mod pool;
pub mod products;
pub mod rope;
pub mod sampling;

pub use buffer::{Buffer, Element};
pub use error::{Error, Result};
pub use launch::{Argument, Launch, Module, Queue};
