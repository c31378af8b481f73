//! A library that stands in for NVIDIA's driver, cuBLAS, cuBLASLt and cuRAND: what a program puts on the device runs on the PTX
//! emulator, on a machine without a GPU. `scripts/emulate.sh` runs a command with it.
//!
//! It is stricter than a device. Work has run when the call that puts it on a stream returns, and its fault is what that call and
//! all later ones return. Yet nothing counts as done before the program has waited for it: two uses of memory without a wait in
//! between, a read of pinned memory before the copy to it was waited for, and calls that a capture forbids do not work by luck.
//! What fails says why on stderr.
//!
//! `abi/` has C's functions, a file for each kind; behind it stands [`driver::Driver`]. Of CUDA there is what candle and cudarc
//! call, and a little more; the rest is absent.
//!
//! Two variables of the environment: `PYREX_EMULATOR_MEMORY` is how many bytes the device has; with `PYREX_EMULATOR_REPORT` the
//! process tells at its end what is still allocated, what was counted and where the time went.
//! A test that wants the counts finds `pyrex_emulator_counters` in `libcuda.so.1`, by `dlopen` and `dlsym`: `report.rs` has what
//! it fills.

mod abi;
mod capture;
mod driver;
mod graph;
mod host;
mod libraries;
mod memory;
mod module;
mod order;
mod product;
mod report;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod work;
