//! [`diff_logits`]: position by position, what two dumps would choose next, and how close a call it was.

use super::elements::Elements;
use super::file::DumpFile;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::fmt;

/// A choice this close may fall either way in bf16: between 16 and 32 its values are 0.125 apart, so this is two steps.
pub const NEAR_TIE: f32 = 0.25;

/// The choices of two dumps.
#[derive(Clone, Debug, Default)]
pub struct LogitsDiff {
    /// Every row of the prefill, then every decode step.
    pub positions: Vec<Position>,
}

/// One row of logits on both sides.
#[derive(Clone, Debug)]
pub struct Position {
    /// The decode step; 0 is the prefill.
    pub step: usize,
    /// The row in it.
    pub row: usize,
    /// Our likeliest tokens, the likeliest first.
    pub ours: Vec<Candidate>,
    /// Theirs.
    pub theirs: Vec<Candidate>,
    /// How much higher their choice stands than ours in their own logits; 0 where both choose the same.
    pub gap: f32,
    /// The largest difference between two logits of one token.
    pub max_abs: f32,
}

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

impl Position {
    /// Whether both sides choose the same token.
    pub fn agrees(&self) -> bool {
        self.ours.first().map(|best| best.id) == self.theirs.first().map(|best| best.id)
    }
}

/// The `top` likeliest tokens of both sides at every position that both have logits of.
///
/// # Errors
/// `InvalidRequest` if either has no logits or they are of different shapes.
pub fn diff_logits(ours: &DumpFile, theirs: &DumpFile, top: usize) -> Result<LogitsDiff> {
    let mut positions = Vec::new();
    for step in 0.. {
        let name = if step == 0 { "logits".to_string() } else { format!("step{step}.logits") };
        let (a, b) = match (ours.tensor(&name)?, theirs.tensor(&name)?) {
            (Some(a), Some(b)) => (a, b),
            _ if step > 0 => break,
            (a, _) => {
                let whose = if a.is_none() { "first" } else { "second" };
                return Err(Error::invalid_request(format_args!("the {whose} dump has no logits")));
            }
        };
        let ([rows, vocab_size @ (1..)], true) = (a.shape, a.shape == b.shape) else {
            return Err(Error::invalid_request(format_args!(
                "{name} is {:?} and {:?}, expected the same two sizes: tokens and vocabulary",
                a.shape, b.shape
            )));
        };
        let row = |row| position(&a.elements, &b.elements, row * vocab_size..(row + 1) * vocab_size, top);
        let rows = (0..*rows).into_par_iter().map(|at| Position { step, row: at, ..row(at) });
        positions.extend(rows.collect::<Vec<_>>());
    }
    Ok(LogitsDiff { positions })
}

fn position(
    ours: &Elements<'_>,
    theirs: &Elements<'_>,
    range: std::ops::Range<usize>,
    top: usize,
) -> Position {
    let (mut a_copy, mut b_copy) = (Vec::new(), Vec::new());
    let (a, b) = (ours.as_f32(range.clone(), &mut a_copy), theirs.as_f32(range, &mut b_copy));
    let (ours, theirs) = (likeliest(a, top.max(1)), likeliest(b, top.max(1)));
    let chosen = |candidates: &[Candidate]| candidates.first().map_or(0.0, |best| b[best.id as usize]);
    let gap = chosen(&theirs) - chosen(&ours);
    let max_abs = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    Position { step: 0, row: 0, gap, max_abs, ours, theirs }
}

/// The `top` highest logits; the lower id first among equals, as both sides choose.
fn likeliest(logits: &[f32], top: usize) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::with_capacity(top + 1);
    for (id, &logit) in logits.iter().enumerate() {
        if best.len() == top && best.last().is_some_and(|last| logit <= last.logit) {
            continue;
        }
        let at = best.partition_point(|other| other.logit >= logit);
        best.insert(at, Candidate { id: id as u32, logit });
        best.truncate(top);
    }
    best
}

impl fmt::Display for LogitsDiff {
    /// In one sentence: `7 of 8 positions agree, one near-tie of 0.18`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split: Vec<f32> = self
            .positions
            .iter()
            .filter(|position| !position.agrees())
            .map(|position| position.gap)
            .collect();
        let total = self.positions.len();
        write!(f, "{} of {total} positions agree", total - split.len())?;
        let (ties, others): (Vec<f32>, Vec<f32>) = split.into_iter().partition(|gap| *gap <= NEAR_TIE);
        for (gaps, one, many) in [(ties, "near-tie", "near-ties"), (others, "other choice", "other choices")]
        {
            let largest = gaps.iter().copied().fold(0.0, f32::max);
            match gaps.len() {
                0 => {}
                1 => write!(f, ", one {one} of {largest:.2}")?,
                count => write!(f, ", {count} {many} of up to {largest:.2}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_in_order_and_the_lower_id_first() {
        let ids = |logits: &[f32], top| likeliest(logits, top).iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(ids(&[1.0, 3.0, 3.0, 2.0, 5.0], 3), [4, 1, 2]);
        assert_eq!(ids(&[1.0, 2.0], 5), [1, 0]);
        assert_eq!(ids(&[f32::NEG_INFINITY, -1.0], 1), [1]);
    }

    #[test]
    fn a_near_tie_is_told_from_another_choice() {
        let theirs = [[1.0, 2.0, 0.0], [1.0, 1.18, 0.0], [4.0, 1.0, 0.0]].concat();
        let ours = [[1.1, 2.1, 0.0], [1.2, 1.1, 0.0], [0.0, 1.0, 0.0]].concat();
        let (ours, theirs) = (Elements::from(ours.as_slice()), Elements::from(theirs.as_slice()));
        let rows = |rows: std::ops::Range<usize>| LogitsDiff {
            positions: rows.map(|row| position(&ours, &theirs, 3 * row..3 * row + 3, 5)).collect(),
        };
        assert_eq!(rows(0..1).to_string(), "1 of 1 positions agree");
        assert_eq!(rows(0..2).to_string(), "1 of 2 positions agree, one near-tie of 0.18");
        let all = "1 of 3 positions agree, one near-tie of 0.18, one other choice of 3.00";
        assert_eq!(rows(0..3).to_string(), all);
        assert!((rows(2..3).positions[0].max_abs - 4.0).abs() < 1e-6);
    }
}
