//! [`Figures`]: how far one tensor is from another, in one pass over both; and [`Verdict`], what to call it.
//!
//! Sums are kept in f64. Where either side is not finite an element counts for nothing but that.

use super::elements::Elements;
use crate::ops::simd::Level;
use crate::ops::simd::distance::{Distance, Sums};
use rayon::prelude::*;
use std::fmt;
use std::ops::{AddAssign, Range};

/// Elements one task compares: enough to be worth a thread.
const TASK_LEN: usize = 1 << 17;
/// Elements compared at once: both sides stay in the first-level cache.
const PIECE_LEN: usize = 1 << 12;

/// How far `ours` is from `theirs`, element by element.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Elements compared.
    pub num_elements: usize,
    /// `ours · theirs / (|ours| |theirs|)`; 1 if both are zero, 0 if one is.
    pub cosine: f64,
    /// `|ours - theirs| / |theirs|`.
    pub rel_l2: f64,
    /// The largest `|ours - theirs|`.
    pub max_abs: f64,
    /// The largest `|ours - theirs| / |theirs|` of one element; elements where theirs is 0 do not count.
    pub max_rel: f64,
    /// The first element, in row-major order, that is not the same.
    pub first_difference: Option<usize>,
    /// The element that differs most.
    pub worst: Option<usize>,
    /// Elements of ours that are not numbers, or infinite.
    pub ours: NonFinite,
    /// Elements of theirs.
    pub theirs: NonFinite,
    /// Elements that are not finite on one side and not the same on the other.
    pub non_finite_differences: usize,
    /// `|ours - theirs| / |theirs|` of each row, the first axis being the rows; infinite where something is finite on one
    /// side only.
    pub rows: Vec<f32>,
    /// How many elements differ by `2^(i - 127)` up to twice that, for every `i`; the first counts what is the same.
    pub histogram: Vec<u64>,
}

/// How many elements are no finite numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Not a number.
    pub nan: usize,
    /// Positive or negative infinity.
    pub inf: usize,
}

/// What to call a difference. By the cosine; a wrong length is as bad as the angle that moves a vector as far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// A cosine above 0.9999.
    Match,
    /// Down to 0.99.
    Drift,
    /// Down to 0.9.
    Suspicious,
    /// Below, or numbers on one side only.
    Catastrophic,
}

impl Verdict {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Drift => "drift",
            Self::Suspicious => "suspicious",
            Self::Catastrophic => "catastrophic",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Figures {
    /// Compares `ours` with `theirs`, which have as many elements, as `num_rows` rows.
    pub fn of(ours: &Elements<'_>, theirs: &Elements<'_>, num_rows: usize) -> Self {
        let len = ours.len().min(theirs.len());
        let row_len = (len / num_rows.max(1)).max(1);
        let rows_per_task = TASK_LEN.div_ceil(row_len);
        let tasks: Vec<usize> = (0..len).step_by(rows_per_task * row_len).collect();
        let task = |&start: &usize| {
            let end = len.min(start + rows_per_task * row_len);
            Found::in_rows(ours, theirs, start..end, row_len)
        };
        let parts: Vec<Found> = tasks.par_iter().map(task).collect();
        let mut whole = Found { rows: Vec::with_capacity(num_rows.min(len)), ..Found::new() };
        parts.into_iter().for_each(|part| whole += part);
        Self { num_elements: len, ..whole.figures() }
    }

    /// What to call it.
    pub fn verdict(&self) -> Verdict {
        // Two vectors of the same length at a cosine of c are sqrt(2 (1 - c)) apart.
        let apart = |cosine: f64| (2.0 * (1.0 - cosine)).sqrt();
        let within = |cosine: f64| self.cosine > cosine && self.rel_l2 < apart(cosine);
        match () {
            _ if self.non_finite_differences > 0 => Verdict::Catastrophic,
            _ if within(0.9999) => Verdict::Match,
            _ if within(0.99) => Verdict::Drift,
            _ if within(0.9) => Verdict::Suspicious,
            _ => Verdict::Catastrophic,
        }
    }
}

/// What is found in a range of elements, and adds up over ranges in order.
struct Found {
    sums: Sums,
    worst: Option<usize>,
    first_difference: Option<usize>,
    ours: NonFinite,
    theirs: NonFinite,
    non_finite_differences: usize,
    rows: Vec<f32>,
    histogram: Histogram,
}

impl Found {
    fn new() -> Self {
        Self {
            sums: Sums::default(),
            worst: None,
            first_difference: None,
            ours: NonFinite::default(),
            theirs: NonFinite::default(),
            non_finite_differences: 0,
            rows: Vec::new(),
            histogram: Histogram::new(),
        }
    }

