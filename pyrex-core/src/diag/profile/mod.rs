//! [`profile()`]: where the time of a pass goes, operation by operation, against what the machine can do.
//!
//! The model shows what it computes to taps, as for [`dump`](super::dump()) and [`bisect`](super::bisect()); here the tap
//! is a [`stopwatch`] and an operation is whatever happens between two taps: a copy or a sum without a tap of its own
//! counts to the next one. The model runs as in an engine: fused operations stay fused, and of a prompt no more rows go
//! through the last layers than have to. [`rounds`] runs it, [`cost`] says what each operation had to do, [`ceiling`]
//! what the machine gives, [`rows`] sums them up. JSON is not known here.

pub mod ceiling;
pub mod cost;
mod rounds;
pub mod rows;
pub mod stopwatch;

pub use ceiling::{Bound, Ceilings, MemoryReader};
pub use cost::{Cost, OperationKind};
pub use rows::{GroupBy, ProfileRow};
pub use stopwatch::{Lap, Stopwatch, Visit};

use crate::error::{Error, Result};
use crate::models::{LoadedModel, Model};
use crate::ops::threads::thread_pool;
use crate::prompt::EncodedPrompt;
use crate::trace::Origin;
use ceiling::Gauge;
use rounds::{Runner, phase};

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct ProfileOptions {
    /// Greedy decode steps after the prompt.
    pub steps: usize,
    /// How often all of it is measured, after one round that is not.
    pub repetitions: usize,
    /// Threads that compute, one per core if not given.
    pub num_threads: Option<usize>,
    /// What the machine gives; measured between the repetitions if not given, on the CPU.
    pub ceilings: Option<Ceilings>,
}

impl Default for ProfileOptions {
    fn default() -> Self {
        Self { steps: 16, repetitions: 3, num_threads: None, ceilings: None }
    }
}

/// Where the time goes.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Threads that computed.
    pub num_threads: usize,
    /// How often it was measured.
    pub repetitions: usize,
    /// Tokens of the prompt, those of images included.
    pub prompt_tokens: usize,
    /// Tokens of images.
    pub image_tokens: usize,
    /// Decode steps.
    pub steps: usize,
    /// What the machine gives, if that is known.
    pub ceilings: Option<Ceilings>,
    /// The prompt: its images, then its tokens.
    pub prompt: ProfilePhase,
    /// One decode step: the median over all of them, at the position of the middle one; `None` without steps.
    pub decode: Option<ProfilePhase>,
}

/// One pass through the model. Every time is a median over the passes that were measured.
#[derive(Clone, Debug)]
pub struct ProfilePhase {
    /// All of it.
    pub wall_ms: f64,
    /// What of that was the watching.
    pub overhead_ms: f64,
    /// Which share of a pass lay in its operations, watching aside. Their medians may add up to less: what holds a pass up
    /// from outside does so in another operation each time.
    pub explained: f64,
    /// Every operation, in the order in which they run.
    pub operations: Vec<Operation>,
}

/// What happens between two taps, under the name of the second.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The name of the tap.
    pub tap: String,
    /// The stage of the forward pass.
    pub stage: &'static str,
    /// The layer, if it stands in one.
    pub layer: Option<usize>,
    /// What it is called inside its layer; empty for a whole layer's output. Outside of layers its name.
    pub operation: String,
    /// Who shows it, and where.
    pub origin: Origin,
    /// What it is.
    pub kind: OperationKind,
    /// How long it takes.
    pub time_ms: f64,
    /// What it has to do in that time.
    pub cost: Cost,
}

impl ProfilePhase {
    /// The time of all operations.
    pub fn operations_ms(&self) -> f64 {
        self.operations.iter().map(|operation| operation.time_ms).sum()
    }
}

/// Runs `prompt` and some decode steps through the model, several times, in a pool of threads as an engine's.
///
/// # Errors
/// `InvalidRequest` if nothing is to be measured or the prompt does not fit; whatever the model says.
pub fn profile(
    loaded: &mut LoadedModel,
    prompt: &EncodedPrompt,
    options: &ProfileOptions,
) -> Result<Profile> {
    if options.repetitions == 0 {
        return Err(Error::invalid_request("repetitions is 0, expected at least 1"));
    }
    let model = &mut *loaded.model;
    thread_pool(options.num_threads)?.install(|| measure(model, prompt, options))
}

fn measure(model: &mut dyn Model, prompt: &EncodedPrompt, options: &ProfileOptions) -> Result<Profile> {
    let model = &*model;
    let mut runner = Runner::new(model, prompt, options.steps)?;
    let measurable = options.ceilings.is_none() && model.spec().device.is_cpu();
    let mut gauge = measurable.then(Gauge::new);
    let (mut prompts, mut steps) = (Vec::new(), Vec::new());
    let warm_up = runner.run()?;
    for _ in 0..options.repetitions {
        gauge.iter_mut().for_each(Gauge::read);
        let measured = runner.run()?;
        prompts.push(measured.prompt());
        steps.extend(measured.steps);
    }
    gauge.iter_mut().for_each(Gauge::read);
    Ok(Profile {
        num_threads: rayon::current_num_threads(),
        repetitions: options.repetitions,
        prompt_tokens: prompt.input_ids.len(),
        image_tokens: prompt.images.iter().map(|image| image.tokens.len()).sum(),
        steps: options.steps,
        ceilings: options.ceilings.or(gauge.map(|gauge| gauge.best())),
        prompt: phase(&prompts, runner.prompt_operations(&warm_up))?,
        decode: match warm_up.steps.is_empty() {
            true => None,
            false => Some(phase(&steps, runner.step_operations(&warm_up))?),
        },
    })
}
