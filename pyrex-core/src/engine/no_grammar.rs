//! [`GrammarCompiler`] of a build without the feature `llguidance`: it refuses every grammar.

use super::constraint::{Grammar, TokenConstraint};
use crate::error::{Error, Result};
use crate::prompt::detokenizer::TokenBytes;

/// Compiles nothing.
pub struct GrammarCompiler;

impl GrammarCompiler {
    /// A compiler that needs no vocabulary.
    ///
    /// # Errors
    /// None.
    pub fn new(_vocabulary: &[TokenBytes], _stop_ids: &[u32]) -> Result<Self> {
        Ok(Self)
    }

    /// The same compiler.
    pub fn with_marks(self, _marks: &[u32]) -> Self {
        self
    }

    /// Refuses the grammar.
    ///
    /// # Errors
    /// `Unsupported`, always.
    pub fn compile(&self, _grammar: &Grammar) -> Result<Box<dyn TokenConstraint>> {
        Err(Error::unsupported("a grammar: this build is without the feature llguidance"))
    }
}
