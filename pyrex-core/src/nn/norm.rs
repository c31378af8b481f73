//! [`RmsNorm`].

use crate::error::Result;
use crate::ops::rms_norm::rms_norm;
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::Tensor;

/// Root mean square norm over the last axis, with the scale as stored or without one.
pub struct RmsNorm {
    weight: Option<Tensor>,
    eps: f64,
    path: String,
}

impl RmsNorm {
    /// Loads `<path>.weight`, `[len]`.
    ///
    /// # Errors
    /// As [`Weights::vector`].
    pub fn load(weights: &Weights<'_>, len: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: Some(weights.vector("weight", len)?), eps, path: weights.path().to_string() })
    }

    /// A norm without a scale; it has no tensor in the checkpoint, only a path to be seen under.
    pub fn unscaled(weights: &Weights<'_>, eps: f64) -> Self {
        Self { weight: None, eps, path: weights.path().to_string() }
    }

    /// Same shape as `x`. Shows the output.
    ///
    /// # Errors
    /// `Internal` if the widths differ; whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, x: &Tensor) -> Result<Tensor> {
        tap.see(|| self.path.clone(), rms_norm(x, self.weight.as_ref(), self.eps)?)
    }
}
