//! Taps: watch, or replace, a named tensor while a model runs.
//!
//! A model part writes `let x = tap.see(|| format!("{name}.q_proj"), x)?` where a reader would want to look.
//! The name is the module's path in the checkpoint; it is built only if somebody watches, so a
//! [`NoTap`] costs one virtual call. What a name means:
//!
//! - `<module>` is that module's output, `<module>.input` what goes into it;
//! - `<module>.input_clamped` and `<module>.linear` stand inside a clipped linear, before and after its product.

use crate::error::Result;
use candle_core::Tensor;

/// Watches the tensors of a forward pass, and may hand back others in their place.
pub trait Tap {
    /// Whether anybody looks at all; `false` spares the building of names.
    fn watching(&self) -> bool;

    /// Called with each named tensor; a returned tensor of the same shape replaces it from there on.
    ///
    /// # Errors
    /// Whatever the tap says; the forward pass stops with it.
    fn visit(&mut self, name: &str, tensor: &Tensor) -> Result<Option<Tensor>>;

    /// Asked before each layer whether the pass should go on.
    ///
    /// # Errors
    /// Whatever the tap says; the pass ends with it, and what it has written to the cache is of no use.
    fn proceed(&mut self) -> Result<()> {
        Ok(())
    }
}

impl dyn Tap + '_ {
    /// Shows `tensor` under the name that `name` builds, and returns it or its replacement.
    ///
    /// # Errors
    /// Whatever the tap says.
    pub fn see(&mut self, name: impl FnOnce() -> String, tensor: Tensor) -> Result<Tensor> {
        if !self.watching() {
            return Ok(tensor);
        }
        let replacement = self.visit(&name(), &tensor)?;
        Ok(replacement.unwrap_or(tensor))
    }
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn watching(&self) -> bool {
        false
    }

    fn visit(&mut self, _name: &str, _tensor: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}
