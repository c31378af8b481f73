//! [`GatedMlp`].

use super::Linear;
use crate::error::Result;
use crate::ops::activation::gelu_mul;
use crate::trace::Tap;
use candle_core::Tensor;

/// `down_proj(gelu_tanh(gate_proj(x)) · up_proj(x))`.
pub struct GatedMlp {
    /// `C` to `I`.
    pub gate_proj: Linear,
    /// `C` to `I`.
    pub up_proj: Linear,
    /// `I` to `C`.
    pub down_proj: Linear,
    /// The path of the module.
    pub path: String,
}

impl GatedMlp {
    /// `x`: `[T, C]`; returns the same shape. Shows `.down_proj.input` and the output.
    ///
    /// # Errors
    /// `Internal` if the widths differ; whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, x: &Tensor) -> Result<Tensor> {
        if !tap.watching() {
            let gated = Linear::forward_gated(&self.gate_proj, &self.up_proj, x)?;
            return self.down_proj.forward(tap, &gated);
        }
        let gate = self.gate_proj.forward(tap, x)?;
        let up = self.up_proj.forward(tap, x)?;
        let gated = tap.see(|| format!("{}.down_proj.input", self.path), gelu_mul(&gate, &up)?)?;
        let down = self.down_proj.forward(tap, &gated)?;
        tap.see(|| self.path.clone(), down)
    }
}
