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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::weight::Weight;

    #[test]
    fn every_bf16_and_f16_widens_exactly() {
        for level in Level::all() {
            let mut wide = vec![0.0; 1 << 16];
            let bf16s: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
            bf16::widen(level, &bf16s, &mut wide);
            assert!(
                bf16s
                    .iter()
                    .zip(&wide)
                    .all(|(x, y)| x.to_f32().to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
            );
            let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
            f16::widen(level, &f16s, &mut wide);
            assert!(f16s.iter().zip(&wide).all(|(x, y)| x.to_f32() == *y || x.is_nan() && y.is_nan()));
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        let edges =
            [0x3f80_8000u32, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x7f7f_ffff, 0x8000_0000, 0x0000_8001];
        let mut x: Vec<f32> = edges.into_iter().map(f32::from_bits).collect();
        x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN]);
        x.extend((0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(42_949))));
        for level in Level::all() {
            let mut narrow = vec![bf16::ZERO; x.len()];
            bf16::narrow(level, &x, &mut narrow);
            let mut rounded = x.clone();
            bf16::round(level, &mut rounded);
            for ((x, narrow), rounded) in x.iter().zip(&narrow).zip(&rounded) {
                let wanted = bf16::from_f32(*x);
                assert_eq!(narrow.to_bits(), wanted.to_bits(), "{level:?}: {x:e}");
                assert_eq!(rounded.to_bits(), wanted.to_f32().to_bits(), "{level:?}: {x:e}");
            }
        }
    }

    struct Load<'a, W>(&'a [u8], &'a mut Vec<f32>, std::marker::PhantomData<W>);

    impl<W: Weight> WithSimd for Load<'_, W> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for bytes in self.0.chunks_exact(2 * S::F32_LANES * size_of::<W>()) {
                let [even, odd] = W::load(simd, bytes);
                let (even, odd) = ([even], [odd]);
                let (even, odd): (&[f32], &[f32]) = (bytemuck::cast_slice(&even), bytemuck::cast_slice(&odd));
                self.1.extend(even.iter().zip(odd).flat_map(|(a, b)| [a, b]));
            }
        }
    }

    #[test]
    fn pairs_widen_exactly_in_registers() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        for level in Level::all() {
            let mut wide = Vec::new();
            level.run(Load::<f16>(bytemuck::cast_slice(&bits), &mut wide, std::marker::PhantomData));
            assert_eq!(wide.len(), bits.len());
            for (&bits, &wide) in bits.iter().zip(&wide) {
                let wanted = f16::from_bits(bits).to_f32();
                assert!(
                    wanted.to_bits() == wide.to_bits() || wanted.is_nan() && wide.is_nan(),
                    "{level:?}: {bits:#x}"
                );
            }
        }
    }
}
