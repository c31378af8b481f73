//! How far two vectors are from each other: the sums and maxima of one pass over both.

use pulp::{Simd, WithSimd};
use std::ops::AddAssign;

/// Sums that grow side by side: two vectors of the widest kind.
const LANES: usize = 16;

/// Compares two slices of the same length.
#[derive(Clone, Copy, Debug)]
pub struct Distance<'a> {
    /// One of them.
    pub ours: &'a [f32],
    /// The other.
    pub theirs: &'a [f32],
}

/// What [`Distance`] finds. Sums are in f64, over products of exact operands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// `Σ ours · theirs`.
    pub dot: f64,
    /// `Σ ours²`.
    pub ours: f64,
    /// `Σ theirs²`.
    pub theirs: f64,
    /// `Σ (ours - theirs)²`.
    pub error: f64,
    /// The largest `|ours - theirs|`, in f32.
    pub max_abs: f32,
    /// The largest `|(ours - theirs) / theirs|`, in f32, where theirs is not 0.
    pub max_rel: f32,
}

impl WithSimd for Distance<'_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Sums {
        let mut lanes = Lanes::default();
        let (ours, ours_rest) = self.ours.as_chunks::<LANES>();
        let (theirs, theirs_rest) = self.theirs.as_chunks::<LANES>();
        for (a, b) in ours.iter().zip(theirs) {
            lanes.add(a, b);
        }
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        a[..ours_rest.len()].copy_from_slice(ours_rest);
        b[..theirs_rest.len()].copy_from_slice(theirs_rest);
        lanes.add(&a, &b);
        lanes.sums()
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, next: Self) {
        self.dot += next.dot;
        self.ours += next.ours;
        self.theirs += next.theirs;
        self.error += next.error;
        self.max_abs = self.max_abs.max(next.max_abs);
        self.max_rel = self.max_rel.max(next.max_rel);
    }
}

#[derive(Default)]
struct Lanes {
    dot: [f64; LANES],
    ours: [f64; LANES],
    theirs: [f64; LANES],
    error: [f64; LANES],
    max_abs: [f32; LANES],
    max_rel: [f32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, ours: &[f32; LANES], theirs: &[f32; LANES]) {
        for lane in 0..LANES {
            let (a, b) = (ours[lane], theirs[lane]);
            let error = (a - b).abs();
            let ratio = if b == 0.0 { 0.0 } else { error / b.abs() };
            self.max_abs[lane] = if error > self.max_abs[lane] { error } else { self.max_abs[lane] };
            self.max_rel[lane] = if ratio > self.max_rel[lane] { ratio } else { self.max_rel[lane] };
        }
        for lane in 0..LANES {
            let (a, b) = (f64::from(ours[lane]), f64::from(theirs[lane]));
            self.dot[lane] += a * b;
            self.ours[lane] += a * a;
            self.theirs[lane] += b * b;
            self.error[lane] += (a - b) * (a - b);
        }
    }

    #[inline(always)]
    fn sums(self) -> Sums {
        Sums {
            dot: self.dot.iter().sum(),
            ours: self.ours.iter().sum(),
            theirs: self.theirs.iter().sum(),
            error: self.error.iter().sum(),
            max_abs: self.max_abs.into_iter().fold(0.0, f32::max),
            max_rel: self.max_rel.into_iter().fold(0.0, f32::max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::Level;

    /// The definitions, one after another.
    fn slow(ours: &[f32], theirs: &[f32]) -> Sums {
        let mut sums = Sums::default();
        for (&a, &b) in ours.iter().zip(theirs) {
            let error = (a - b).abs();
            sums.max_abs = sums.max_abs.max(error);
            sums.max_rel = if b == 0.0 { sums.max_rel } else { sums.max_rel.max(error / b.abs()) };
            let (a, b) = (f64::from(a), f64::from(b));
            sums.dot += a * b;
            sums.ours += a * a;
            sums.theirs += b * b;
            sums.error += (a - b) * (a - b);
        }
        sums
    }

    #[test]
    fn every_path_computes_the_definition() {
        for len in [0, 1, 15, 16, 17, 100, 4099] {
            let theirs: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let ours: Vec<f32> =
                theirs.iter().enumerate().map(|(i, x)| x * (1.0 + (i % 5) as f32 * 1e-3)).collect();
            let wanted = slow(&ours, &theirs);
            for level in Level::all() {
                let found = level.run(Distance { ours: &ours, theirs: &theirs });
                assert_eq!(
                    (found.max_abs, found.max_rel),
                    (wanted.max_abs, wanted.max_rel),
                    "{level:?} {len}"
                );
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
                assert!(close(found.dot, wanted.dot) && close(found.error, wanted.error), "{level:?} {len}");
                assert!(
                    close(found.ours, wanted.ours) && close(found.theirs, wanted.theirs),
                    "{level:?} {len}"
                );
            }
        }
    }
}
