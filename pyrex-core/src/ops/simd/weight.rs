//! [`Weight`]: the element types of weights, widened in registers.
//!
//! 16-bit weights are read as pairs in 32-bit words: shifts and masks split a word vector into its even and its odd
//! elements, and what they are multiplied with lies in the same order beforehand.

use super::float::Float;
use half::{bf16, f16};
use pulp::Simd;

/// An element type of weights.
pub trait Weight: Float + bytemuck::Pod {
    /// Whether a vector load splits into even and odd elements.
    const PAIRS: bool;

    /// The two vectors of one step. `bytes`: exactly two vectors of elements.
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2];
}

impl Weight for f32 {
    const PAIRS: bool = false;

    #[inline(always)]
    fn load<S: Simd>(_: S, bytes: &[u8]) -> [S::f32s; 2] {
        let (first, second) = bytes.split_at(size_of::<S::f32s>());
        [bytemuck::pod_read_unaligned(first), bytemuck::pod_read_unaligned(second)]
    }
}

impl Weight for bf16 {
    const PAIRS: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2] {
        let words: S::u32s = bytemuck::pod_read_unaligned(bytes);
        let even = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16));
        let odd = simd.and_u32s(words, simd.splat_u32s(0xffff_0000));
        [simd.transmute_f32s_u32s(even), simd.transmute_f32s_u32s(odd)]
    }
}

impl Weight for f16 {
    const PAIRS: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [S::f32s; 2] {
        let words: S::u32s = bytemuck::pod_read_unaligned(bytes);
        let odd = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(16));
        [widen_f16(simd, words), widen_f16(simd, odd)]
    }
}

/// The lower halves of `words`, as f16. The exponent is rebased by a product with `2^112`, which is exact.
#[inline(always)]
fn widen_f16<S: Simd>(simd: S, words: S::u32s) -> S::f32s {
    let magnitude = simd.and_u32s(words, simd.splat_u32s(0x7fff));
    let magnitude = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(magnitude, simd.splat_u32s(13)));
    let finite = simd.mul_f32s(magnitude, simd.splat_f32s(f32::from_bits(0x7780_0000)));
    let infinite = simd.or_u32s(simd.transmute_u32s_f32s(magnitude), simd.splat_u32s(0x7f80_0000));
    let is_finite = simd.less_than_f32s(magnitude, simd.splat_f32s(f32::from_bits(0x0f80_0000)));
    let value = simd.select_f32s(is_finite, finite, simd.transmute_f32s_u32s(infinite));
    let sign = simd.wrapping_dyn_shl_u32s(simd.and_u32s(words, simd.splat_u32s(0x8000)), simd.splat_u32s(16));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(value), sign))
}
