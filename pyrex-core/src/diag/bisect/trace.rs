//! [`Trace`]: a pass through the model, each tensor compared with the reference's as it is shown.

use super::finger::{self, Finger};
use crate::diag::compare::{Compared, Outcome, Threshold, floor, outcome};
use crate::diag::elements::Elements;
use crate::diag::file::{DumpFile, DumpTensor};
use crate::diag::pass::{Pass, Rows};
use crate::error::{Error, Result};
use crate::models::{Model, ModelSpec};
use crate::ops::host::{float_view, host_view};
use crate::ops::simd::Level;
use crate::prompt::EncodedPrompt;
use crate::trace::{Origin, Tap};
use candle_core::{DType, Device, Tensor};
use std::collections::HashSet;

/// How the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Freely: an error goes on to everything after it.
    Cumulative,
    /// Every tensor is replaced by the reference's once it is compared: each operation shows its own error alone.
    Isolated,
}

/// What was seen in one pass.
#[derive(Clone, Debug)]
pub struct Trace {
    /// How the model ran.
    pub mode: Mode,
    /// Every tensor that the dump has too, in the order in which they were computed.
    pub parts: Vec<Part>,
    /// Tensors of the dump that the model never showed.
    pub unseen: Vec<String>,
    /// Where it goes wrong, if it does.
    pub finger: Option<Finger>,
}

/// One tensor, and where it comes from.
#[derive(Clone, Debug)]
pub struct Part {
    /// What the comparison says.
    pub compared: Compared,
    /// Who showed it.
    pub origin: Origin,
    /// The stage of the forward pass.
    pub stage: &'static str,
    /// The decode step; 0 is the prefill.
    pub step: usize,
    /// The layer, if it stands in one.
    pub layer: Option<usize>,
    /// What it is inside its layer; empty for a whole layer's output. Outside of layers its name.
    pub operation: String,
    /// Whether it is too far from the reference's.
    pub diverges: bool,
}

impl Part {
    /// Whether it stands inside a layer.
    pub fn is_fine(&self) -> bool {
        self.layer.is_some() && !self.operation.is_empty()
    }

    /// Where it is, in words.
    pub fn place(&self) -> String {
        let step = if self.step > 0 { format!("decode step {}, ", self.step) } else { String::new() };
        match (self.layer, self.operation.as_str()) {
            (None, operation) => format!("{step}stage {}, operation {operation}", self.stage),
            (Some(layer), "") => format!("{step}stage {}, layer {layer}, its output", self.stage),
            (Some(layer), operation) => {
                format!("{step}stage {}, layer {layer}, operation {operation}", self.stage)
            }
        }
    }
}

/// Runs the prefill of `encoded`, and the decode steps that the dump has, on the reference's own ids.
pub(super) fn run(
    model: &dyn Model,
    reference: &DumpFile,
    encoded: &EncodedPrompt,
    mode: Mode,
    threshold: Threshold,
) -> Result<Trace> {
    let ids = decode_ids(reference)?;
    let mut pass = Pass::new(model, encoded.input_ids.len() + ids.len())?;
    let spec = model.spec();
    let mut watch =
        Watch { reference, mode, threshold, spec, step: 0, parts: Vec::new(), seen: HashSet::new() };
    pass.prefill(&mut watch, encoded, Rows::All)?;
    for id in ids {
        watch.step += 1;
        pass.decode(&mut watch, id)?;
    }
    let unseen = reference.names().filter(|name| !watch.seen.contains(*name)).map(str::to_string).collect();
    let finger = finger::point(&watch.parts, mode);
    Ok(Trace { mode, parts: watch.parts, unseen, finger })
}

/// The tokens that the reference decoded.
fn decode_ids(reference: &DumpFile) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    while let Some(tensor) = reference.tensor(&format!("step{}.prep.input_ids", ids.len() + 1))? {
        let id = tensor.elements.to_f32().first().map(|id| *id as u32);
        ids.push(id.ok_or_else(|| Error::invalid_request("a decode step of the dump has no token"))?);
    }
    Ok(ids)
}

