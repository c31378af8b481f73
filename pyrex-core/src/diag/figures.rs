//! [`Figures`]: how far one tensor is from another, in one pass over both; and [`Verdict`], what to call it.
//!
//! Sums are kept in f64. Where either side is not finite an element counts for nothing but that.

use super::elements::Elements;
use rayon::prelude::*;
use std::fmt;
use std::ops::AddAssign;

/// Elements one task compares: enough to be worth a thread, few enough that their copies stay in a cache.
const TASK_LEN: usize = 1 << 15;
/// Sums that grow side by side, so that they can share a vector.
const LANES: usize = 8;

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
        let parts: Vec<(Sums, Vec<f32>)> = tasks
            .par_iter()
            .map(|&start| {
                compare_rows(ours, theirs, start..len.min(start + rows_per_task * row_len), row_len)
            })
            .collect();
        let mut sums = Sums::default();
        let mut rows = Vec::with_capacity(num_rows);
        for (part, part_rows) in parts {
            sums += part;
            rows.extend(part_rows);
        }
        Self { num_elements: len, rows, ..sums.figures() }
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

/// The sums over `range`, and the relative error of each of its rows.
fn compare_rows(
    ours: &Elements<'_>,
    theirs: &Elements<'_>,
    range: std::ops::Range<usize>,
    row_len: usize,
) -> (Sums, Vec<f32>) {
    let (mut sums, mut rows) = (Sums::default(), Vec::with_capacity(range.len().div_ceil(row_len)));
    let (mut a_copy, mut b_copy) = (Vec::new(), Vec::new());
    for row_start in range.clone().step_by(row_len) {
        let row_end = range.end.min(row_start + row_len);
        let mut row = Sums::default();
        for start in (row_start..row_end).step_by(TASK_LEN) {
            let piece = start..row_end.min(start + TASK_LEN);
            let a = ours.as_f32(piece.clone(), &mut a_copy);
            let b = theirs.as_f32(piece, &mut b_copy);
            row += Sums::of(a, b, start);
        }
        rows.push(if row.non_finite_differences > 0 { f32::INFINITY } else { row.rel_l2() as f32 });
        sums += row;
    }
    (sums, rows)
}

/// What is summed over a piece, and adds up over pieces in order.
#[derive(Clone)]
struct Sums {
    dot: f64,
    ours: f64,
    theirs: f64,
    error: f64,
    max_abs: f32,
    worst: Option<usize>,
    max_rel: f32,
    first_difference: Option<usize>,
    ours_non_finite: NonFinite,
    theirs_non_finite: NonFinite,
    non_finite_differences: usize,
    histogram: [u64; NUM_BINS],
}

/// One for each exponent of an f32.
const NUM_BINS: usize = 255;

impl Default for Sums {
    fn default() -> Self {
        Self {
            dot: 0.0,
            ours: 0.0,
            theirs: 0.0,
            error: 0.0,
            max_abs: 0.0,
            worst: None,
            max_rel: 0.0,
            first_difference: None,
            ours_non_finite: NonFinite::default(),
            theirs_non_finite: NonFinite::default(),
            non_finite_differences: 0,
            histogram: [0; NUM_BINS],
        }
    }
}

impl Sums {
    /// Over `a` and `b`, the first of whose elements is number `offset`.
    fn of(a: &[f32], b: &[f32], offset: usize) -> Self {
        let mut sums = Self::default();
        if !add_products(a, b, &mut sums) {
            return Self::of_non_finite(a, b, offset);
        }
        sums.max_rel = max_rel(a, b);
        if sums.max_abs > 0.0 {
            let place = |found: &dyn Fn(f32) -> bool| {
                a.iter().zip(b).position(|(a, b)| found((a - b).abs())).map(|at| offset + at)
            };
            sums.first_difference = place(&|error| error > 0.0);
            sums.worst = place(&|error| error == sums.max_abs);
        }
        count_exponents(a, b, &mut sums.histogram);
        sums
    }

    /// As [`of`](Self::of), for pieces in which something is not finite.
    fn of_non_finite(a: &[f32], b: &[f32], offset: usize) -> Self {
        let (mut kept_a, mut kept_b, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ours, mut theirs) = (NonFinite::default(), NonFinite::default());
        let (mut differences, mut first) = (0, None);
        for (at, (&a, &b)) in a.iter().zip(b).enumerate() {
            ours.count(a);
            theirs.count(b);
            if a.is_finite() && b.is_finite() {
                kept_a.push(a);
                kept_b.push(b);
                kept.push(offset + at);
            } else if !(a == b || a.is_nan() && b.is_nan()) {
                differences += 1;
                first = first.or(Some(offset + at));
            }
        }
        // What is finite on both sides is compared as usual, unless its own sums overflow.
        let mut sums = match add_products(&kept_a, &kept_b, &mut Self::default()) {
            true => Self::of(&kept_a, &kept_b, 0),
            false => Self::default(),
        };
        let place = |at: Option<usize>| at.and_then(|at| kept.get(at).copied());
        sums.worst = place(sums.worst);
        sums.first_difference = [place(sums.first_difference), first].into_iter().flatten().min();
        Self { ours_non_finite: ours, theirs_non_finite: theirs, non_finite_differences: differences, ..sums }
    }

