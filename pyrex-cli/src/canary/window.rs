//! [`Window`]: how the last rounds went.

use super::client::Answer;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// One time of asking everything.
pub(super) struct Round {
    pub(super) answers: Vec<Answer>,
}

impl Round {
    /// Whether every answer was right and came in time.
    pub(super) fn is_well(&self) -> bool {
        self.answers.iter().all(|answer| answer.wrong.is_none())
    }

    fn slowest_ms(&self) -> f64 {
        self.answers.iter().map(|answer| answer.latency_ms).fold(0.0, f64::max)
    }
}

/// The last rounds, and how many breaches of the objective came one after another.
pub(super) struct Window {
    size: usize,
    min_success: Option<f64>,
    /// Whether each round was well, and its slowest answer.
    rounds: VecDeque<(bool, f64)>,
    num_breaches: usize,
}

impl Window {
    pub(super) fn new(size: usize, min_success: Option<f64>) -> Self {
        Self { size, min_success, rounds: VecDeque::new(), num_breaches: 0 }
    }

    pub(super) fn see(&mut self, round: &Round) {
        if self.rounds.len() == self.size {
            self.rounds.pop_front();
        }
        self.rounds.push_back((round.is_well(), round.slowest_ms()));
        let is_full = self.rounds.len() == self.size;
        let too_few = is_full && self.min_success.is_some_and(|share| self.success() < share);
        self.num_breaches = if round.is_well() && !too_few { 0 } else { self.num_breaches + 1 };
    }

    /// Breaches one after another, up to the last round.
    pub(super) fn num_breaches(&self) -> usize {
        self.num_breaches
    }

    /// They have had their consequence.
    pub(super) fn forget_breaches(&mut self) {
        self.num_breaches = 0;
    }

    /// The share of rounds that were well.
    fn success(&self) -> f64 {
        let num_well = self.rounds.iter().filter(|(is_well, _)| *is_well).count();
        num_well as f64 / self.rounds.len().max(1) as f64
    }

    pub(super) fn figures(&self) -> Value {
        let mut latencies: Vec<f64> = self.rounds.iter().map(|(_, latency_ms)| *latency_ms).collect();
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let idx = (latencies.len() as f64 * share).ceil() as usize;
            latencies.get(idx.saturating_sub(1)).map(|ms| (ms * 1e3).round() / 1e3)
        };
        json!({
            "rounds": self.rounds.len(),
            "success": self.success(),
            "p50_ms": at(0.5),
            "p95_ms": at(0.95),
            "max_ms": at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(is_well: bool, latency_ms: f64) -> Round {
        let wrong = (!is_well).then(|| "wrong".to_owned());
        Round { answers: vec![Answer { probe: "text", latency_ms, text: None, wrong }] }
    }

    /// After each round, the breaches in a row.
    fn check(size: usize, min_success: Option<f64>, rounds: &[bool], expected: &[usize]) {
        let mut window = Window::new(size, min_success);
        let mut see = |is_well: &bool| {
            window.see(&round(*is_well, 1.0));
            window.num_breaches()
        };
        assert_eq!(rounds.iter().map(&mut see).collect::<Vec<_>>(), expected, "{min_success:?} {rounds:?}");
    }

    #[test]
    fn breaches_count_while_they_follow_each_other() {
        check(10, None, &[true, false, false, true, false], &[0, 1, 2, 0, 1]);
        // Half of three is not reached by one of three, once there are three.
        check(3, Some(0.5), &[false, true, false, true, true], &[1, 0, 1, 0, 0]);
        check(3, Some(0.5), &[false, false, true, true], &[1, 2, 3, 0]);
    }

    #[test]
    fn the_window_forgets_and_its_figures_are_those_of_its_rounds() {
        let mut window = Window::new(4, None);
        [90.0, 1.0, 2.0, 3.0, 4.0].into_iter().for_each(|ms| window.see(&round(ms != 3.0, ms)));
        let expected = json!({ "rounds": 4, "success": 0.75, "p50_ms": 2.0, "p95_ms": 4.0, "max_ms": 4.0 });
        assert_eq!(window.figures(), expected);
    }
}
