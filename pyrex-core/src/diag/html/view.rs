//! [`View`]: the tensors of one comparison or of one mode of a bisection, as a page looks at them.

use super::text::{short, times};
use crate::diag::bisect::words::name;
use crate::diag::bisect::{Mode, Part, Trace, place_of};
use crate::diag::compare::{Compared, Comparison, Outcome, Threshold};
use crate::diag::figures::Verdict;
use crate::trace::Origin;
use std::cmp::Ordering;
use std::collections::HashSet;

/// Steps of the scale of colours: 0 to 2 pass, 3 to 6 diverge.
pub(super) const NUM_LEVELS: usize = 7;

/// The tensors that are looked at together.
pub(super) struct View<'a> {
    /// A letter that makes the ids of its elements its own.
    pub(super) id: char,
    /// `cumulative`, `isolated`, or nothing if there is one view only.
    pub(super) mode: &'static str,
    /// Whether the reference's tensors took the place of ours.
    pub(super) isolated: bool,
    /// In the order in which they were computed.
    pub(super) entries: Vec<Entry<'a>>,
    /// Which of them is the culprit.
    pub(super) finger: Option<usize>,
}

/// A tensor and where it stands.
pub(super) struct Entry<'a> {
    pub(super) compared: &'a Compared,
    pub(super) diverges: bool,
    pub(super) stage: &'a str,
    pub(super) step: usize,
    pub(super) layer: Option<usize>,
    pub(super) operation: &'a str,
    pub(super) origin: Option<Origin>,
    /// What is called too far.
    threshold: Threshold,
}

impl<'a> View<'a> {
    pub(super) fn of_trace(trace: &'a Trace, threshold: Threshold) -> Self {
        let entry = |part: &'a Part| Entry {
            compared: &part.compared,
            diverges: part.diverges,
            stage: part.stage,
            step: part.step,
            layer: part.layer,
            operation: &part.operation,
            origin: Some(part.origin),
            threshold,
        };
        let isolated = trace.mode == Mode::Isolated;
        Self {
            id: if isolated { 'i' } else { 'c' },
            mode: name(trace.mode),
            isolated,
            entries: trace.parts.iter().map(entry).collect(),
            finger: trace.finger.as_ref().map(|finger| finger.part),
        }
    }

    pub(super) fn of_comparison(found: &'a Comparison, threshold: Threshold) -> Self {
        let entries = found.tensors.iter().map(|compared| entry_of(compared, threshold)).collect();
        Self { id: 'v', mode: "", isolated: false, entries, finger: None }
    }

    pub(super) fn num_diverging(&self) -> usize {
        self.entries.iter().filter(|entry| entry.diverges).count()
    }

    /// Up to `max` of those that are `wanted`: the culprit, then the worst of each layer, then what else is bad.
    pub(super) fn worst(&self, max: usize, wanted: impl Fn(&Entry<'a>) -> bool) -> Vec<&Entry<'a>> {
        let culprit = self.finger.and_then(|finger| self.entries.get(finger));
        let is_culprit = |entry: &Entry<'_>| culprit.is_some_and(|culprit| std::ptr::eq(culprit, entry));
        let mut entries: Vec<&Entry<'a>> = self.entries.iter().filter(|entry| wanted(entry)).collect();
        entries.sort_by(|a, b| is_culprit(b).cmp(&is_culprit(a)).then_with(|| b.cmp_error(a)));
        let mut seen = HashSet::new();
        let (mut first, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| seen.insert((entry.stage, entry.layer)));
        first.extend(others);
        first.truncate(max);
        first
    }
}

/// Without a model at hand, a stage is the path in front of the layers.
fn entry_of(compared: &Compared, threshold: Threshold) -> Entry<'_> {
    let name = compared.name.as_str();
    let (step, inside) = match name.strip_prefix("step").and_then(|rest| rest.split_once('.')) {
        Some((step, inside)) => step.parse().map_or((0, name), |step| (step, inside)),
        None => (0, name),
    };
    let (layer, operation) = place_of(inside);
    let path = inside.strip_prefix("model.").unwrap_or(inside);
    let stage = match path.split_once(".layers.") {
        Some((stage, _)) if layer.is_some() => stage,
        _ => path.split('.').next().unwrap_or(path),
    };
    let diverges = !compared.passes(threshold);
    Entry { compared, diverges, stage, step, layer, operation, origin: None, threshold }
}

