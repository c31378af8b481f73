//! [`ModelDescription`]: what a checkpoint is, as plain data, without loading its weights.

use super::ModelSource;
use super::load::family_of;
use crate::error::Result;

/// What a checkpoint is and how large it is. Whoever prints it needs to know no family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelDescription {
    /// The family that reads it.
    pub family: &'static str,
    /// The architecture that `config.json` names.
    pub architecture: String,
    /// The settings that matter, by their names in `config.json`, in a sensible order.
    pub config: Vec<(String, String)>,
    /// The decoder's layers in order.
    pub layers: Vec<LayerDescription>,
    /// The parts and their weights, in the order of a forward pass.
    pub components: Vec<ComponentDescription>,
    /// Bytes of weights that one decoded token reads: everything but the tables of which it reads a row.
    pub decode_bytes: u64,
    /// Elements of keys and values that one token takes over all layers.
    pub kv_elements_per_token: usize,
    /// Whatever of the checkpoint this build cannot run, one clear phrase each; empty if all of it runs.
    pub unsupported: Vec<String>,
}

/// One decoder layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerDescription {
    /// What it attends to, such as `sliding 512` or `full`.
    pub attention: String,
    /// Its cache, such as `own 1 × 256` or `reads layer 13`.
    pub kv: String,
    /// Whatever else tells it from its neighbours, such as `mlp 6144`.
    pub notes: String,
}

/// One part of a model and its weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentDescription {
    /// Its name.
    pub name: String,
    /// How many parameters it has.
    pub num_parameters: u64,
    /// How many bytes they take in the files.
    pub num_bytes: u64,
}

impl ModelDescription {
    /// Parameters of all components.
    pub fn num_parameters(&self) -> u64 {
        self.components.iter().map(|component| component.num_parameters).fold(0, u64::saturating_add)
    }

    /// Bytes of all components.
    pub fn num_bytes(&self) -> u64 {
        self.components.iter().map(|component| component.num_bytes).fold(0, u64::saturating_add)
    }
}

/// Describes a checkpoint from its small files and the headers of its large ones.
///
/// # Errors
/// `InvalidModel` if a file is missing or wrong, `Unsupported` if no family answers to the architecture.
pub fn describe(source: &ModelSource) -> Result<ModelDescription> {
    (family_of(source)?.describe)(source)
}
