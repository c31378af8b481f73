//! [`Linear`]: `x · Wᵀ`, with or without bounds around it.

use crate::error::Result;
use crate::fault::Fault;
use crate::ops::Matrix;
use crate::ops::matmul::{Clip, clipped_matmul, gated_matmul, matmul, matmul_gelu_mul, matmul_pair};
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::Tensor;

/// A linear layer without bias. A clipped one clamps its input and its output.
pub struct Linear {
    weight: Matrix,
    clip: Option<Clip>,
    path: String,
}

impl Linear {
    /// Loads `<path>.weight`, `[out_features, in_features]`.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load(weights: &Weights<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let weight = weights.matrix("weight", &[out_features, in_features])?;
        Ok(Self { weight, clip: None, path: weights.path().to_string() })
    }

    /// Loads `<path>.linear.weight` and the four bounds `<path>.{input,output}_{min,max}`; a missing bound does not clip.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load_clipped(weights: &Weights<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let bound = |name: &str, missing: f32, dummy: f32| {
            if weights.has(name) { weights.scalar(name, &[], dummy) } else { Ok(missing) }
        };
        let clip = Clip {
            input: (bound("input_min", f32::NEG_INFINITY, -8.0)?, bound("input_max", f32::INFINITY, 8.0)?),
            output: (bound("output_min", f32::NEG_INFINITY, -8.0)?, bound("output_max", f32::INFINITY, 8.0)?),
        };
        let clip = if weights.faults().has(Fault::ClipIgnored) { Clip::NONE } else { clip };
        Ok(Self { clip: Some(clip), ..Self::load_unclipped(weights, in_features, out_features)? })
    }

    /// Loads `<path>.linear.weight` without bounds.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load_unclipped(weights: &Weights<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let weight = weights.at("linear").matrix("weight", &[out_features, in_features])?;
        Ok(Self { weight, clip: None, path: weights.path().to_string() })
    }

    /// `x`: `[T, in_features]`; returns `[T, out_features]`. Shows the output, and inside a clipped linear
    /// `.input_clamped` and `.linear`.
    ///
    /// # Errors
    /// `Internal` if the widths differ; whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, x: &Tensor) -> Result<Tensor> {
        let y = match &self.clip {
            None => matmul(x, &self.weight)?,
            Some(clip) if !tap.watching_steps() => clipped_matmul(x, &self.weight, clip)?,
            Some(clip) => self.forward_in_steps(tap, x, clip)?,
        };
        tap.see(|| self.path.clone(), y)
    }

    fn forward_in_steps(&self, tap: &mut dyn Tap, x: &Tensor, clip: &Clip) -> Result<Tensor> {
        let x = x.clamp(clip.input.0, clip.input.1)?;
        let x = tap.see(|| format!("{}.input_clamped", self.path), x)?;
        let y = tap.see(|| format!("{}.linear", self.path), matmul(&x, &self.weight)?)?;
        Ok(y.clamp(clip.output.0, clip.output.1)?)
    }

    /// `gelu_tanh(gate(x)) · up(x)`. Shown to nobody.
    ///
    /// # Errors
    /// `Internal` if the widths differ.
    pub fn forward_gated(gate: &Self, up: &Self, x: &Tensor) -> Result<Tensor> {
        let bounds = |linear: &Self| linear.clip.unwrap_or(Clip::NONE);
        gated_matmul(x, (&gate.weight, &bounds(gate)), (&up.weight, &bounds(up)))
    }

    /// `gelu_tanh(self(x)) · up`, without bounds. Shown to nobody.
    ///
    /// # Errors
    /// `Internal` if the widths differ.
    pub fn forward_gelu_mul(&self, x: &Tensor, up: &Tensor) -> Result<Tensor> {
        matmul_gelu_mul(x, &self.weight, up)
    }

    /// The outputs of two linears without bounds. Shown to nobody.
    ///
    /// # Errors
    /// `Internal` if the widths differ.
    pub fn forward_pair(first: &Self, second: &Self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        matmul_pair(x, &first.weight, &second.weight)
    }

    /// Rows `rows` of the product alone: `[T, rows.len()]`. Shown to nobody.
    ///
    /// # Errors
    /// `Internal` if there are no such rows.
    pub fn forward_rows(&self, x: &Tensor, rows: std::ops::Range<usize>) -> Result<Tensor> {
        matmul(x, &self.weight.rows_range(rows)?)
    }

    /// The path of its weights.
    pub fn path(&self) -> &str {
        &self.path
    }
}
