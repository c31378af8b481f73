//! The decoder: sliding and full layers, shared keys and values, per-layer embeddings, soft-capped logits.
//!
//! Rows whose logits nobody wants run only as deep as the cache needs them ([`PromptDepth::CacheOnly`]): through the
//! layers below the last one that owns keys and values, and of that one only keys and values. The wanted rows go on alone.

use super::config::{LayerKind, LayerPlan, TextConfig};
use super::ple::PerLayerEmbeddings;
use crate::batch::{Batch, PromptDepth, Queries};
use crate::error::Result;
use crate::fault::{Fault, Faults};
use crate::kv::{KvPool, LayerKv};
use crate::nn::{Attention, AttentionRows, AttentionShape, Embedding, GatedMlp, Linear, RmsNorm};
use crate::ops::activation::{gelu_mul, soft_cap};
use crate::ops::gather::{scatter_rows, select_rows};
use crate::ops::matmul::matmul;
use crate::ops::rope::RopeTable;
use crate::ops::Matrix;
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Tensor};

/// The decoder and its output head.
pub struct Decoder {
    embed_tokens: Embedding,
    per_layer_embeddings: Option<PerLayerEmbeddings>,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// `None` if the head is the embedding table.
    lm_head: Option<Matrix>,
    final_logit_softcapping: Option<f32>,
    sliding_inv_freq: Tensor,
    full_inv_freq: Tensor,
    /// The last layer that owns keys and values.
    last_owner: usize,
    vocab_size: usize,
    dtype: DType,
    path: String,
    faults: Faults,
}

struct DecoderLayer {
    kind: LayerKind,
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
    per_layer: Option<PerLayerInjection>,
    layer_scalar: f32,
    path: String,
}

struct PerLayerInjection {
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: RmsNorm,
    path: String,
}

/// The rows that run through a layer, and what they carry besides their hidden states.
struct Rows {
    sliding: AttentionRows,
    full: AttentionRows,
    /// `[T, layers, P]`, for the layers from `first_layer` on.
    per_layer_inputs: Option<Tensor>,
    first_layer: usize,
}

