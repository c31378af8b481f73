//! How much arithmetic there is: fused multiply-adds on as many registers as the kernels of many rows keep sums in.

use super::Level;
use super::tile::{max_vectors, tile_rows};
use pulp::{Simd, WithSimd};
use std::hint::black_box;

/// Sums that grow side by side: enough that none waits for itself.
const SUMS: usize = tile_rows(32) * max_vectors(32);

/// Multiplies and adds in registers, `rounds` times each sum; says how many floating-point operations that were.
#[derive(Clone, Copy, Debug)]
pub struct MultiplyAdd {
    /// How often.
    pub rounds: usize,
}

impl MultiplyAdd {
    /// Runs on this thread.
    pub fn run(self, level: Level) -> u64 {
        level.run(self)
    }

    #[inline(always)]
    fn with_sums<S: Simd, const N: usize>(self, simd: S) -> u64 {
        // The sums go towards 2 and never leave the normal numbers.
        let (factor, term) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        let mut sums = [simd.splat_f32s(black_box(1.0)); N];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        let total = sums.into_iter().fold(term, |total, sum| simd.add_f32s(total, sum));
        black_box(simd.reduce_sum_f32s(total));
        2 * (self.rounds * N * S::F32_LANES) as u64
    }
}

impl WithSimd for MultiplyAdd {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        match S::REGISTER_COUNT {
            32.. => self.with_sums::<S, SUMS>(simd),
            _ => self.with_sums::<S, { SUMS / 2 }>(simd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_counts_two_operations_for_each_lane_of_each_sum() {
        for level in Level::all() {
            let operations = MultiplyAdd { rounds: 5 }.run(level);
            let per_sum = 2 * 5 * level.lanes() as u64;
            assert!([12, 24].map(|sums| sums * per_sum).contains(&operations), "{level:?}: {operations}");
        }
    }
}
