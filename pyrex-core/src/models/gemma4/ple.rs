//! Per-layer embeddings: a small vector per token and layer, one part looked up by the token, one projected from its context.
//!
//! The order matters. The token part needs ids alone, with an image's placeholders read as padding. The context part is
//! projected from the embeddings *after* the image was put into place; projecting it before was one of the bugs this
//! engine began with.

use super::config::{PerLayerInput, TextConfig};
use crate::error::Result;
use crate::nn::{Embedding, Linear, RmsNorm};
use crate::ops::activation::scale;
use crate::ops::per_layer::{PerLayer, add_parts, by_token, per_layer_inputs};
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Shape, Tensor};
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
            weights.at("embed_tokens_per_layer").table("weight", &[input.vocab_size, num_layers * width])?;
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
        let (table, factor) = self.embed_tokens_per_layer.parts();
        let norm = self.per_layer_projection_norm.parts();
        let (num_layers, projection_scale) = (self.num_layers, self.projection_scale);
        let rows = layers.start * self.width..layers.end * self.width;
        let per_layer = PerLayer { table, factor, num_layers, layers, projection_scale, norm };
        let raw = self.per_layer_model_projection.forward_rows(inputs_embeds, rows)?;
        match self.per_layer_projection_norm.fused(tap) {
            Some(_) => per_layer_inputs(&raw, input_ids, &per_layer),
            None => self.in_steps(tap, raw, input_ids, &per_layer),
        }
    }

    /// As the fused op does it, with everything shown.
    fn in_steps(&self, tap: &mut dyn Tap, raw: Tensor, input_ids: &Tensor, per_layer: &PerLayer<'_>) -> Result<Tensor> {
        let by_token = by_token(input_ids, per_layer, raw.dtype())?;
        let by_token = tap.see(|| format!("{}.per_layer_inputs", self.path), by_token)?;
        add_parts(&self.by_context(tap, raw, by_token.shape())?, &by_token)
    }

    fn by_context(&self, tap: &mut dyn Tap, raw: Tensor, shape: &Shape) -> Result<Tensor> {
        let raw = tap.see(|| self.per_layer_model_projection.path().to_string(), raw)?;
        let scaled = scale(&raw, self.projection_scale)?.reshape(shape)?;
        self.per_layer_projection_norm.forward(tap, &scaled)
    }
}
