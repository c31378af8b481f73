//! exp, tanh and tanh-GELU on whole vectors.

use pulp::{Simd, WithSimd};

/// Below this exp is less than the smallest normal f32 and becomes 0.
const EXP_LOW: f32 = -87.336_54;
/// Above this exp stays what it is here: it would overflow soon after.
const EXP_HIGH: f32 = 88.0;

/// `e^x` within 1.5 units in the last place; 0 below −87.34, `e^88` above 88, NaN for NaN.
///
/// Source: Cephes `expf`: `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, a polynomial in `r`, and `n` added to the exponent.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let underflows = simd.less_than_f32s(x, splat(EXP_LOW));
    let x = simd.select_f32s(simd.greater_than_f32s(x, splat(EXP_HIGH)), splat(EXP_HIGH), x);
    // Adding 1.5 · 2^23 leaves the rounded quotient in the low bits of the sum.
    let magic = splat(12_582_912.0);
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), magic);
    let n = simd.sub_f32s(shifted, magic);
    let r = simd.mul_add_e_f32s(n, splat(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, splat(2.121_944_4e-4), r);
    let mut p = splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.mul_add_e_f32s(p, r, splat(c));
    }
    let y = simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), r);
    let y = simd.add_f32s(y, splat(1.0));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(127 << 23)));
    simd.select_f32s(underflows, splat(0.0), simd.mul_f32s(y, power))
}

/// `tanh(x)` within 2 units in the last place.
///
/// Source: Cephes `tanhf`: an odd polynomial below 0.625, `1 − 2 / (e^2|x| + 1)` above.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let magnitude = simd.abs_f32s(x);
    let e = exp(simd, simd.add_f32s(magnitude, magnitude));
    let far = simd.sub_f32s(splat(1.0), simd.div_f32s(splat(2.0), simd.add_f32s(e, splat(1.0))));
    let sign = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(0x8000_0000));
    let far = simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(far), sign));
    let z = simd.mul_f32s(x, x);
    let mut p = splat(-5.704_988_7e-3);
    for c in [2.063_909e-2, -5.373_971_5e-2, 1.333_144_2e-1, -0.333_332_8] {
        p = simd.mul_add_e_f32s(p, z, splat(c));
    }
    let near = simd.mul_add_e_f32s(simd.mul_f32s(p, z), x, x);
    simd.select_f32s(simd.less_than_f32s(magnitude, splat(0.625)), near, far)
}

/// `½ x (1 + tanh u)` with `u = √(2/π) (x + 0.044715 x³)`, as `x / (1 + e^-2u)`: the same number, without the
/// cancellation of `1 + tanh` that costs the reference most of its digits below −2.
#[inline(always)]
pub fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let cube = simd.mul_f32s(simd.mul_f32s(x, x), x);
    let inner = simd.mul_add_e_f32s(cube, splat(0.044_715), x);
    // −2 √(2/π)
    let e = exp(simd, simd.mul_f32s(inner, splat(-1.595_769)));
    simd.div_f32s(x, simd.add_f32s(e, splat(1.0)))
}

/// A function applied to every element of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// [`exp`].
    Exp,
    /// [`tanh`].
    Tanh,
    /// [`gelu`].
    Gelu,
    /// Product with a number.
    Scale(f32),
    /// Quotient by a number.
    DivideBy(f32),
    /// Limits, lowest and highest.
    Clamp(f32, f32),
}

/// Applies a [`Function`] in place.
#[derive(Debug)]
pub struct Map<'a>(pub Function, pub &'a mut [f32]);

impl WithSimd for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(function, x) = self;
        match function {
            Function::Exp => map(
                simd,
                x,
                #[inline(always)]
                |x| exp(simd, x),
            ),
            Function::Tanh => map(
                simd,
                x,
                #[inline(always)]
                |x| tanh(simd, x),
            ),
            Function::Gelu => map(
                simd,
                x,
                #[inline(always)]
                |x| gelu(simd, x),
            ),
            Function::Scale(factor) => map(
                simd,
                x,
                #[inline(always)]
                |x| simd.mul_f32s(x, simd.splat_f32s(factor)),
            ),
            Function::DivideBy(divisor) => map(
                simd,
                x,
                #[inline(always)]
                |x| simd.div_f32s(x, simd.splat_f32s(divisor)),
            ),
            Function::Clamp(low, high) => map(
                simd,
                x,
                #[inline(always)]
                |x| clamp(simd, x, low, high),
            ),
        }
    }
}

#[inline(always)]
fn map<S: Simd>(simd: S, x: &mut [f32], f: impl Fn(S::f32s) -> S::f32s) {
    let (vectors, rest) = S::as_mut_simd_f32s(x);
    for x in vectors {
        *x = f(*x);
    }
    if !rest.is_empty() {
        let y = f(simd.partial_load_f32s(rest));
        simd.partial_store_f32s(rest, y);
    }
}

/// `min(max(x, low), high)`; a NaN stays one.
#[inline(always)]
pub fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    simd.select_f32s(simd.greater_than_f32s(x, high), high, x)
}

/// Multiplies the first slice by the second, element by element.
#[derive(Debug)]
pub struct Multiply<'a>(pub &'a mut [f32], pub &'a [f32]);

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, factor) in self.0.iter_mut().zip(self.1) {
            *x *= factor;
        }
    }
}

/// `Σ x²`, in several partial sums as a pairwise summation would hold them.
#[derive(Debug)]
pub struct SumOfSquares<'a>(pub &'a [f32]);

