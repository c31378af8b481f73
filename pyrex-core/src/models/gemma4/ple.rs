//! Per-layer embeddings: a small vector per token and layer, one part looked up by the token, one projected from its context.
//!
//! The order matters. The token part needs ids alone, with an image's placeholders read as padding. The context part is
//! projected from the embeddings *after* the image was put into place; projecting it before was one of the bugs this
//! engine began with.

use super::config::{PerLayerInput, TextConfig};
use crate::error::Result;
use crate::nn::{Embedding, Linear, RmsNorm};
use crate::ops::activation::scale;
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Tensor};
use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

/// The tables and projections shared by all layers.
pub struct PerLayerEmbeddings {
    embed_tokens_per_layer: Embedding,
    per_layer_model_projection: Linear,
    per_layer_projection_norm: RmsNorm,
    /// `hidden_size^-½`.
    projection_scale: f32,
    num_layers: usize,
    width: usize,
    path: String,
}

impl PerLayerEmbeddings {
    /// Loads `embed_tokens_per_layer` and the projection under `weights`.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load(weights: &Weights<'_>, config: &TextConfig, input: PerLayerInput, dtype: DType) -> Result<Self> {
        let (num_layers, width) = (config.layers.len(), input.width);
        let table =
            weights.at("embed_tokens_per_layer").matrix("weight", &[input.vocab_size, num_layers * width])?;
        // One row per token and layer, so that a token's first layers can be read without the rest.
        let (rows, cols) = (table.rows() * num_layers, table.cols() / num_layers);
        let projection = weights.at("per_layer_model_projection");
        Ok(Self {
            embed_tokens_per_layer: Embedding::new(table.reshaped(rows, cols)?, (width as f64).sqrt(), dtype, weights.faults()),
            per_layer_model_projection: Linear::load(&projection, config.hidden_size, num_layers * width)?,
            per_layer_projection_norm: RmsNorm::load(
                &weights.at("per_layer_projection_norm"),
                width,
                config.rms_norm_eps,
            )?,
            projection_scale: (config.hidden_size as f64).powf(-0.5) as f32,
            num_layers,
            width,
            path: weights.path().to_string(),
        })
    }

    /// The inputs of `layers` for each row, `[T, layers.len(), P]`.
    ///
    /// `input_ids`: `[T]`, placeholders already replaced; `inputs_embeds`: `[T, C]`, images already in place.
    ///
    /// # Errors
    /// `InvalidRequest` if an id is not in the table; whatever the tap says.
    pub fn forward(
        &self,
        tap: &mut dyn Tap,
        input_ids: &Tensor,
        inputs_embeds: &Tensor,
        layers: Range<usize>,
    ) -> Result<Tensor> {
        let by_token = self.by_token(tap, input_ids, layers.clone())?;
        let by_context = self.by_context(tap, inputs_embeds, layers)?;
        scale(&(by_context + by_token)?, FRAC_1_SQRT_2)
    }

    fn by_token(&self, tap: &mut dyn Tap, input_ids: &Tensor, layers: Range<usize>) -> Result<Tensor> {
        let rows = input_ids.dim(0)?;
        let offsets = Tensor::arange(layers.start as u32, layers.end as u32, input_ids.device())?;
        let num_layers = Tensor::full(self.num_layers as u32, 1, input_ids.device())?;
        let first = input_ids.broadcast_mul(&num_layers)?.reshape((rows, 1))?;
        let table_rows = first.broadcast_add(&offsets.reshape((1, layers.len()))?)?.flatten_all()?;
        let by_token = self.embed_tokens_per_layer.forward(&table_rows)?.reshape((rows, layers.len(), self.width))?;
        tap.see(|| format!("{}.per_layer_inputs", self.path), by_token)
    }

    fn by_context(&self, tap: &mut dyn Tap, inputs_embeds: &Tensor, layers: Range<usize>) -> Result<Tensor> {
        let rows = layers.start * self.width..layers.end * self.width;
        let raw = self.per_layer_model_projection.forward_rows(inputs_embeds, rows)?;
        let raw = tap.see(|| self.per_layer_model_projection.path().to_string(), raw)?;
        let scaled = scale(&raw, self.projection_scale)?;
        let by_layer = scaled.reshape((inputs_embeds.dim(0)?, layers.len(), self.width))?;
        self.per_layer_projection_norm.forward(tap, &by_layer)
    }
}
