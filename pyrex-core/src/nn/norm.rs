//! [`RmsNorm`].

use crate::error::Result;
use crate::fault::{Fault, Faults};
use crate::ops::activation;
use crate::ops::rms_norm::{AddNorm, Norm, add_norm, rms_norm};
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Tensor};

/// Root mean square norm over the last axis, with the scale as stored or without one.
pub struct RmsNorm {
    weight: Option<Tensor>,
    eps: f64,
    path: String,
    faults: Faults,
}

impl RmsNorm {
    /// Loads `<path>.weight`, `[len]`.
    ///
    /// # Errors
    /// As [`Weights::vector`].
    pub fn load(weights: &Weights<'_>, len: usize, eps: f64) -> Result<Self> {
        let mut weight = weights.vector("weight", len)?;
        if weights.faults().has(Fault::NormOffset) {
            weight = (weight + 1.0)?;
        }
        Ok(Self { weight: Some(weight), ..Self::unscaled(weights, eps) })
    }

    /// A norm without a scale; it has no tensor in the checkpoint, only a path to be seen under.
    pub fn unscaled(weights: &Weights<'_>, eps: f64) -> Self {
        Self { weight: None, eps, path: weights.path().to_string(), faults: weights.faults() }
    }

    /// Same shape as `x`. Shows the output.
    ///
    /// # Errors
    /// `Internal` if the widths differ; whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, x: &Tensor) -> Result<Tensor> {
        let normed = match &self.weight {
            Some(weight) if self.faults.has(Fault::Bf16Rounding) => {
                let rounded = rms_norm(x, None, self.eps)?.to_dtype(DType::BF16)?;
                rounded.broadcast_mul(&weight.to_dtype(DType::BF16)?)?.to_dtype(x.dtype())?
            }
            weight => rms_norm(x, weight.as_ref(), self.eps)?,
        };
        tap.see(|| self.path.clone(), normed)
    }

    /// The norm as an op that does more takes it.
    pub fn parts(&self) -> Norm<'_> {
        Norm { weight: self.weight.as_ref(), eps: self.eps }
    }

    /// The same, unless somebody watches or the norm must be run as it never should be: then it runs alone.
    pub fn fused(&self, tap: &dyn Tap) -> Option<Norm<'_>> {
        let alone = tap.watching() || self.faults.has(Fault::Bf16Rounding);
        (!alone).then(|| self.parts())
    }

    /// The end of a branch: `(residual + norm(x)) · scale`, and that as `next` norms it, unless `next` must be seen alone.
    /// `residual`, `x`: `[T, C]`. Shows the norm's output.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn add_to(
        &self,
        tap: &mut dyn Tap,
        residual: &Tensor,
        x: &Tensor,
        scale: f32,
        next: Option<&RmsNorm>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        if let Some(norm) = self.fused(tap) {
            let next = next.and_then(|next| next.fused(tap));
            return add_norm(x, &AddNorm { residual, norm, scale, next });
        }
        let sum = (residual + self.forward(tap, x)?)?;
        Ok((activation::scale(&sum, scale)?, None))
    }
}
