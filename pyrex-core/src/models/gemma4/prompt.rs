//! Template, soft-token budget, placeholders.
use crate::error::Result;
use crate::models::{ModelSource, Processor};
use crate::prompt::{EncodedPrompt, Prompt, detokenizer::Detokenizer};
/// x
pub struct Gemma4Processor;
impl Gemma4Processor {
    /// x
    pub fn new(_: &ModelSource) -> Result<Self> { Ok(Self) }
}
impl Processor for Gemma4Processor {
    fn encode(&self, _: &Prompt) -> Result<EncodedPrompt> { Ok(EncodedPrompt::default()) }
    fn detokenizer(&self) -> Detokenizer { Detokenizer {} }
}
