//! Gemma 4.

use super::{Family, LoadOptions, LoadedModel};
use crate::error::{Error, Result};

pub mod prompt;

/// Gemma 4, E2B and E4B.
pub const FAMILY: Family =
    Family { name: "gemma4", architectures: &["Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"], load };

fn load(_options: &LoadOptions) -> Result<LoadedModel> {
    Err(Error::unsupported("not yet"))
}
