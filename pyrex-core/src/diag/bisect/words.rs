//! A [`Bisection`] in words.

use super::trace::{Mode, Part, Trace};
use super::{Bisection, Finger, WeightFinding};
use crate::diag::compare::{Compared, Outcome};
use std::fmt::{self, Formatter};

/// How many names a list shows.
const MAX_NAMES: usize = 5;

/// What is said where nobody knows how much noise the reference has.
pub(in crate::diag) const NOISE_UNKNOWN: &str =
    "the dump does not say how much noise the reference has: judged by verdicts, which hide small faults";

impl fmt::Display for Bisection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        if !self.noise_known {
            writeln!(f, "{NOISE_UNKNOWN}")?;
        }
        for line in weights(self).iter().chain(&prompt(self)) {
            writeln!(f, "{line}")?;
        }
        for trace in [&self.cumulative, &self.isolated] {
            writeln!(f)?;
            table(f, trace)?;
            writeln!(f)?;
            match &trace.finger {
                None => writeln!(f, "{}: no divergence", name(trace.mode))?,
                Some(finger) => {
                    writeln!(f, "{}: {}", name(trace.mode), trace.parts[finger.part].place())?;
                    reasons(trace, finger).iter().try_for_each(|line| writeln!(f, "  {line}"))?;
                }
            }
            if let Some(line) = unseen(trace) {
                writeln!(f, "{}: {line}", name(trace.mode))?;
            }
        }
        match unwatched(self) {
            Some(line) => writeln!(f, "\n{line}"),
            None => Ok(()),
        }
    }
}

/// A mode in one word.
pub(in crate::diag) fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Cumulative => "cumulative",
        Mode::Isolated => "isolated",
    }
}

/// What there is to say of the weights, a line each.
pub(in crate::diag) fn weights(found: &Bisection) -> Vec<String> {
    if found.weights.is_empty() {
        return vec![match found.num_weights {
            0 => "weights: the dump does not say which it was made with".to_string(),
            num_weights => format!("weights: all {num_weights} tensors are those the dump was made with"),
        }];
    }
    let line = |finding: &WeightFinding| {
        let what = match finding {
            WeightFinding::Differs(_) => "is not the tensor the dump was made with",
            WeightFinding::Missing(_) => "is missing, the dump was made with it",
            WeightFinding::Extra(_) => "is there, the dump was made without it",
        };
        format!("weights: {} {what}", finding.name())
    };
    found.weights.iter().map(line).collect()
}

/// What there is to say of the prompt, a line each.
pub(in crate::diag) fn prompt(found: &Bisection) -> Vec<String> {
    let line = |compared: &Compared| match compared.passes(found.threshold) {
        true => format!("prompt: {} is the reference's", compared.name),
        false => format!("prompt: {} is not the reference's, {}", compared.name, error_of(compared)),
    };
    found.prompt.iter().map(line).collect()
}

/// What there is to say of the run that nobody watched.
pub(in crate::diag) fn unwatched(found: &Bisection) -> Option<String> {
    let logits = found.unwatched.as_ref()?;
    Some(match logits.passes(found.threshold) {
        true => "with nobody watching: no divergence of the last logits".to_string(),
        false => format!("with nobody watching: the last logits diverge, {}", error_of(logits)),
    })
}

/// One row for each stage of each step.
fn table(f: &mut Formatter<'_>, trace: &Trace) -> fmt::Result {
    let mode = name(trace.mode);
    writeln!(f, "{mode:26}  tensors  diverge    cosine    rel l2   x noise  worst")?;
    for stage in trace.parts.chunk_by(|a, b| (a.step, a.stage) == (b.step, b.stage)) {
        stage_row(f, stage)?;
    }
    Ok(())
}