impl Decoder {
    /// Loads the tensors under `weights`, and the head under `root` if it is not tied.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load(root: &Weights<'_>, weights: &Weights<'_>, config: &TextConfig, dtype: DType) -> Result<Self> {
        let table = weights.at("embed_tokens").matrix("weight", &[config.vocab_size, config.hidden_size])?;
        let untied = || root.at("lm_head").matrix("weight", &[config.vocab_size, config.hidden_size]);
        let per_layer = |input| PerLayerEmbeddings::load(weights, config, input, dtype);
        let layers = config.layers.iter().enumerate();
        let faults = weights.faults();
        let mut full_inv_freq = config.full_inv_freq.clone();
        if faults.has(Fault::RopeHalf) {
            full_inv_freq.reverse();
        }
        Ok(Self {
            embed_tokens: Embedding::new(table, (config.hidden_size as f64).sqrt(), dtype, faults),
            per_layer_embeddings: config.per_layer_input.map(per_layer).transpose()?,
            layers: layers
                .map(|(layer_idx, plan)| DecoderLayer::load(&weights.at("layers").at(layer_idx), config, plan))
                .collect::<Result<_>>()?,
            norm: RmsNorm::load(&weights.at("norm"), config.hidden_size, config.rms_norm_eps)?,
            lm_head: if config.tie_word_embeddings { None } else { Some(untied()?) },
            final_logit_softcapping: config.final_logit_softcapping,
            sliding_inv_freq: Tensor::new(config.sliding_inv_freq.as_slice(), weights.device())?,
            full_inv_freq: Tensor::new(full_inv_freq.as_slice(), weights.device())?,
            last_owner: config.num_owning_layers() - 1,
            vocab_size: config.vocab_size,
            dtype,
            path: weights.path().to_string(),
            faults,
        })
    }

    /// Runs the batch and returns the logits of the wanted rows, `[R, V]` f32. `input_ids`: the batch's, with
    /// placeholders already read as padding.
    ///
    /// # Errors
    /// As [`Model::forward`](crate::models::Model::forward).
    pub fn forward(&self, tap: &mut dyn Tap, input_ids: &Tensor, batch: &Batch, kv: &KvPool) -> Result<Tensor> {
        let (context_embeds, inputs_embeds) = self.embed(tap, input_ids, batch)?;
        let cut = match batch.prompt_depth {
            PromptDepth::CacheOnly => self.last_owner,
            PromptDepth::AllLayers => self.layers.len(),
        };
        let mut rows = self.rows(tap, &batch.queries, input_ids, &context_embeds, 0..cut)?;
        let mut hidden_states = inputs_embeds;
        // What the next layer begins with, if the last one could make it along with its own output.
        let mut next_normed = None;
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            tap.proceed()?;
            let layer_kv = kv.layer(layer_idx)?;
            let norm = || layer.input_layernorm.forward(tap, &hidden_states);
            let mut normed = next_normed.take().map_or_else(norm, Ok)?;
            layer.self_attn.write(tap, &normed, &rows.of(layer.kind).rope, batch, layer_kv)?;
            if layer_idx == cut && batch.logit_rows.dim(0)? == 0 {
                let one = Tensor::zeros((1, self.vocab_size), DType::F32, batch.device())?;
                return Ok(one.narrow(0, 0, 0)?);
            }
            if layer_idx == cut {
                let wanted = |x: &Tensor| select_rows(x, &batch.logit_rows);
                let (ids, embeds) = (wanted(input_ids)?, wanted(&context_embeds)?);
                rows = self.rows(tap, &batch.logit_queries, &ids, &embeds, cut..self.layers.len())?;
                (hidden_states, normed) = (wanted(&hidden_states)?, wanted(&normed)?);
            }
            let per_layer_input = rows.per_layer_input(tap, layer_idx, &layer.path)?;
            let step = LayerStep { rows: rows.of(layer.kind), batch, kv: layer_kv, per_layer_input };
            let next = self.layers.get(layer_idx + 1).map_or(&self.norm, |layer| &layer.input_layernorm);
            (hidden_states, next_normed) = layer.forward(tap, &hidden_states, &normed, step, next)?;
        }
        if cut == self.layers.len() {
            hidden_states = select_rows(&hidden_states, &batch.logit_rows)?;
            next_normed = next_normed.map(|normed| select_rows(&normed, &batch.logit_rows)).transpose()?;
        }
        let normed = next_normed.map_or_else(|| self.norm.forward(tap, &hidden_states), Ok)?;
        self.logits(tap, &normed)
    }

    /// Embeddings with the images put into place: those that per-layer inputs are projected from, and those that the
    /// first layer gets. They are the same.
    fn embed(&self, tap: &mut dyn Tap, input_ids: &Tensor, batch: &Batch) -> Result<(Tensor, Tensor)> {
        let embeds = tap.see(|| format!("{}.embed_tokens", self.path), self.embed_tokens.forward(input_ids)?)?;
        let inputs_embeds = match &batch.soft_tokens {
            Some(soft_tokens) => scatter_rows(&embeds, &soft_tokens.rows, &soft_tokens.embeds)?,
            None => embeds.clone(),
        };
        let inputs_embeds = tap.see(|| format!("{}.inputs_embeds", self.path), inputs_embeds)?;
        let context_embeds = if self.faults.has(Fault::ContextBeforeImages) { embeds } else { inputs_embeds.clone() };
        Ok((context_embeds, inputs_embeds))
    }

    fn rows(
        &self,
        tap: &mut dyn Tap,
        queries: &Queries,
        input_ids: &Tensor,
        inputs_embeds: &Tensor,
        layers: std::ops::Range<usize>,
    ) -> Result<Rows> {
        let rope = |inv_freq| RopeTable::new(&queries.positions, inv_freq, self.dtype);
        let first_layer = layers.start;
        let per_layer_inputs = match &self.per_layer_embeddings {
            Some(ple) if !layers.is_empty() => Some(ple.forward(tap, input_ids, inputs_embeds, layers)?),
            _ => None,
        };
        Ok(Rows {
            sliding: AttentionRows { queries: queries.clone(), rope: rope(&self.sliding_inv_freq)? },
            full: AttentionRows { queries: queries.clone(), rope: rope(&self.full_inv_freq)? },
            per_layer_inputs,
            first_layer,
        })
    }

    /// Head and soft cap. Shows the logits before and after the cap.
    fn logits(&self, tap: &mut dyn Tap, normed: &Tensor) -> Result<Tensor> {
        let logits = match &self.lm_head {
            Some(lm_head) => matmul(normed, lm_head)?,
            None => self.embed_tokens.logits(normed)?,
        };
        let mut logits = tap.see(|| "lm_head".to_string(), logits)?;
        if let Some(cap) = self.final_logit_softcapping {
            logits = soft_cap(&logits, cap)?;
            if self.faults.has(Fault::SoftCapTwice) {
                logits = soft_cap(&logits, cap)?;
            }
        }
        tap.see(|| "logits".to_string(), logits.to_dtype(DType::F32)?)
    }
}

impl Rows {
    fn of(&self, kind: LayerKind) -> &AttentionRows {
        match kind {
            LayerKind::Sliding => &self.sliding,
            LayerKind::Full => &self.full,
        }
    }

    /// `[T, P]`, what this layer is given.
    fn per_layer_input(&self, tap: &mut dyn Tap, layer_idx: usize, path: &str) -> Result<Option<Tensor>> {
        let Some(inputs) = &self.per_layer_inputs else { return Ok(None) };
        let input = inputs.narrow(1, layer_idx - self.first_layer, 1)?.squeeze(1)?;
        tap.see(|| format!("{path}.per_layer_input"), input).map(Some)
    }
}

