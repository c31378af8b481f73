//! [`bisect()`]: where a model first goes wrong, against a dump of the reference.
//!
//! Twice through the model, in one pass each. *Cumulative*: it runs freely, and the first tensor to leave the reference
//! is looked for from coarse to fine: stage, layer, operation. *Isolated*: at every tap the reference's tensor takes the
//! place of ours, so that each operation is given the right input and shows its own error alone. How far is too far is
//! the noise that the reference itself has ([`Noise`](super::manifest::Noise)); without it, the verdict alone decides.
//!
//! [`trace`] watches a pass; [`finger`] finds the culprit in what it saw; [`input`] reads a prompt from a dump; [`words`]
//! says it all.

mod finger;
mod input;
mod trace;
pub(super) mod words;

pub use finger::{Finger, Share};
pub(super) use trace::place_of;
pub use trace::{Mode, Part, Trace};

use super::compare::{Compared, Threshold, outcome};
use super::file::{DumpFile, DumpTensor};
use super::pass::{Pass, Rows};
use crate::error::Result;
use crate::models::{LoadedModel, ModelSource};
use crate::prompt::{EncodedPrompt, Prompt};
use crate::trace::NoTap;
use crate::weights::digest;
use crate::weights::files::Files;
use std::collections::BTreeMap;

/// What a bisection found.
#[derive(Clone, Debug)]
pub struct Bisection {
    /// The family of the model, its dtype, and the dump's producer and dtype.
    pub what: String,
    /// Whether the dump says how much noise the reference has; without it small faults go unseen.
    pub noise_known: bool,
    /// Tensors of the checkpoint that the dump's manifest lists.
    pub num_weights: usize,
    /// Those that are not what the dump was made with.
    pub weights: Vec<WeightFinding>,
    /// The prompt, prepared here, against the reference's; empty if none was given.
    pub prompt: Vec<Compared>,
    /// The model running freely.
    pub cumulative: Trace,
    /// The model given the reference's tensors.
    pub isolated: Trace,
    /// The last logits when nobody watches and rows run no deeper than they must, as in an engine.
    pub unwatched: Option<Compared>,
    /// What was called too far.
    pub threshold: Threshold,
}

/// A tensor of the checkpoint that is not what the dump was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightFinding {
    /// Its bytes differ.
    Differs(String),
    /// The checkpoint has none of that name.
    Missing(String),
    /// The dump was made without it.
    Extra(String),
}

impl WeightFinding {
    /// The name of the tensor.
    pub fn name(&self) -> &str {
        match self {
            Self::Differs(name) | Self::Missing(name) | Self::Extra(name) => name,
        }
    }
}

/// Bisects the model loaded from `source` against `reference`. With a `prompt`, what is prepared from it is compared too;
/// the model runs on the reference's own ids and pixels in any case.
///
/// # Errors
/// `InvalidRequest` if the dump has no prompt or one that this model cannot run.
pub fn bisect(
    loaded: &LoadedModel,
    source: &ModelSource,
    reference: &DumpFile,
    prompt: Option<&Prompt>,
) -> Result<Bisection> {
    let model = &*loaded.model;
    let spec = model.spec();
    let encoded = input::of(reference, spec)?;
    let threshold = Threshold::default();
    let found = check_weights(source, &reference.manifest.weights)?;
    let cumulative = trace::run(model, reference, &encoded, Mode::Cumulative, threshold)?;
    let isolated = trace::run(model, reference, &encoded, Mode::Isolated, threshold)?;
    let (dtype, theirs) = (spec.dtype.as_str(), &reference.manifest);
    Ok(Bisection {
        what: format!("{} in {dtype} against {} in {}", spec.family, theirs.producer, theirs.dtype),
        noise_known: theirs.noise.is_some(),
        num_weights: theirs.weights.len(),
        weights: found,
        prompt: match prompt {
            Some(prompt) => input::compare(&loaded.processor.encode(prompt)?, &encoded),
            None => Vec::new(),
        },
        cumulative,
        isolated,
        unwatched: unwatched(loaded, reference, &encoded)?,
        threshold,
    })
}

impl Bisection {
    /// Whether nothing at all was found.
    pub fn is_clean(&self) -> bool {
        let traces = [&self.cumulative, &self.isolated];
        let compared = self.prompt.iter().chain(&self.unwatched);
        self.weights.is_empty()
            && traces.iter().all(|trace| trace.finger.is_none() && trace.unseen.is_empty())
            && compared.into_iter().all(|compared| compared.passes(self.threshold))
    }
}

/// Compares the checkpoint's tensors with the digests of a manifest, if it has any.
fn check_weights(source: &ModelSource, expected: &BTreeMap<String, String>) -> Result<Vec<WeightFinding>> {
    if expected.is_empty() {
        return Ok(Vec::new());
    }
    let found = digest::of_tensors(&Files::open(source.weight_files()?)?);
    let theirs = expected.iter().filter_map(|(name, digest)| match found.get(name) {
        None => Some(WeightFinding::Missing(name.clone())),
        Some(ours) if ours != digest => Some(WeightFinding::Differs(name.clone())),
        Some(_) => None,
    });
    let extra = found.keys().filter(|name| !expected.contains_key(*name));
    Ok(theirs.chain(extra.map(|name| WeightFinding::Extra(name.clone()))).collect())
}

/// Runs the prompt as an engine does and compares the last row of the logits.
fn unwatched(
    loaded: &LoadedModel,
    reference: &DumpFile,
    encoded: &EncodedPrompt,
) -> Result<Option<Compared>> {
    let Some(theirs) = reference.tensor("logits")? else { return Ok(None) };
    let mut pass = Pass::new(&*loaded.model, encoded.input_ids.len())?;
    let ours = pass.prefill(&mut NoTap, encoded, Rows::Last)?;
    let ours: Vec<f32> = ours.flatten_all()?.to_vec1()?;
    let (num_logits, mut copy) = (theirs.elements.len(), Vec::new());
    let last = theirs.elements.as_f32(num_logits.saturating_sub(ours.len())..num_logits, &mut copy);
    let shape = [1, ours.len()];
    let noise = trace::noise(reference, Mode::Cumulative, ("logits", &theirs), loaded.model.spec());
    let tensor = |elements| DumpTensor { shape: &shape, elements };
    let outcome = outcome(&tensor(ours.as_slice().into()), &tensor(last.into()), noise);
    Ok(Some(Compared { name: "logits".to_string(), outcome }))
}
