//! Pseudo-random weights, the same at every load: real sizes can be measured without a download.
//!
//! Matrices are bf16 with a spread that keeps activations near one; norms lie around one.

use crate::error::{Error, Result};
use crate::ops::Matrix;
use crate::ops::matrix::SharedBytes;
use candle_core::DType;
use rayon::prelude::*;
use std::sync::Arc;

struct Halves(Vec<u16>);

impl AsRef<[u8]> for Halves {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
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
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| too_large())?;
    values.resize(len, 0u16);
    let (seed, exponent) = (seed(name), exponent(cols));
    values.par_chunks_mut(1 << 16).enumerate().for_each(|(chunk_idx, chunk)| {
        let mut state = seed.wrapping_add((chunk_idx as u64) << 32);
        for four in chunk.chunks_mut(4) {
            let mut random = split_mix(&mut state);
            for value in four {
                *value = bf16_bits(random as u16, exponent);
                random >>= 16;
            }
        }
    });
    let bytes: SharedBytes = Arc::new(Halves(values));
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
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