/// What a layer needs besides hidden states.
struct LayerStep<'a> {
    rows: &'a AttentionRows,
    batch: &'a Batch,
    kv: &'a LayerKv,
    per_layer_input: Option<Tensor>,
}

impl DecoderLayer {
    fn load(weights: &Weights<'_>, config: &TextConfig, plan: &LayerPlan) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(&weights.at(name), config.hidden_size, config.rms_norm_eps);
        let (mlp, attention) = (weights.at("mlp"), weights.at("self_attn"));
        let faults = weights.faults();
        let shape = AttentionShape {
            hidden_size: config.hidden_size,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: plan.num_key_value_heads,
            head_dim: plan.head_dim,
            window: config.window(plan.kind).map(|window| window + usize::from(faults.has(Fault::WindowOffByOne))),
            rms_norm_eps: config.rms_norm_eps,
        };
        let (hidden_size, intermediate_size) = (config.hidden_size, plan.intermediate_size);
        let injection = |input| PerLayerInjection::load(weights, config, input);
        let layer_scalar = weights.scalar("layer_scalar", &[1], 0.5)?;
        let scalar_dropped = faults.has_in(Fault::LayerScalarDropped, weights.path());
        Ok(Self {
            kind: plan.kind,
            input_layernorm: norm("input_layernorm")?,
            self_attn: match plan.reads_kv_of {
                None => Attention::load_owning(&attention, shape)?,
                Some(_) => Attention::load_reading(&attention, shape)?,
            },
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp {
                gate_proj: Linear::load(&mlp.at("gate_proj"), hidden_size, intermediate_size)?,
                up_proj: Linear::load(&mlp.at("up_proj"), hidden_size, intermediate_size)?,
                down_proj: Linear::load(&mlp.at("down_proj"), intermediate_size, hidden_size)?,
                path: mlp.path().to_string(),
            },
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            per_layer: config.per_layer_input.map(|input| injection(input.width)).transpose()?,
            layer_scalar: if scalar_dropped { 1.0 } else { layer_scalar },
            path: weights.path().to_string(),
        })
    }

    /// `hidden_states` and `normed`: `[T, C]`, the latter after the input norm. Returns `[T, C]` and, where both can be made
    /// at once, that normed by `next`.
    fn forward(
        &self,
        tap: &mut dyn Tap,
        hidden_states: &Tensor,
        normed: &Tensor,
        step: LayerStep<'_>,
        next: &RmsNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let attended = self.self_attn.attend(tap, normed, step.rows, step.batch, step.kv)?;
        let mlp_norm = &self.pre_feedforward_layernorm;
        let (x, normed) = self.post_attention_layernorm.add_to(tap, hidden_states, &attended, 1.0, Some(mlp_norm))?;
        let x = tap.see(|| format!("{}.pre_feedforward_layernorm.input", self.path), x)?;
        let normed = normed.map_or_else(|| mlp_norm.forward(tap, &x), Ok)?;
        let fed = self.mlp.forward(tap, &normed)?;
        // The whole residual stream is scaled, not what this layer added to it.
        let (x, normed) = match (&self.per_layer, step.per_layer_input) {
            (Some(injection), Some(input)) => {
                let (x, _) = self.post_feedforward_layernorm.add_to(tap, &x, &fed, 1.0, None)?;
                injection.forward(tap, x, &input, self.layer_scalar, next)?
            }
            _ => self.post_feedforward_layernorm.add_to(tap, &x, &fed, self.layer_scalar, Some(next))?,
        };
        Ok((tap.see(|| self.path.clone(), x)?, normed))
    }
}

impl PerLayerInjection {
    fn load(weights: &Weights<'_>, config: &TextConfig, width: usize) -> Result<Self> {
        let norm = weights.at("post_per_layer_input_norm");
        Ok(Self {
            per_layer_input_gate: Linear::load(&weights.at("per_layer_input_gate"), config.hidden_size, width)?,
            per_layer_projection: Linear::load(&weights.at("per_layer_projection"), width, config.hidden_size)?,
            post_per_layer_input_norm: RmsNorm::load(&norm, config.hidden_size, config.rms_norm_eps)?,
            path: weights.path().to_string(),
        })
    }

    /// `x`: `[T, C]`, not normed; `input`: `[T, P]`. Returns what the layer does.
    fn forward(
        &self,
        tap: &mut dyn Tap,
        x: Tensor,
        input: &Tensor,
        layer_scalar: f32,
        next: &RmsNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let x = tap.see(|| format!("{}.per_layer_input_gate.input", self.path), x)?;
        let gated = if tap.watching() {
            gelu_mul(&self.per_layer_input_gate.forward(tap, &x)?, input)?
        } else {
            self.per_layer_input_gate.forward_gelu_mul(&x, input)?
        };
        let gated = tap.see(|| format!("{}.per_layer_projection.input", self.path), gated)?;
        let projected = self.per_layer_projection.forward(tap, &gated)?;
        self.post_per_layer_input_norm.add_to(tap, &x, &projected, layer_scalar, Some(next))
    }
}