/// The noise of a tap in `mode`, no less than a rounding; `None` if the dump does not say, or was made in another dtype.
pub(super) fn noise(reference: &DumpFile, mode: Mode, name: &str, spec: &ModelSpec) -> Option<f64> {
    let noise = reference.manifest.noise.as_ref()?;
    let figures = match mode {
        Mode::Cumulative => &noise.cumulative,
        Mode::Isolated => &noise.isolated,
    };
    let same_dtype = (spec.dtype == DType::BF16) == (reference.manifest.dtype == "bf16");
    figures.get(name).filter(|_| same_dtype).map(|noise| noise.max(floor(&reference.manifest.dtype)))
}

struct Watch<'a> {
    reference: &'a DumpFile,
    mode: Mode,
    threshold: Threshold,
    spec: &'a ModelSpec,
    step: usize,
    parts: Vec<Part>,
    seen: HashSet<String>,
}

impl Tap for Watch<'_> {
    fn watching(&self) -> bool {
        true
    }

    fn visit(&mut self, name: &str, tensor: &Tensor, origin: Origin) -> Result<Option<Tensor>> {
        let full_name = if self.step > 0 { format!("step{}.{name}", self.step) } else { name.to_string() };
        let Some(theirs) = self.reference.tensor(&full_name)? else { return Ok(None) };
        let noise = match name {
            // Ids and positions are exact.
            _ if tensor.dtype().is_int() => Some(0.0),
            "prep.pixel_values" => Some(floor("f32")),
            _ => noise(self.reference, self.mode, &full_name, self.spec),
        };
        let outcome = compare_tensor(tensor, &theirs, noise)?;
        let fits = matches!(outcome, Outcome::Figures { .. });
        let compared = Compared { name: full_name.clone(), outcome };
        let (layer, operation) = place_of(name);
        self.parts.push(Part {
            diverges: !compared.passes(self.threshold),
            compared,
            origin,
            stage: (self.spec.stage_of)(name),
            step: self.step,
            layer,
            operation: operation.to_string(),
        });
        self.seen.insert(full_name);
        match self.mode {
            Mode::Isolated if fits => Ok(Some(replacement(&theirs, tensor)?)),
            _ => Ok(None),
        }
    }
}

/// The layer a tap stands in, and the rest of its name; the last parts of its name outside of layers.
pub(in crate::diag) fn place_of(name: &str) -> (Option<usize>, &str) {
    if let Some((_, inside)) = name.split_once(".layers.") {
        let (layer, operation) = inside.split_once('.').unwrap_or((inside, ""));
        if let Ok(layer) = layer.parse() {
            return (Some(layer), operation);
        }
    }
    (None, name.strip_prefix("model.").unwrap_or(name))
}

fn compare_tensor(ours: &Tensor, theirs: &DumpTensor<'_>, noise: Option<f64>) -> Result<Outcome> {
    let ours = ours.to_device(&Device::Cpu)?.contiguous()?;
    let shape = ours.dims();
    if matches!(ours.dtype(), DType::F32 | DType::BF16) {
        let view = float_view(Level::Widest, &ours)?;
        let elements: Elements<'_> = view.as_slice()?.into();
        return Ok(outcome(&DumpTensor { shape, elements }, theirs, noise));
    }
    let integers = ours.to_dtype(DType::I64)?;
    let view = host_view(&integers)?;
    let elements = Elements::I64(view.slice::<i64>()?.into());
    Ok(outcome(&DumpTensor { shape, elements }, theirs, noise))
}

/// The reference's tensor as ours would be: its device and its dtype.
fn replacement(theirs: &DumpTensor<'_>, ours: &Tensor) -> Result<Tensor> {
    let values = Tensor::from_vec(theirs.elements.to_f32(), theirs.shape, &Device::Cpu)?;
    Ok(values.to_dtype(ours.dtype())?.to_device(ours.device())?)
}
