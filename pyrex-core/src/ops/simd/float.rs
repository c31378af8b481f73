//! [`Float`]: the element types of activations and weights, widened to f32 and rounded back in bulk.

use super::Level;
use candle_core::WithDType;
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

/// An element type the kernels read: f32, bf16 or f16.
pub trait Float: WithDType {
    /// Whether rounding an f32 to this type and back loses nothing.
    const IS_F32: bool = false;

    /// Writes `source` as f32. Both must have the same length.
    fn widen(level: Level, source: &[Self], target: &mut [f32]);

    /// Rounds `source` to nearest even. Both must have the same length.
    fn narrow(level: Level, source: &[f32], target: &mut [Self]);

    /// Rounds `x` to this type and back, in place.
    fn round(level: Level, x: &mut [f32]);
}

impl Float for f32 {
    const IS_F32: bool = true;

    fn widen(_: Level, source: &[Self], target: &mut [f32]) {
        target.copy_from_slice(source);
    }

    fn narrow(_: Level, source: &[f32], target: &mut [Self]) {
        target.copy_from_slice(source);
    }

    fn round(_: Level, _: &mut [f32]) {}
}

impl Float for bf16 {
    fn widen(level: Level, source: &[Self], target: &mut [f32]) {
        level.run(WidenBf16(source, target));
    }

    fn narrow(level: Level, source: &[f32], target: &mut [Self]) {
        level.run(NarrowBf16(source, target));
    }

    fn round(level: Level, x: &mut [f32]) {
        level.run(RoundBf16(x));
    }
}

impl Float for f16 {
    fn widen(_: Level, source: &[Self], target: &mut [f32]) {
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(source, target);
    }

    fn narrow(_: Level, source: &[f32], target: &mut [Self]) {
        half::slice::HalfFloatSliceExt::convert_from_f32_slice(target, source);
    }

    fn round(_: Level, x: &mut [f32]) {
        for x in x {
            *x = f16::from_f32(*x).to_f32();
        }
    }
}

struct WidenBf16<'a>(&'a [bf16], &'a mut [f32]);

impl WithSimd for WidenBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (target, source) in self.1.iter_mut().zip(self.0) {
            *target = f32::from_bits(u32::from(source.to_bits()) << 16);
        }
    }
}

struct NarrowBf16<'a>(&'a [f32], &'a mut [bf16]);

impl WithSimd for NarrowBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (target, source) in self.1.iter_mut().zip(self.0) {
            *target = bf16::from_bits((rounded_bits(*source) >> 16) as u16);
        }
    }
}

struct RoundBf16<'a>(&'a mut [f32]);

impl WithSimd for RoundBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.0 {
            *x = f32::from_bits(rounded_bits(*x) & 0xffff_0000);
        }
    }
}

/// The bits of `x` with the upper half rounded to nearest even; a NaN stays one.
#[inline(always)]
fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}
