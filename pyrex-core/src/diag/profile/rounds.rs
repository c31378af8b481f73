//! Rounds of a prompt and its decode steps, each pass under a stopwatch, and the medians over them.

use super::cost::{Sight, cost};
use super::stopwatch::{Lap, Stopwatch, Visit};
use super::{Operation, ProfilePhase};
use crate::diag::bisect::place_of;
use crate::diag::pass::{Pass, Rows, likeliest};
use crate::error::{Error, Result};
use crate::models::Model;
use crate::prompt::EncodedPrompt;
use std::time::Duration;

/// Runs the same again and again.
pub(super) struct Runner<'a> {
    model: &'a dyn Model,
    pass: Pass<'a>,
    prompt: &'a EncodedPrompt,
    num_steps: usize,
}

/// One round: the prompt and the steps after it.
pub(super) struct Round {
    images: Lap,
    tokens: Lap,
    pub(super) steps: Vec<Lap>,
}

impl Round {
    /// The images and the tokens as one pass.
    pub(super) fn prompt(&self) -> Lap {
        self.images.clone().then(self.tokens.clone())
    }
}

impl<'a> Runner<'a> {
    /// For `prompt` and `num_steps` after it.
    ///
    /// # Errors
    /// `InvalidRequest` if they do not fit the model.
    pub(super) fn new(model: &'a dyn Model, prompt: &'a EncodedPrompt, num_steps: usize) -> Result<Self> {
        let pass = Pass::new(model, prompt.input_ids.len().saturating_add(num_steps))?;
        Ok(Self { model, pass, prompt, num_steps })
    }

    /// Measures one round.
    ///
    /// # Errors
    /// Whatever the model says.
    pub(super) fn run(&mut self) -> Result<Round> {
        let device = &self.model.spec().device;
        self.pass.rewind();
        let mut watch = Stopwatch::start(device);
        let soft_tokens = self.pass.encode_images(&mut watch, &self.prompt.images)?;
        let images = watch.stop();
        let mut watch = Stopwatch::start(device);
        let mut logits = self.pass.forward(&mut watch, &self.prompt.input_ids, soft_tokens, Rows::Last)?;
        let tokens = watch.stop();
        let mut steps = Vec::with_capacity(self.num_steps);
        for _ in 0..self.num_steps {
            let id = likeliest(&logits)?;
            let mut watch = Stopwatch::start(device);
            logits = self.pass.decode(&mut watch, id)?;
            steps.push(watch.stop());
        }
        Ok(Round { images, tokens, steps })
    }

    /// The operations of the prompt, without their times.
    pub(super) fn prompt_operations(&self, round: &Round) -> Vec<Operation> {
        let patches: Vec<usize> =
            self.prompt.images.iter().map(|image| image.patches.columns * image.patches.rows).collect();
        let tokens = Sight::Tokens { end: self.prompt.input_ids.len() };
        let mut operations = self.operations(Sight::Images(&patches), &round.images);
        operations.extend(self.operations(tokens, &round.tokens));
        operations
    }

    /// The operations of the step in the middle, without their times: the cost of attention grows from step to step.
    pub(super) fn step_operations(&self, round: &Round) -> Vec<Operation> {
        let middle = round.steps.len() / 2;
        let end = self.prompt.input_ids.len() + middle + 1;
        self.operations(Sight::Tokens { end }, &round.steps[middle])
    }

    fn operations(&self, sight: Sight<'_>, lap: &Lap) -> Vec<Operation> {
        let operation = |visit: &Visit| {
            let (layer, operation) = place_of(&visit.name);
            let (kind, cost) = cost(self.model, sight, visit);
            Operation {
                tap: visit.name.clone(),
                stage: (self.model.spec().stage_of)(&visit.name),
                layer,
                operation: operation.to_string(),
                origin: visit.origin,
                kind,
                time_ms: 0.0,
                cost,
            }
        };
        lap.visits.iter().map(operation).collect()
    }
}

/// `operations` with the medians of `laps`, which must have shown the same taps in the same order.
pub(super) fn phase(laps: &[Lap], mut operations: Vec<Operation>) -> Result<ProfilePhase> {
    let same = |lap: &Lap| {
        let names = lap.visits.iter().map(|visit| visit.name.as_str());
        names.eq(operations.iter().map(|operation| operation.tap.as_str()))
    };
    if !laps.iter().all(same) {
        return Err(Error::internal("a pass showed other taps than the one before"));
    }
    for (idx, operation) in operations.iter_mut().enumerate() {
        operation.time_ms = median_ms(laps.iter().map(|lap| lap.visits[idx].time));
    }
    Ok(ProfilePhase {
        wall_ms: median_ms(laps.iter().map(|lap| lap.wall)),
        overhead_ms: median_ms(laps.iter().map(|lap| lap.overhead)),
        explained: median(laps.iter().map(Lap::explained)),
        operations,
    })
}

fn median_ms(times: impl Iterator<Item = Duration>) -> f64 {
    median(times.map(|time| time.as_secs_f64() * 1e3))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