    /// In whole rows of `row_len`.
    fn in_rows(ours: &Elements<'_>, theirs: &Elements<'_>, range: Range<usize>, row_len: usize) -> Self {
        let mut found = Self::new();
        let (mut a_copy, mut b_copy) = (Vec::new(), Vec::new());
        for row_start in range.clone().step_by(row_len) {
            let row_end = range.end.min(row_start + row_len);
            let mut row = Sums::default();
            let before = found.non_finite_differences;
            for start in (row_start..row_end).step_by(PIECE_LEN) {
                let piece = start..row_end.min(start + PIECE_LEN);
                let a = ours.as_f32(piece.clone(), &mut a_copy);
                let b = theirs.as_f32(piece, &mut b_copy);
                row += found.add(a, b, start);
            }
            let finite = found.non_finite_differences == before;
            found.rows.push(if finite { rel_l2(&row) as f32 } else { f32::INFINITY });
        }
        found
    }

    /// Adds `a` and `b`, the first of whose elements is number `offset`; returns their sums alone.
    fn add(&mut self, a: &[f32], b: &[f32], offset: usize) -> Sums {
        let sums = Level::Widest.run(Distance { ours: a, theirs: b });
        // Products of f32 do not overflow an f64, so what is not finite was not finite before.
        if !(sums.ours + sums.theirs).is_finite() {
            return self.add_non_finite(a, b, offset);
        }
        let place = |found: &dyn Fn(f32) -> bool| {
            a.iter().zip(b).position(|(a, b)| found((a - b).abs())).map(|at| offset + at)
        };
        if self.first_difference.is_none() && sums.max_abs > 0.0 {
            self.first_difference = place(&|error| error > 0.0);
        }
        if sums.max_abs > self.sums.max_abs {
            self.worst = place(&|error| error == sums.max_abs);
        }
        self.histogram.add(a, b);
        self.sums += sums;
        sums
    }

    /// As [`add`](Self::add), where something is not finite: that is counted, and the rest compared.
    fn add_non_finite(&mut self, a: &[f32], b: &[f32], offset: usize) -> Sums {
        let mut sums = Sums::default();
        for (at, (&a, &b)) in a.iter().zip(b).enumerate() {
            self.ours.count(a);
            self.theirs.count(b);
            if a.is_finite() && b.is_finite() {
                sums += self.add(&[a], &[b], offset + at);
            } else if !(a == b || a.is_nan() && b.is_nan()) {
                self.non_finite_differences += 1;
                self.first_difference = self.first_difference.or(Some(offset + at));
            }
        }
        sums
    }

    fn figures(self) -> Figures {
        let mut histogram = vec![0; Histogram::NUM_BINS];
        self.histogram.add_to(&mut histogram);
        Figures {
            num_elements: 0,
            cosine: cosine(&self.sums),
            rel_l2: rel_l2(&self.sums),
            max_abs: f64::from(self.sums.max_abs),
            max_rel: f64::from(self.sums.max_rel),
            first_difference: self.first_difference,
            worst: self.worst,
            ours: self.ours,
            theirs: self.theirs,
            non_finite_differences: self.non_finite_differences,
            rows: self.rows,
            histogram,
        }
    }
}

impl AddAssign for Found {
    fn add_assign(&mut self, next: Self) {
        if next.sums.max_abs > self.sums.max_abs {
            self.worst = next.worst;
        }
        self.sums += next.sums;
        self.first_difference = self.first_difference.or(next.first_difference);
        self.ours += next.ours;
        self.theirs += next.theirs;
        self.non_finite_differences += next.non_finite_differences;
        self.rows.extend(next.rows);
        self.histogram += next.histogram;
    }
}

fn rel_l2(sums: &Sums) -> f64 {
    match (sums.error, sums.theirs) {
        (0.0, _) => 0.0,
        (_, 0.0) => f64::INFINITY,
        (error, theirs) => (error / theirs).sqrt(),
    }
}

fn cosine(sums: &Sums) -> f64 {
    match (sums.ours * sums.theirs).sqrt() {
        0.0 if sums.ours == sums.theirs => 1.0,
        0.0 => 0.0,
        norms => (sums.dot / norms).clamp(-1.0, 1.0),
    }
}

impl NonFinite {
    fn count(&mut self, x: f32) {
        self.nan += usize::from(x.is_nan());
        self.inf += usize::from(x.is_infinite());
    }
}

impl AddAssign for NonFinite {
    fn add_assign(&mut self, next: Self) {
        self.nan += next.nan;
        self.inf += next.inf;
    }
}

/// Counts errors by their exponent; the same, and what is too small for one, comes first.
struct Histogram {
    /// Neighbours tend to fall into the same bin: with a table for each they need not wait for one another.
    counts: [[u64; 256]; 4],
}

impl Histogram {
    /// One bin for each exponent of a finite f32.
    const NUM_BINS: usize = 255;

    fn new() -> Self {
        Self { counts: [[0; 256]; 4] }
    }