impl WithSimd for SumOfSquares<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (vectors, rest) = S::as_simd_f32s(self.0);
        let (groups, tail) = pulp::as_arrays::<4, _>(vectors);
        let mut sums = [simd.splat_f32s(0.0); 4];
        for group in groups {
            for (sum, &x) in sums.iter_mut().zip(group) {
                *sum = simd.mul_add_e_f32s(x, x, *sum);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(tail) {
            *sum = simd.mul_add_e_f32s(x, x, *sum);
        }
        let x = simd.partial_load_f32s(rest);
        sums[3] = simd.mul_add_e_f32s(x, x, sums[3]);
        let [a, b, c, d] = sums;
        simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
    }
}

/// Multiplies by a number, then by the weights if there are any.
#[derive(Debug)]
pub struct Normalize<'a> {
    /// The row.
    pub x: &'a mut [f32],
    /// The number.
    pub factor: f32,
    /// As long as the row.
    pub weight: Option<&'a [f32]>,
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, factor, weight } = self;
        match weight {
            Some(weight) => x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * factor * weight),
            None => x.iter_mut().for_each(|x| *x *= factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::Level;

    /// The greatest error of `function` over `x` in units of the last place of the true value.
    fn worst(level: Level, function: Function, x: &[f32], truth: impl Fn(f64) -> f64) -> f64 {
        let mut y = x.to_vec();
        level.run(Map(function, &mut y));
        let error = |(&x, &y): (&f32, &f32)| {
            let truth = truth(f64::from(x));
            let place = f64::from((truth as f32).abs().next_up()) - f64::from((truth as f32).abs());
            (f64::from(y) - truth).abs() / place
        };
        x.iter().zip(&y).map(error).fold(0.0, f64::max)
    }

    /// A million numbers from `low` to `high`.
    fn sweep(low: f64, high: f64) -> Vec<f32> {
        (0..=1_000_000).map(|i| (low + (high - low) * f64::from(i) / 1e6) as f32).collect()
    }

    /// Numbers of every magnitude up to `high`, of both signs.
    fn magnitudes(high: f32) -> Vec<f32> {
        let positive =
            (1..high.to_bits() >> 9).map(|bits| f32::from_bits(bits << 9)).filter(|x| x.is_normal());
        positive.flat_map(|x| [x, -x]).collect()
    }

    #[test]
    fn exp_is_within_one_and_a_half_units() {
        for level in Level::all() {
            for x in [sweep(-87.3, 88.0), sweep(-1.0, 1.0), magnitudes(80.0)] {
                assert!(worst(level, Function::Exp, &x, f64::exp) <= 1.5, "{level:?}");
            }
        }
    }

    #[test]
    fn tanh_is_within_two_units() {
        for level in Level::all() {
            for x in [sweep(-12.0, 12.0), sweep(-0.7, 0.7), magnitudes(100.0)] {
                assert!(worst(level, Function::Tanh, &x, f64::tanh) <= 2.0, "{level:?}");
            }
        }
    }

    #[test]
    fn gelu_keeps_its_digits_where_one_plus_tanh_cancels() {
        for level in Level::all() {
            let x = sweep(-8.0, 12.0);
            let mut y = x.clone();
            level.run(Map(Function::Gelu, &mut y));
            for (&x, &y) in x.iter().zip(&y) {
                let x = f64::from(x);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                let truth = x / (1.0 + (-2.0 * inner).exp());
                // The argument of exp, 2u, carries five roundings of half an epsilon, two of them in constants;
                // whatever it is off by, the value is off by in proportion.
                let bound = f64::from(f32::EPSILON) * truth.abs() * (3.0 + 5.0 * inner.abs());
                assert!((f64::from(y) - truth).abs() <= bound, "{level:?}: {x} gives {y}, expected {truth}");
            }
        }
    }

    #[test]
    fn edges_are_what_softmax_and_clamps_need() {
        let infinity = f32::INFINITY;
        for level in Level::all() {
            let mapped = |function, x: f32| {
                let mut y = [x; 17];
                level.run(Map(function, &mut y));
                assert!(
                    y.iter().all(|value| value.to_bits() == y[0].to_bits()),
                    "{level:?}: every lane alike"
                );
                y[0]
            };
            assert_eq!(mapped(Function::Exp, 0.0), 1.0);
            assert_eq!(mapped(Function::Exp, -infinity), 0.0);
            assert_eq!(mapped(Function::Exp, -88.0), 0.0);
            assert!(mapped(Function::Exp, infinity).is_finite());
            assert_eq!(mapped(Function::Tanh, infinity), 1.0);
            assert_eq!(mapped(Function::Tanh, -infinity), -1.0);
            assert_eq!(mapped(Function::Tanh, 0.0), 0.0);
            assert!(mapped(Function::Gelu, -100.0).abs() < f32::MIN_POSITIVE * 1e3);
            assert_eq!(mapped(Function::Gelu, 100.0), 100.0);
            assert_eq!(mapped(Function::Clamp(-1.0, 2.0), infinity), 2.0);
            assert_eq!(mapped(Function::Clamp(-1.0, 2.0), -infinity), -1.0);
            for function in [Function::Exp, Function::Tanh, Function::Gelu, Function::Clamp(-1.0, 2.0)] {
                assert!(mapped(function, f32::NAN).is_nan(), "{level:?}: {function:?} of NaN");
            }
        }
    }

    #[test]
    fn sum_of_squares_of_any_length() {
        for level in Level::all() {
            for len in [0, 1, 15, 16, 17, 63, 64, 65, 200] {
                let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let n = len as f32 - 1.0;
                let wanted = n * (n + 1.0) * (2.0 * n + 1.0) / 6.0;
                assert_eq!(level.run(SumOfSquares(&x)), wanted.max(0.0), "{level:?}: {len}");
            }
        }
    }
}
