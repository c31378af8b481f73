//! A [`Bisection`] in words.

use super::trace::{Mode, Part, Trace};
use super::{Bisection, Finger, WeightFinding};
use crate::diag::compare::{Compared, Outcome, Threshold};
use std::fmt::{self, Formatter};

/// How many names a list shows.
const MAX_NAMES: usize = 5;

impl fmt::Display for Bisection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        if !self.noise_known {
            writeln!(
                f,
                "the dump does not say how much noise the reference has: judged by verdicts, which hide small faults"
            )?;
        }
        weights(f, self)?;
        prompt(f, &self.prompt, self.threshold)?;
        for trace in [&self.cumulative, &self.isolated] {
            writeln!(f)?;
            table(f, trace)?;
            writeln!(f)?;
            match &trace.finger {
                None => writeln!(f, "{}: no divergence", name(trace.mode))?,
                Some(found) => finger(f, trace, found)?,
            }
            unseen(f, trace)?;
        }
        match &self.unwatched {
            Some(logits) if !logits.passes(self.threshold) => {
                writeln!(f, "\nwith nobody watching: the last logits diverge, {}", error_of(logits))
            }
            Some(_) => writeln!(f, "\nwith nobody watching: no divergence of the last logits"),
            None => Ok(()),
        }
    }
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Cumulative => "cumulative",
        Mode::Isolated => "isolated",
    }
}

fn weights(f: &mut Formatter<'_>, found: &Bisection) -> fmt::Result {
    if found.weights.is_empty() && found.num_weights == 0 {
        return writeln!(f, "weights: the dump does not say which it was made with");
    }
    if found.weights.is_empty() {
        return writeln!(f, "weights: all {} tensors are those the dump was made with", found.num_weights);
    }
    for finding in &found.weights {
        let what = match finding {
            WeightFinding::Differs(_) => "is not the tensor the dump was made with",
            WeightFinding::Missing(_) => "is missing, the dump was made with it",
            WeightFinding::Extra(_) => "is there, the dump was made without it",
        };
        writeln!(f, "weights: {} {what}", finding.name())?;
    }
    Ok(())
}

fn prompt(f: &mut Formatter<'_>, prompt: &[Compared], threshold: Threshold) -> fmt::Result {
    for compared in prompt {
        match compared.passes(threshold) {
            true => writeln!(f, "prompt: {} is the reference's", compared.name)?,
            false => writeln!(f, "prompt: {} is not the reference's, {}", compared.name, error_of(compared))?,
        }
    }
    Ok(())
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

fn finger(f: &mut Formatter<'_>, trace: &Trace, finger: &Finger) -> fmt::Result {
    let part = &trace.parts[finger.part];
    writeln!(f, "{}: {}", name(trace.mode), part.place())?;
    writeln!(f, "  ours: {}", error_of(&part.compared))?;
    let before = finger.before.map(|before| trace.parts[before].compared.name.as_str());
    match (trace.mode, before) {
        (_, None) => writeln!(f, "  it is the first tensor of all")?,
        (Mode::Cumulative, Some(before)) => {
            writeln!(f, "  its inputs match: so does all that was computed before it, up to {before}")?;
        }
        (Mode::Isolated, Some(_)) => writeln!(f, "  it was given the reference's own inputs")?,
    }
    writeln!(f, "  so the fault is inside {}", part.origin)?;
    for share in finger.functions.iter().take(MAX_NAMES) {
        writeln!(
            f,
            "  {} is wrong in {} of its {} places",
            share.function, share.num_wrong, share.num_places
        )?;
    }
    Ok(())
}

fn unseen(f: &mut Formatter<'_>, trace: &Trace) -> fmt::Result {
    if trace.unseen.is_empty() {
        return Ok(());
    }
    let names = trace.unseen.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if trace.unseen.len() > MAX_NAMES { ", …" } else { "" };
    writeln!(
        f,
        "{}: {} tensors of the dump were never shown: {names}{more}",
        name(trace.mode),
        trace.unseen.len()
    )
}

/// How far off it is, in words.
fn error_of(compared: &Compared) -> String {
    match &compared.outcome {
        Outcome::Shapes { ours, theirs } => format!("its shape is {ours:?}, the reference's {theirs:?}"),
        Outcome::OnlyOurs => "the reference has none".to_string(),
        Outcome::OnlyTheirs => "we have none".to_string(),
        Outcome::Figures { figures, noise, .. } => {
            let mut text = format!("cosine {:.6}, relative L2 {:.1e}", figures.cosine, figures.rel_l2);
            if let (Some(noise), Some(ratio)) = (noise, compared.ratio()) {
                if *noise > 0.0 {
                    text += &format!(", {} times the reference's own noise of {noise:.1e}", multiple(ratio));
                }
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
fn multiple(ratio: f64) -> String {
    match ratio {
        _ if ratio < 99.95 => format!("{ratio:.1}"),
        _ if ratio < 1e6 => format!("{ratio:.0}"),
        _ => format!("{ratio:.0e}"),
    }
}