    fn rel_l2(&self) -> f64 {
        match (self.error, self.theirs) {
            (0.0, _) => 0.0,
            (_, 0.0) => f64::INFINITY,
            (error, theirs) => (error / theirs).sqrt(),
        }
    }

    fn figures(self) -> Figures {
        let norms = (self.ours * self.theirs).sqrt();
        let both_zero = self.ours == 0.0 && self.theirs == 0.0;
        Figures {
            num_elements: 0,
            cosine: if both_zero {
                1.0
            } else if norms == 0.0 {
                0.0
            } else {
                (self.dot / norms).clamp(-1.0, 1.0)
            },
            rel_l2: self.rel_l2(),
            max_abs: f64::from(self.max_abs),
            max_rel: f64::from(self.max_rel),
            first_difference: self.first_difference,
            worst: self.worst,
            ours: self.ours_non_finite,
            theirs: self.theirs_non_finite,
            non_finite_differences: self.non_finite_differences,
            rows: Vec::new(),
            histogram: self.histogram.to_vec(),
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, next: Self) {
        self.dot += next.dot;
        self.ours += next.ours;
        self.theirs += next.theirs;
        self.error += next.error;
        if next.max_abs > self.max_abs {
            (self.max_abs, self.worst) = (next.max_abs, next.worst);
        }
        self.max_rel = self.max_rel.max(next.max_rel);
        self.first_difference = self.first_difference.or(next.first_difference);
        self.ours_non_finite += next.ours_non_finite;
        self.theirs_non_finite += next.theirs_non_finite;
        self.non_finite_differences += next.non_finite_differences;
        self.histogram.iter_mut().zip(next.histogram).for_each(|(sum, next)| *sum += next);
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

/// Adds the four products and the largest error; returns whether everything was finite.
fn add_products(a: &[f32], b: &[f32], sums: &mut Sums) -> bool {
    let mut lanes = [[0.0f64; LANES]; 4];
    let mut largest = [0.0f32; LANES];
    let mut add = |a: &[f32], b: &[f32]| {
        for (lane, (&a, &b)) in a.iter().zip(b).enumerate() {
            let error = (a - b).abs();
            largest[lane] = if error > largest[lane] { error } else { largest[lane] };
            let (a, b) = (f64::from(a), f64::from(b));
            lanes[0][lane] += a * b;
            lanes[1][lane] += a * a;
            lanes[2][lane] += b * b;
            lanes[3][lane] += (a - b) * (a - b);
        }
    };
    let (a_rest, b_rest) = (a.chunks_exact(LANES).remainder(), b.chunks_exact(LANES).remainder());
    a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).for_each(|(a, b)| add(a, b));
    add(a_rest, b_rest);
    let [dot, ours, theirs, error] = lanes.map(|lane| lane.iter().sum::<f64>());
    sums.dot += dot;
    sums.ours += ours;
    sums.theirs += theirs;
    sums.error += error;
    sums.max_abs = largest.into_iter().fold(sums.max_abs, f32::max);
    (dot + ours + theirs + error).is_finite()
}

fn max_rel(a: &[f32], b: &[f32]) -> f32 {
    let mut largest = [0.0f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (lane, (a, b)) in a.iter().zip(b).enumerate() {
            let ratio = if *b == 0.0 { 0.0 } else { ((a - b) / b).abs() };
            largest[lane] = if ratio > largest[lane] { ratio } else { largest[lane] };
        }
    }
    largest.into_iter().fold(0.0, f32::max)
}

/// Sorts the errors by their exponent; the same, and what is too small for one, comes first.
fn count_exponents(a: &[f32], b: &[f32], histogram: &mut [u64; NUM_BINS]) {
    let mut counts = [0u32; 256];
    for (a, b) in a.iter().zip(b) {
        counts[((a - b).to_bits() >> 23 & 0xff) as usize] += 1;
    }
    histogram.iter_mut().zip(counts).for_each(|(sum, count)| *sum += u64::from(count));
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
        assert_eq!(found.rows, [f32::INFINITY; 2]);
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
