//! Pseudo-random weights, the same at every load: real sizes can be measured without a download.
//!
//! Matrices are bf16 with a spread that keeps activations near one; norms lie around one.

use crate::error::{Error, Result};
use crate::ops::Matrix;
use crate::ops::matrix::SharedBytes;
use candle_core::DType;
use rayon::prelude::*;
use std::sync::Arc;

/// So many numbers follow from a state of their own.
const CHUNK_LEN: usize = 1 << 16;
/// What a state grows by.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// So many numbers, four in each word.
struct Halves(Vec<u64>, usize);

impl AsRef<[u8]> for Halves {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..2 * self.1]
    }
}

/// A bf16 matrix `[rows, cols]` whose numbers follow from `name` alone.
///
/// # Errors
/// `OutOfMemory` if it is too large.
pub fn matrix(name: &str, rows: usize, cols: usize) -> Result<Matrix> {
    let too_large =
        || Error::out_of_memory(format_args!("{name}: no memory for dummy weights of [{rows}, {cols}]"));
    let len = rows.checked_mul(cols).ok_or_else(too_large)?;
    let mut fours = Vec::new();
    fours.try_reserve_exact(len.div_ceil(4)).map_err(|_| too_large())?;
    let (seed, exponent) = (seed(name), exponent(cols));
    let four = |idx: usize| -> u64 {
        let (chunk_idx, idx) = (idx / (CHUNK_LEN / 4), idx % (CHUNK_LEN / 4));
        let start = seed.wrapping_add((chunk_idx as u64) << 32);
        let random = split_mix(&mut start.wrapping_add(STEP.wrapping_mul(idx as u64)));
        let bits = |at: u32| u64::from(bf16_bits((random >> at) as u16, exponent)) << at;
        bits(0) | bits(16) | bits(32) | bits(48)
    };
    // Every thread is the first that touches what it writes: one alone would wait for the pages longer than all compute.
    (0..len.div_ceil(4)).into_par_iter().with_min_len(CHUNK_LEN).map(four).collect_into_vec(&mut fours);
    let bytes: SharedBytes = Arc::new(Halves(fours, len));
    Matrix::from_bytes(bytes, 0..2 * len, DType::BF16, (rows, cols))
}

/// `len` numbers between 0.75 and 1.25 that follow from `name` alone.
pub fn vector(name: &str, len: usize) -> Vec<f32> {
    let mut state = seed(name);
    (0..len).map(|_| 0.75 + (split_mix(&mut state) >> 40) as f32 / (1u64 << 25) as f32).collect()
}

/// Any sign and mantissa, and one of two exponents: a magnitude between `2^(exponent - 1)` and `2^(exponent + 1)`.
fn bf16_bits(random: u16, exponent: u16) -> u16 {
    let lower = (random >> 8) & 1;
    (random & 0x8000) | ((exponent - lower) << 7) | (random & 0x7f)
}

/// The biased exponent of about `cols^-½`.
fn exponent(cols: usize) -> u16 {
    127 - (cols.max(1).ilog2() / 2) as u16
}

/// FNV-1a of the name.
fn seed(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(STEP);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
