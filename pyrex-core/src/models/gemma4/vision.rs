//! The vision tower: patches to hidden states, all images of a batch in one run, without padding.
//!
//! Clipped linears, sandwich norms, 2-D rotary embedding, attention open inside each image, no norm at the end.
//! It runs in f32 unless somebody asks otherwise: rounding it to bf16 is how a red circle became a collection of stones.

use super::config::VisionConfig;
use super::pooler::Pooler;
use super::prompt::{patch_positions, pool_slots};
use crate::batch::ImageBatch;
use crate::error::{Error, Result};
use crate::fault::{Fault, Faults};
use crate::nn::{GatedMlp, Linear, RmsNorm};
use crate::ops::Matrix;
use crate::ops::activation::scale;
use crate::ops::attention::{segment_attention, segment_reference};
use crate::ops::gather::gather_rows;
use crate::ops::heads::norm_rope;
use crate::ops::rope::{RopeTable, rope};
use crate::prompt::Patches;
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor};

/// The tower.
pub struct VisionTower {
    patch_embedder: PatchEmbedder,
    layers: Vec<EncoderLayer>,
    pooler: Pooler,
    inv_freq: Tensor,
    dtype: DType,
}

struct PatchEmbedder {
    input_proj: Linear,
    position_embedding_table: Matrix,
    position_embedding_size: usize,
    dtype: DType,
    path: String,
}

struct EncoderLayer {
    input_layernorm: RmsNorm,
    self_attn: VisionAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
    path: String,
}

struct VisionAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    v_norm: RmsNorm,
    num_heads: usize,
    head_dim: usize,
    path: String,
    faults: Faults,
}

impl VisionTower {
    /// Loads the tensors under `model.vision_tower`.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load(weights: &Weights<'_>, config: &VisionConfig, dtype: DType) -> Result<Self> {
        let layers = weights.at("encoder").at("layers");
        Ok(Self {
            patch_embedder: PatchEmbedder::load(&weights.at("patch_embedder"), config, dtype)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer_idx| EncoderLayer::load(&layers.at(layer_idx), config))
                .collect::<Result<_>>()?,
            pooler: Pooler::load(weights, config)?,
            inv_freq: Tensor::new(config.inv_freq.as_slice(), weights.device())?,
            dtype,
        })
    }

    /// The soft tokens of `images`, `[S, hidden_size]` f32.
    ///
    /// # Errors
    /// `InvalidRequest` if an image has more patches along a side than the position table; whatever the tap says.
    pub fn forward(&self, tap: &mut dyn Tap, images: &ImageBatch) -> Result<Tensor> {
        let positions = tap.see(|| "prep.position_ids".to_string(), images.positions.clone())?;
        let mut hidden_states = self.patch_embedder.forward(tap, images, &positions)?;
        let rope_table = RopeTable::new(&positions, &self.inv_freq, self.dtype)?;
        for layer in &self.layers {
            tap.proceed()?;
            hidden_states = layer.forward(tap, &hidden_states, &rope_table, &images.segment_start)?;
        }
        self.pooler.forward(tap, &hidden_states, images)
    }
}

impl PatchEmbedder {
    fn load(weights: &Weights<'_>, config: &VisionConfig, dtype: DType) -> Result<Self> {
        let (hidden_size, positions) = (config.hidden_size, config.position_embedding_size);
        let patch_len = 3 * config.patch_size * config.patch_size;
        Ok(Self {
            input_proj: Linear::load(&weights.at("input_proj"), patch_len, hidden_size)?,
            position_embedding_table: weights.matrix("position_embedding_table", &[2, positions, hidden_size])?,
            position_embedding_size: positions,
            dtype,
            path: weights.path().to_string(),
        })
    }

    /// `2 (pixel / 255 - ½)` projected, plus one learned vector per column and one per row.
    fn forward(&self, tap: &mut dyn Tap, images: &ImageBatch, positions: &Tensor) -> Result<Tensor> {
        let pixel_values = scale(&images.pixels.to_dtype(DType::F32)?, 1.0 / 255.0)?;
        let pixel_values = tap.see(|| "prep.pixel_values".to_string(), pixel_values)?;
        let centred = ((pixel_values - 0.5)? * 2.0)?;
        let projected = self.input_proj.forward(tap, &centred.to_dtype(self.dtype)?)?;
        let row = |axis: usize| -> Result<Tensor> {
            let position = positions.narrow(1, axis, 1)?.flatten_all()?;
            let offset = (axis * self.position_embedding_size) as f64;
            let table_rows = self.position_embedding_table.rows_range(0..(axis + 1) * self.position_embedding_size)?;
            gather_rows(&table_rows, &(position.to_dtype(DType::I64)? + offset)?.to_dtype(DType::U32)?, self.dtype)
        };
        let position_embeds = (row(0)? + row(1)?)?;
        tap.see(|| self.path.clone(), (projected + position_embeds)?)
    }
}