impl Entry<'_> {
    /// `decoder`, or `step 2, decoder`.
    pub(super) fn stage_name(&self) -> String {
        match self.step {
            0 => self.stage.to_string(),
            step => format!("step {step}, {}", self.stage),
        }
    }

    /// Its relative L2, infinite if there is none.
    pub(super) fn rel_l2(&self) -> f64 {
        match self.compared.figures() {
            Some(figures) if figures.non_finite_differences == 0 => figures.rel_l2,
            _ => f64::INFINITY,
        }
    }

    /// What its relative L2 may be, if the reference's noise is known.
    pub(super) fn bound(&self) -> Option<f64> {
        match &self.compared.outcome {
            Outcome::Figures { noise: Some(noise), .. } if *noise > 0.0 => Some(noise * self.threshold.ratio),
            _ => None,
        }
    }

    /// Which is further off: by what passes, then by how much.
    pub(super) fn cmp_error(&self, other: &Self) -> Ordering {
        let error = |entry: &Self| entry.compared.ratio().unwrap_or(entry.rel_l2());
        self.level().cmp(&other.level()).then_with(|| error(self).total_cmp(&error(other)))
    }

    /// Its step of the scale of colours, which goes by powers of ten: of the noise if that is known, else by verdicts.
    pub(super) fn level(&self) -> usize {
        let step = match self.compared.ratio() {
            _ if self.rel_l2().is_infinite() => 6,
            Some(ratio) => {
                let beyond = [1.0, 10.0, 1e3, 1e5].map(|step| step * self.threshold.ratio);
                [0.5, 1.0].iter().chain(&beyond).filter(|step| ratio > **step).count()
            }
            None => match self.compared.verdict() {
                Verdict::Match => [1e-6, 1e-4].iter().filter(|step| self.rel_l2() > **step).count(),
                Verdict::Drift => 3,
                Verdict::Suspicious => 4,
                Verdict::Catastrophic => 5,
            },
        };
        if self.diverges { step.max(3) } else { step.min(2) }
    }

    /// The one figure to show: a multiple of the noise if that is known, else its relative L2.
    pub(super) fn figure(&self) -> String {
        match (&self.compared.outcome, self.compared.ratio()) {
            (Outcome::Shapes { .. }, _) => "shape".to_string(),
            (Outcome::OnlyOurs, _) => "only ours".to_string(),
            (Outcome::OnlyTheirs, _) => "only theirs".to_string(),
            (Outcome::Figures { figures, .. }, _) if figures.non_finite_differences > 0 => {
                "not finite".to_string()
            }
            (Outcome::Figures { figures, .. }, _) if figures.rel_l2 == 0.0 => "exact".to_string(),
            (_, Some(ratio)) if ratio.is_finite() => times(ratio),
            _ => short(self.rel_l2()),
        }
    }

    /// Name and figures in one line.
    pub(super) fn title(&self) -> String {
        let mut line = format!("{}: relative L2 {}", self.compared.name, short(self.rel_l2()));
        if let (Some(ratio), true) = (self.compared.ratio(), self.rel_l2() > 0.0) {
            line += &format!(", {} the noise", times(ratio));
        }
        if self.diverges {
            line += ", diverges";
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::figures::Figures;

    fn compared(name: &str, rel_l2: f64, noise: Option<f64>) -> Compared {
        let figures = Figures { cosine: 1.0 - rel_l2 * rel_l2 / 2.0, rel_l2, ..Figures::default() };
        let outcome = Outcome::Figures { figures: Box::new(figures), shape: vec![1], noise };
        Compared { name: name.to_string(), outcome }
    }

    #[test]
    fn colours_go_by_what_passes() {
        let threshold = Threshold { ratio: 4.0, ..Threshold::default() };
        let level = |rel_l2, noise| entry_of(&compared("x", rel_l2, noise), threshold).level();
        let ratios = [0.0, 0.4, 0.9, 3.9, 4.1, 50.0, 5e3, 5e5, f64::INFINITY, f64::NAN];
        assert_eq!(ratios.map(|ratio| level(ratio * 1e-7, Some(1e-7))), [0, 0, 1, 2, 3, 4, 5, 6, 6, 3]);
        assert_eq!([0.0, 1e-5, 1e-3, 0.1, 0.4, 1.0].map(|rel_l2| level(rel_l2, None)), [0, 1, 2, 3, 4, 5]);
        assert_eq!((level(0.0, Some(0.0)), level(1e-9, Some(0.0))), (0, 6));
    }

    #[test]
    fn places_are_read_from_names() {
        let place = |name: &str| {
            let compared = compared(name, 0.0, None);
            let entry = entry_of(&compared, Threshold::default());
            (entry.stage_name(), entry.layer, entry.operation.to_string())
        };
        let name = "step2.model.vision_tower.encoder.layers.3.mlp.up_proj";
        assert_eq!(place(name), ("step 2, vision_tower.encoder".into(), Some(3), "mlp.up_proj".into()));
        assert_eq!(place("stepper.x"), ("stepper".into(), None, "stepper.x".into()));
        assert_eq!(place(""), (String::new(), None, String::new()));
    }

    #[test]
    fn the_worst_are_of_different_layers_if_there_are_enough() {
        let tensors = ["a.layers.0", "a.layers.0.x", "a.layers.1", "b"];
        let tensors = tensors.into_iter().zip([3e-3, 2e-3, 1e-3, 1e-4]);
        let tensors = tensors.map(|(name, rel_l2)| compared(name, rel_l2, None)).collect();
        let found = Comparison { tensors, num_bytes: 0 };
        let mut view = View::of_comparison(&found, Threshold::default());
        let names = |view: &View<'_>, max| {
            view.worst(max, |_| true).iter().map(|entry| entry.compared.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&view, 9), ["a.layers.0", "a.layers.1", "b", "a.layers.0.x"]);
        view.finger = Some(3);
        assert_eq!(names(&view, 2), ["b", "a.layers.0"]);
    }
}
