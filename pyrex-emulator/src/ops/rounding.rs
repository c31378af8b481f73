//! Rounding once: results are computed exactly, or with what is missing known, and then rounded to the type asked for.

use half::{bf16, f16};

/// Which of the two neighbours is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// The nearest, ties to even.
    Nearest,
    /// That towards zero.
    Zero,
    /// The lower.
    Down,
    /// The upper.
    Up,
}

impl Rounding {
    /// The one that a modifier names, as `.rn`, or for integers as `.rni`.
    pub(crate) fn named(modifier: &str) -> Option<Self> {
        Some(match modifier {
            "rn" | "rni" => Self::Nearest,
            "rz" | "rzi" => Self::Zero,
            "rm" | "rmi" => Self::Down,
            "rp" | "rpi" => Self::Up,
            _ => return None,
        })
    }

    /// `x` as an integer.
    pub(crate) fn integral(self, x: f64) -> f64 {
        match self {
            Self::Nearest => x.round_ties_even(),
            Self::Zero => x.trunc(),
            Self::Down => x.floor(),
            Self::Up => x.ceil(),
        }
    }

    /// `x` as f32.
    pub(crate) fn f32(self, x: f64) -> f32 {
        let near = x as f32;
        let wide = f64::from(near);
        let down = match self {
            Self::Nearest => return near,
            Self::Zero => x > 0.0,
            Self::Down => true,
            Self::Up => false,
        };
        match down {
            true if wide > x => near.next_down(),
            false if wide < x => near.next_up(),
            _ => near,
        }
    }

    /// The exact `sum + rest`, of which `sum` is the nearest f64, as f64.
    pub(crate) fn f64(self, (sum, rest): (f64, f64)) -> f64 {
        let down = match self {
            Self::Nearest => return sum,
            Self::Zero => sum > 0.0,
            Self::Down => true,
            Self::Up => false,
        };
        match down {
            true if rest < 0.0 => sum.next_down(),
            false if rest > 0.0 => sum.next_up(),
            _ => sum,
        }
    }
}

/// A float of 16 bits.
pub(crate) trait Short: crate::lanes::Bits + Send + Sync {
    /// Its value.
    fn wide(self) -> f64;
    /// The nearest one.
    fn near(x: f32) -> Self;
    /// The next one towards zero.
    fn smaller(self) -> Self;
    /// The biggest.
    const BIGGEST: f64;
}

impl Short for f16 {
    fn wide(self) -> f64 {
        f64::from(self.to_f32())
    }
    fn near(x: f32) -> Self {
        f16::from_f32(x)
    }
    fn smaller(self) -> Self {
        f16::from_bits(self.to_bits() - 1)
    }
    const BIGGEST: f64 = 65504.0;
}

impl Short for bf16 {
    fn wide(self) -> f64 {
        f64::from(self.to_f32())
    }
    fn near(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn smaller(self) -> Self {
        bf16::from_bits(self.to_bits() - 1)
    }
    const BIGGEST: f64 = 3.389_531_389_251_535_5e38;
}

/// `x` rounded to 16 bits once, to nearest or towards zero.
pub(crate) fn short<T: Short>(x: f64, rounding: Rounding) -> T {
    let near = T::near(odd_f32(x));
    match rounding {
        Rounding::Zero if near.wide().abs() > x.abs() => near.smaller(),
        _ => near,
    }
}

/// `a + b` exactly: the nearest f64, and what is missing.
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    if !sum.is_finite() {
        return (sum, 0.0);
    }
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `sum + rest` with its last bit odd if something is missing: rounding that again is rounding once.
pub(crate) fn odd((sum, rest): (f64, f64)) -> f64 {
    if rest == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    match (rest > 0.0) == (sum > 0.0) {
        true => f64::from_bits(sum.to_bits() + 1),
        false => f64::from_bits(sum.to_bits() - 1),
    }
}

fn odd_f32(x: f64) -> f32 {
    let near = x as f32;
    let wide = f64::from(near);
    if wide == x || x.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    match wide.abs() < x.abs() {
        true => f32::from_bits(near.to_bits() + 1),
        false => f32::from_bits(near.to_bits() - 1),
    }
}

/// An f32 with the 10 bits of mantissa of tf32, ties away from zero if `away`, else to even.
pub(crate) fn tf32(x: f32, away: bool) -> f32 {
    if !x.is_finite() {
        return x;
    }
    let bits = x.to_bits();
    let half = if away { 0x1000 } else { 0xfff + (bits >> 13 & 1) };
    f32::from_bits(bits.wrapping_add(half) & !0x1fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_rounded_once() {
        // Just above the middle between two numbers: rounding to f32 first would make it a tie.
        let above = 1.0 + 2f64.powi(-9) + 2f64.powi(-8) + 2f64.powi(-50);
        assert_eq!(short::<bf16>(above, Rounding::Nearest).wide(), 1.0 + 2f64.powi(-7));
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(short::<bf16>(tie, Rounding::Nearest).wide(), 1.0);
        assert_eq!(short::<bf16>(tie + 2f64.powi(-40), Rounding::Nearest).wide(), 1.0 + 2f64.powi(-7));
        assert_eq!(short::<bf16>(above, Rounding::Zero).wide(), 1.0);
        assert_eq!(short::<f16>(65520.0, Rounding::Nearest).wide(), f64::INFINITY);
        assert_eq!(short::<f16>(-1e9, Rounding::Zero).wide(), -65504.0);
        assert_eq!(short::<f16>(2f64.powi(-25) * 1.0001, Rounding::Nearest).wide(), 2f64.powi(-24));
        assert!(short::<bf16>(f64::NAN, Rounding::Nearest).wide().is_nan());
    }

    #[test]
    fn directed_rounding_takes_the_neighbour() {
        let third = 1.0 / 3.0;
        assert!(f64::from(Rounding::Down.f32(third)) < third);
        assert!(f64::from(Rounding::Up.f32(third)) > third);
        assert_eq!(Rounding::Zero.f32(-third), -Rounding::Down.f32(third));
        assert_eq!(Rounding::Zero.f32(1e300), f32::MAX);
        assert_eq!(Rounding::Down.f64(two_sum(1.0, -1e-30)), 1f64.next_down());
        assert_eq!(Rounding::Zero.f64(two_sum(1.0, 1e-30)), 1.0);
        assert_eq!(odd(two_sum(1.0, 1e-30)), 1f64.next_up());
        assert_eq!(odd(two_sum(-1.0, 1e-30)), (-1f64).next_up());
    }

    #[test]
    fn tf32_has_ten_bits() {
        assert_eq!(tf32(1.0 + 2f32.powi(-11), true), 1.0 + 2f32.powi(-10));
        assert_eq!(tf32(1.0 + 2f32.powi(-11), false), 1.0);
        assert_eq!(tf32(-1.0 - 2f32.powi(-12), true), -1.0);
    }
}