fn stage_row(f: &mut Formatter<'_>, stage: &[Part]) -> fmt::Result {
    let size = |part: &&Part| {
        let by_error = part.compared.figures().map_or(f64::INFINITY, |figures| figures.rel_l2);
        part.compared.ratio().unwrap_or(by_error)
    };
    let Some(worst) = stage.iter().max_by(|a, b| size(a).total_cmp(&size(b))) else { return Ok(()) };
    let step = if worst.step > 0 { format!("step {}, ", worst.step) } else { String::new() };
    let num_wrong = stage.iter().filter(|part| part.diverges).count();
    write!(f, "  {:24}  {:7}  {num_wrong:7}", format!("{step}{}", worst.stage), stage.len())?;
    match worst.compared.figures() {
        Some(figures) => write!(f, "  {:8.6}  {:8.1e}", figures.cosine, figures.rel_l2)?,
        None => write!(f, "         -         -")?,
    }
    let exact = worst.compared.name.contains("prep.");
    match worst.compared.ratio().filter(|_| !exact) {
        Some(ratio) => write!(f, "  {:>8}", multiple(ratio))?,
        None => write!(f, "  {:>8}", "-")?,
    }
    match (worst.layer, worst.operation.as_str()) {
        (Some(layer), "") => writeln!(f, "  layer {layer}"),
        (Some(layer), operation) => writeln!(f, "  layer {layer} {operation}"),
        (None, operation) => writeln!(f, "  {operation}"),
    }
}

/// Why it is this part, and what is inside of it, a line each.
pub(in crate::diag) fn reasons(trace: &Trace, finger: &Finger) -> Vec<String> {
    let part = &trace.parts[finger.part];
    let before = finger.before.map(|before| trace.parts[before].compared.name.as_str());
    let inputs = match (trace.mode, before) {
        (_, None) => "it is the first tensor of all".to_string(),
        (Mode::Cumulative, Some(before)) => {
            format!("its inputs match: so does all that was computed before it, up to {before}")
        }
        (Mode::Isolated, Some(_)) => "it was given the reference's own inputs".to_string(),
    };
    let mut lines = vec![
        format!("ours: {}", error_of(&part.compared)),
        inputs,
        format!("so the fault is inside {}", part.origin),
    ];
    lines.extend(finger.functions.iter().take(MAX_NAMES).map(|share| {
        format!("{} is wrong in {} of its {} places", share.function, share.num_wrong, share.num_places)
    }));
    lines
}

/// Which tensors of the dump the model never showed, if there are any.
pub(in crate::diag) fn unseen(trace: &Trace) -> Option<String> {
    if trace.unseen.is_empty() {
        return None;
    }
    let names = trace.unseen.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if trace.unseen.len() > MAX_NAMES { ", …" } else { "" };
    Some(format!("{} tensors of the dump were never shown: {names}{more}", trace.unseen.len()))
}

/// How far off it is, in words.
pub(in crate::diag) fn error_of(compared: &Compared) -> String {
    match &compared.outcome {
        Outcome::Shapes { ours, theirs } => format!("its shape is {ours:?}, the reference's {theirs:?}"),
        Outcome::OnlyOurs => "the reference has none".to_string(),
        Outcome::OnlyTheirs => "we have none".to_string(),
        Outcome::Figures { figures, noise, .. } => {
            let mut text = format!("cosine {:.6}, relative L2 {:.1e}", figures.cosine, figures.rel_l2);
            if let (Some(noise), Some(ratio)) = (noise, compared.ratio())
                && *noise > 0.0
            {
                text += &format!(", {} times the reference's own noise of {noise:.1e}", multiple(ratio));
            }
            if figures.non_finite_differences > 0 {
                text +=
                    &format!(", {} elements are not finite on one side only", figures.non_finite_differences);
            }
            text
        }
    }
}

/// A ratio with three digits that matter.
pub(in crate::diag) fn multiple(ratio: f64) -> String {
    match ratio {
        _ if ratio < 99.95 => format!("{ratio:.1}"),
        _ if ratio < 1e6 => format!("{ratio:.0}"),
        _ => format!("{ratio:.0e}"),
    }
}
