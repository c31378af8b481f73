//! Runs PTX on a CPU, as a GPU would and more strictly: a read or write outside of what is allocated, a misaligned one, a read of
//! what nobody wrote, a race in shared memory and a barrier that not all threads reach are errors here.
//!
//! For the tests of kernels only: it is slow, and knows the instructions that nvcc writes for the kernels of Pyrex and candle.
//!
//! A [`Module`] is text cut into functions; a kernel is decoded when it is first launched (`decode/`): registers become numbers,
//! called functions stand where they are called. A [`Device`] runs a block after another (`block.rs`), a warp after another
//! (`warp.rs`), and an instruction for all lanes of a warp at once (`exec/`; what it computes is in `ops/`). What is strict is in
//! `memory.rs` and `between_blocks.rs`, `shared.rs` and `within_block.rs`.

mod between_blocks;
mod block;
mod decode;
mod device;
mod exec;
mod fault;
mod fragment;
mod host;
mod kernel;
mod lanes;
mod lexer;
mod memory;
mod module;
mod ops;
mod report;
mod shared;
mod syntax;
mod types;
mod warp;
mod within_block;

pub use device::{Device, LaunchShape};
pub use fault::Fault;
pub use memory::Use;
pub use module::{KernelInfo, Module};
pub use report::Report;