impl EncoderLayer {
    fn load(weights: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(&weights.at(name), config.hidden_size, config.rms_norm_eps);
        let mlp = weights.at("mlp");
        let (hidden_size, intermediate_size) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: VisionAttention::load(&weights.at("self_attn"), config)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp {
                gate_proj: linear(&mlp.at("gate_proj"), config, hidden_size, intermediate_size)?,
                up_proj: linear(&mlp.at("up_proj"), config, hidden_size, intermediate_size)?,
                down_proj: linear(&mlp.at("down_proj"), config, intermediate_size, hidden_size)?,
                path: mlp.path().to_string(),
            },
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            path: weights.path().to_string(),
        })
    }

    fn forward(&self, tap: &mut dyn Tap, x: &Tensor, rope_table: &RopeTable, segment_start: &Tensor) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(tap, x)?;
        let attended = self.self_attn.forward(tap, &normed, rope_table, segment_start)?;
        let next = &self.pre_feedforward_layernorm;
        let (x, normed) = self.post_attention_layernorm.add_to(tap, x, &attended, 1.0, Some(next))?;
        let normed = normed.map_or_else(|| next.forward(tap, &x), Ok)?;
        let fed = self.mlp.forward(tap, &normed)?;
        let (x, _) = self.post_feedforward_layernorm.add_to(tap, &x, &fed, 1.0, None)?;
        tap.see(|| self.path.clone(), x)
    }
}

impl VisionAttention {
    fn load(weights: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let (hidden_size, head_dim) = (config.hidden_size, config.head_dim);
        let features = config.num_attention_heads * head_dim;
        let eps = config.rms_norm_eps;
        Ok(Self {
            q_proj: linear(&weights.at("q_proj"), config, hidden_size, features)?,
            k_proj: linear(&weights.at("k_proj"), config, hidden_size, features)?,
            v_proj: linear(&weights.at("v_proj"), config, hidden_size, features)?,
            o_proj: linear(&weights.at("o_proj"), config, features, hidden_size)?,
            q_norm: RmsNorm::load(&weights.at("q_norm"), head_dim, eps)?,
            k_norm: RmsNorm::load(&weights.at("k_norm"), head_dim, eps)?,
            v_norm: RmsNorm::unscaled(&weights.at("v_norm"), eps),
            num_heads: config.num_attention_heads,
            head_dim,
            path: weights.path().to_string(),
            faults: weights.faults(),
        })
    }

    fn forward(&self, tap: &mut dyn Tap, x: &Tensor, rope_table: &RopeTable, segment_start: &Tensor) -> Result<Tensor> {
        let patches = x.dim(0)?;
        let heads = (patches, self.num_heads, self.head_dim);
        let q = self.q_proj.forward(tap, x)?.reshape(heads)?;
        let k = self.k_proj.forward(tap, x)?.reshape(heads)?;
        let v = self.v_proj.forward(tap, x)?.reshape(heads)?;
        let rotated = |tap: &mut dyn Tap, norm: &RmsNorm, x: &Tensor| match norm.fused(tap) {
            Some(norm) => norm_rope(x, norm, rope_table),
            None => rope(&norm.forward(tap, x)?, rope_table),
        };
        let q = rotated(tap, &self.q_norm, &q)?;
        let q = tap.see(|| format!("{}.q_rope", self.path), q)?;
        let k = rotated(tap, &self.k_norm, &k)?;
        let k = tap.see(|| format!("{}.k_rope", self.path), k)?;
        let v = self.v_norm.forward(tap, &v)?;
        let context = match self.faults.has(Fault::Bf16Rounding) {
            true => segment_reference(&q, &k, &v, segment_start, 1.0, DType::BF16)?,
            false => segment_attention(&q, &k, &v, segment_start, 1.0)?,
        };
        let context = context.reshape((patches, self.num_heads * self.head_dim))?;
        let context = tap.see(|| format!("{}.o_proj.input", self.path), context)?;
        let out = self.o_proj.forward(tap, &context)?;
        tap.see(|| self.path.clone(), out)
    }
}

fn linear(weights: &Weights<'_>, config: &VisionConfig, in_features: usize, out_features: usize) -> Result<Linear> {
    if config.use_clipped_linears {
        Linear::load_clipped(weights, in_features, out_features)
    } else {
        Linear::load_unclipped(weights, in_features, out_features)
    }
}

/// Lays `images` out one after another on `device`.
///
/// # Errors
/// `Internal` if an image's grid is not made of whole tiles, or its pixels are not as many as its patches hold.
pub fn image_batch(
    images: &[&Patches],
    config: &VisionConfig,
    device: &Device,
    faults: Faults,
) -> Result<ImageBatch> {
    let (k, patch_len) = (config.pooling_kernel_size, 3 * config.patch_size * config.patch_size);
    let (mut pixels, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
    let (mut segment_start, mut num_soft_tokens) = (vec![0u32], 0usize);
    for image in images {
        let (columns, rows) = (image.columns, image.rows);
        if !columns.is_multiple_of(k) || !rows.is_multiple_of(k) || image.pixels.len() != columns * rows * patch_len {
            return Err(Error::internal(format_args!(
                "an image of {columns} × {rows} patches with {} pixel values, expected sides that are multiples of {k} \
                 and {patch_len} values a patch",
                image.pixels.len()
            )));
        }
        pixels.extend_from_slice(&image.pixels);
        let axes = |[x, y]: [u32; 2]| if faults.has(Fault::AxesSwapped) { [y, x] } else { [x, y] };
        positions.extend(patch_positions(columns, rows).flat_map(axes));
        slots.extend(pool_slots(columns, rows, k, num_soft_tokens));
        num_soft_tokens += (columns / k) * (rows / k);
        segment_start.push(slots.len() as u32);
    }
    let patches = slots.len();
    Ok(ImageBatch {
        pixels: Tensor::from_vec(pixels, (patches, patch_len), device)?,
        positions: Tensor::from_vec(positions, (patches, 2), device)?,
        segment_start: Tensor::from_vec(segment_start, images.len() + 1, device)?,
        pool_slots: Tensor::from_vec(slots, patches, device)?,
        num_soft_tokens,
    })
}
