//! From patches to soft tokens, and from the tower's space to the decoder's.

use super::config::VisionConfig;
use crate::batch::ImageBatch;
use crate::error::Result;
use crate::nn::{Linear, RmsNorm};
use crate::ops::pool::average_pool;
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Tensor};

/// Averages each `k × k` tile of patches into one soft token, scales by `sqrt(hidden_size)`, and standardizes if the
/// checkpoint says so.
///
/// Source: Transformers, `Gemma4VisionPooler`.
pub struct Pooler {
    tile_len: usize,
    root_hidden_size: f32,
    standardize: Option<Standardize>,
    path: String,
}

struct Standardize {
    std_bias: Tensor,
    std_scale: Tensor,
}

impl Pooler {
    /// Loads the tensors under `model.vision_tower`.
    ///
    /// # Errors
    /// As [`Weights::vector`].
    pub fn load(weights: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let load = || -> Result<Standardize> {
            Ok(Standardize {
                std_bias: weights.vector("std_bias", config.hidden_size)?,
                std_scale: weights.vector("std_scale", config.hidden_size)?,
            })
        };
        Ok(Self {
            tile_len: config.pooling_kernel_size * config.pooling_kernel_size,
            root_hidden_size: (config.hidden_size as f64).sqrt() as f32,
            standardize: config.standardize.then(load).transpose()?,
            path: weights.path().to_string(),
        })
    }

    /// `hidden_states`: `[P, hidden_size]`; returns `[S, hidden_size]` f32. Shows `.pooler` and the tower's output.
    ///
    /// # Errors
    /// Whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, hidden_states: &Tensor, images: &ImageBatch) -> Result<Tensor> {
        let slots = &images.pool_slots;
        let pooled =
            average_pool(hidden_states, slots, images.num_soft_tokens, self.tile_len, self.root_hidden_size)?;
        let mut pooled = tap.see(|| format!("{}.pooler", self.path), pooled)?;
        if let Some(Standardize { std_bias, std_scale }) = &self.standardize {
            pooled = pooled.broadcast_sub(std_bias)?.broadcast_mul(std_scale)?;
        }
        tap.see(|| self.path.clone(), pooled)
    }
}

/// Projects soft tokens into the space of the decoder's embeddings; what comes out is not scaled as embeddings are.
pub struct MultimodalEmbedder {
    embedding_pre_projection_norm: RmsNorm,
    embedding_projection: Linear,
    dtype: DType,
    path: String,
}

impl MultimodalEmbedder {
    /// Loads the tensors under `model.embed_vision`.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load(weights: &Weights<'_>, config: &VisionConfig, text_hidden_size: usize, dtype: DType) -> Result<Self> {
        let norm = weights.at("embedding_pre_projection_norm");
        let projection = weights.at("embedding_projection");
        Ok(Self {
            embedding_pre_projection_norm: RmsNorm::unscaled(&norm, config.rms_norm_eps),
            embedding_projection: Linear::load(&projection, config.hidden_size, text_hidden_size)?,
            dtype,
            path: weights.path().to_string(),
        })
    }

    /// `soft_tokens`: `[S, hidden_size]` f32; returns `[S, C]` in the decoder's dtype.
    ///
    /// # Errors
    /// Whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, soft_tokens: &Tensor) -> Result<Tensor> {
        let normed = self.embedding_pre_projection_norm.forward(tap, soft_tokens)?;
        let projected = self.embedding_projection.forward(tap, &normed)?;
        tap.see(|| self.path.clone(), projected.to_dtype(self.dtype)?)
    }
}
