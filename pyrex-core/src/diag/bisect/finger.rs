//! [`Finger`]: which of the parts of a trace is the culprit.

use super::trace::{Mode, Part};
use std::collections::BTreeMap;

/// The culprit: an index into the trace's parts, and what else there is to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finger {
    /// The part that is wrong first.
    pub part: usize,
    /// The part computed right before it; all up to it match, coarse to fine.
    pub before: Option<usize>,
    /// In isolated mode: every function that is wrong anywhere, in how many of the places where it stands. The most often
    /// wrong ones come first.
    pub functions: Vec<Share>,
}

/// How many of the tensors that a function shows are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The function.
    pub function: String,
    /// Of its tensors, those that diverge.
    pub num_wrong: usize,
    /// All of them.
    pub num_places: usize,
}

/// Finds the culprit.
///
/// In isolated mode the first part that diverges is one. In cumulative mode the search goes from coarse to fine: the first
/// stage or layer whose output diverges, and in a layer its first operation that does. A tensor inside a layer that
/// diverges while the layer's output does not is one only if nothing coarse diverges at all.
pub(super) fn point(parts: &[Part], mode: Mode) -> Option<Finger> {
    let first = |wanted: &dyn Fn(&Part) -> bool| parts.iter().position(|part| part.diverges && wanted(part));
    let part = match mode {
        Mode::Isolated => first(&|_| true)?,
        Mode::Cumulative => {
            let coarse = first(&|part| !part.is_fine());
            match coarse.map(|coarse| &parts[coarse]) {
                Some(layer) if layer.layer.is_some() => first(&|part| {
                    (part.step, part.stage, part.layer) == (layer.step, layer.stage, layer.layer)
                })?,
                Some(_) => coarse?,
                None => first(&|_| true)?,
            }
        }
    };
    let functions = if mode == Mode::Isolated { shares(parts) } else { Vec::new() };
    Some(Finger { part, before: part.checked_sub(1), functions })
}

fn shares(parts: &[Part]) -> Vec<Share> {
    let mut by_function: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for part in parts {
        let counts = by_function.entry(part.origin.short_function()).or_default();
        counts.0 += usize::from(part.diverges);
        counts.1 += 1;
    }
    let share = |(function, (num_wrong, num_places))| Share { function, num_wrong, num_places };
    let mut shares: Vec<Share> =
        by_function.into_iter().map(share).filter(|share| share.num_wrong > 0).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.num_wrong));
    shares
}