    fn add(&mut self, a: &[f32], b: &[f32]) {
        for (a, b) in a.chunks(4).zip(b.chunks(4)) {
            for (counts, (a, b)) in self.counts.iter_mut().zip(a.iter().zip(b)) {
                counts[((a - b).to_bits() >> 23 & 0xff) as usize] += 1;
            }
        }
    }

    fn add_to(&self, bins: &mut [u64]) {
        for counts in &self.counts {
            bins.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

impl AddAssign for Histogram {
    fn add_assign(&mut self, next: Self) {
        for (counts, next) in self.counts.iter_mut().zip(next.counts) {
            counts.iter_mut().zip(next).for_each(|(sum, count)| *sum += count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ours: &[f32], theirs: &[f32], num_rows: usize) -> Figures {
        Figures::of(&Elements::from(ours), &Elements::from(theirs), num_rows)
    }

    /// The definitions, one after another.
    fn slow(ours: &[f32], theirs: &[f32]) -> (f64, f64, f64) {
        let pairs = || ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let sum = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(a, b)| f(a, b)).sum::<f64>();
        let cosine = sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
        let rel_l2 = (sum(&|a, b| (a - b) * (a - b)) / sum(&|_, b| b * b)).sqrt();
        (cosine, rel_l2, pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
    }

    #[test]
    fn figures_are_their_definitions() {
        for len in [1, 7, 8, 100, 70_000] {
            let theirs: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0 + 0.01).collect();
            let ours: Vec<f32> =
                theirs.iter().enumerate().map(|(i, x)| x * (1.0 + (i % 5) as f32 * 1e-3)).collect();
            let ours_rounded: Vec<f32> = ours.iter().map(|x| (x * 1024.0).round() / 1024.0).collect();
            let found = figures(&ours_rounded, &theirs, 1);
            let (cosine, rel_l2, max_abs) = slow(&ours_rounded, &theirs);
            assert!((found.cosine - cosine).abs() < 1e-12, "{len}");
            assert!((found.rel_l2 / rel_l2 - 1.0).abs() < 1e-6, "{len}");
            assert!((found.max_abs - max_abs).abs() < 1e-6, "{len}");
            let worst = found.worst.unwrap();
            assert_eq!(f64::from((ours_rounded[worst] - theirs[worst]).abs()), found.max_abs);
            assert_eq!(found.histogram.iter().sum::<u64>(), len as u64);
        }
    }

    #[test]
    fn the_first_difference_and_the_rows_are_in_order() {
        let theirs = vec![1.0; 40_000];
        let mut ours = theirs.clone();
        ours[39_999] = 3.0;
        ours[33_000] = 1.5;
        let found = figures(&ours, &theirs, 4);
        assert_eq!((found.first_difference, found.worst), (Some(33_000), Some(39_999)));
        assert_eq!(found.rows[..3], [0.0; 3]);
        assert!((f64::from(found.rows[3]) - (4.25f64 / 10_000.0).sqrt()).abs() < 1e-6);
        assert_eq!(found.max_rel, 2.0);
        assert_eq!((found.histogram[0], found.histogram[126], found.histogram[128]), (39_998, 1, 1));
    }

    #[test]
    fn what_is_not_finite_is_counted_and_spoils_nothing_else() {
        let theirs = [1.0, f32::NEG_INFINITY, 2.0, 3.0, 4.0, f32::NAN];
        let same = figures(&theirs, &theirs, 2);
        assert_eq!((same.rel_l2, same.cosine, same.non_finite_differences), (0.0, 1.0, 0));
        assert_eq!(
            (same.ours, same.theirs.nan, same.verdict()),
            (NonFinite { nan: 1, inf: 1 }, 1, Verdict::Match)
        );
        let ours = [1.0, 5.0, 2.0, f32::NAN, 4.5, f32::NAN];
        let found = figures(&ours, &theirs, 2);
        assert_eq!((found.non_finite_differences, found.first_difference), (2, Some(1)));
        assert_eq!((found.worst, found.max_abs, found.verdict()), (Some(4), 0.5, Verdict::Catastrophic));
        assert_eq!(figures(&[f32::MAX; 9], &[f32::MAX; 9], 1).verdict(), Verdict::Match);
    }

    #[test]
    fn a_wrong_length_is_no_match_though_its_cosine_is_one() {
        let theirs = [1.0, -2.0, 3.0];
        let scaled = |factor: f32| theirs.map(|x| x * factor);
        for (factor, verdict) in [
            (1.0, Verdict::Match),
            (1.01, Verdict::Match),
            (1.02, Verdict::Drift),
            (1.3, Verdict::Suspicious),
            (2.0, Verdict::Catastrophic),
            (-1.0, Verdict::Catastrophic),
        ] {
            assert_eq!(figures(&scaled(factor), &theirs, 1).verdict(), verdict, "{factor}");
        }
        assert_eq!(figures(&[0.0], &[0.0], 1).verdict(), Verdict::Match);
        assert_eq!(figures(&[1.0], &[0.0], 1).verdict(), Verdict::Catastrophic);
    }
}
