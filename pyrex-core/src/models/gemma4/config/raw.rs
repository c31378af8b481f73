//! `config.json` as the file has it: every field optional, both layouts of the per-layer head sizes.

use super::LayerKind;
use crate::error::{Error, Result};
use crate::models::load::{OneOrMany, parse_json};
use crate::nn::rotary::{proportional_inv_freq, standard_inv_freq};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The top level of `config.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawConfig {
    pub(super) architectures: Vec<String>,
    pub(super) text_config: Option<RawText>,
    pub(super) vision_config: Option<RawVision>,
    pub(super) audio_config: Option<IgnoredAny>,
    pub(super) image_token_id: Option<u32>,
    pub(super) video_token_id: Option<u32>,
    pub(super) audio_token_id: Option<u32>,
    pub(super) eos_token_id: Option<OneOrMany>,
    pub(super) tie_word_embeddings: Option<bool>,
}

/// `text_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawText {
    pub(super) vocab_size: Option<usize>,
    pub(super) vocab_size_per_layer_input: Option<usize>,
    pub(super) hidden_size: Option<usize>,
    pub(super) hidden_size_per_layer_input: Option<usize>,
    pub(super) intermediate_size: Option<usize>,
    pub(super) num_hidden_layers: Option<usize>,
    pub(super) num_attention_heads: Option<usize>,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) num_global_key_value_heads: Option<usize>,
    pub(super) num_kv_shared_layers: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) global_head_dim: Option<usize>,
    pub(super) per_layer_config: Option<BTreeMap<String, RawLayer>>,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) sliding_window: Option<usize>,
    pub(super) max_position_embeddings: Option<usize>,
    pub(super) rope_parameters: Option<RawRopes>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) final_logit_softcapping: Option<f32>,
    pub(super) hidden_activation: Option<String>,
    pub(super) use_double_wide_mlp: Option<bool>,
    pub(super) use_bidirectional_attention: Option<String>,
    pub(super) attention_k_eq_v: Option<bool>,
    pub(super) attention_bias: Option<bool>,
    pub(super) enable_moe_block: Option<bool>,
    pub(super) tie_word_embeddings: Option<bool>,
    pub(super) pad_token_id: Option<u32>,
}

/// What one layer overrides, in the layout that transformers itself writes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLayer {
    head_dim: Option<usize>,
    num_key_value_heads: Option<usize>,
}

/// `rope_parameters` of the decoder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRopes {
    sliding_attention: Option<RawRope>,
    full_attention: Option<RawRope>,
}

/// One rotary table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRope {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

/// `vision_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawVision {
    pub(super) hidden_size: Option<usize>,
    pub(super) intermediate_size: Option<usize>,
    pub(super) num_hidden_layers: Option<usize>,
    pub(super) num_attention_heads: Option<usize>,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) patch_size: Option<usize>,
    pub(super) pooling_kernel_size: Option<usize>,
    pub(super) position_embedding_size: Option<usize>,
    pub(super) use_clipped_linears: Option<bool>,
    pub(super) standardize: Option<bool>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) hidden_activation: Option<String>,
    pub(super) attention_bias: Option<bool>,
    pub(super) rope_parameters: Option<RawRope>,
}

/// Above every published size, and small enough that products of three of them fit.
const MAX_SIZE: usize = 1 << 20;
const MAX_LAYERS: usize = 1024;

/// `value`, or `default` where the file is silent; between 1 and 2²⁰.
pub(super) fn size(field: &str, value: Option<usize>, default: usize) -> Result<usize> {
    match value.unwrap_or(default) {
        size if (1..=MAX_SIZE).contains(&size) => Ok(size),
        size => Err(Error::invalid_model(format_args!("{field} is {size}, expected between 1 and {MAX_SIZE}"))),
    }
}

/// `num_hidden_layers`.
pub(super) fn num_layers(value: Option<usize>, default: usize) -> Result<usize> {
    match size("num_hidden_layers", value, default)? {
        num_layers if num_layers <= MAX_LAYERS => Ok(num_layers),
        num_layers => Err(Error::invalid_model(format_args!(
            "num_hidden_layers is {num_layers}, expected at most {MAX_LAYERS}"
        ))),
    }
}

/// `rms_norm_eps`.
pub(super) fn eps(value: Option<f64>) -> Result<f64> {
    match value.unwrap_or(1e-6) {
        eps if eps > 0.0 && eps < 1.0 => Ok(eps),
        eps => Err(Error::invalid_model(format_args!("rms_norm_eps is {eps}, expected between 0 and 1"))),
    }
}

/// The only activation of the family.
pub(super) fn only_tanh_gelu(value: Option<&str>) -> Result<()> {
    match value.unwrap_or("gelu_pytorch_tanh") {
        "gelu_pytorch_tanh" => Ok(()),
        other => Err(Error::unsupported(format_args!("hidden_activation is {other:?}, expected \"gelu_pytorch_tanh\""))),
    }
}

impl RawConfig {
    /// Reads the JSON. A checkpoint of the decoder alone has its fields at the top level.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut raw: Self = parse_json("config.json", bytes)?;
        if raw.is_decoder_alone() && raw.text_config.is_none() {
            raw.text_config = Some(parse_json("config.json", bytes)?);
        }
        Ok(raw)
    }

    /// Prefix of the decoder's tensors.
    pub(super) fn text_prefix(&self) -> &'static str {
        if self.is_decoder_alone() { "model" } else { "model.language_model" }
    }

    /// Whether the checkpoint has an audio tower.
    pub(super) fn has_audio(&self) -> bool {
        self.audio_config.is_some()
    }

    fn is_decoder_alone(&self) -> bool {
        self.architectures.iter().any(|name| name == "Gemma4ForCausalLM")
    }
}

impl RawText {
    /// As [`size`], where 0 means that the model has none.
    pub(super) fn size_or_zero(&self, field: &str, value: Option<usize>, default: usize) -> Result<usize> {
        if value == Some(0) { Ok(0) } else { size(field, value, default) }
    }

    /// The kind of every layer; without `layer_types` every sixth is full, and the last always is.
    pub(super) fn layer_kinds(&self) -> Result<Vec<LayerKind>> {
        let num_layers = num_layers(self.num_hidden_layers, 30)?;
        let default = |i: usize| if (i + 1).is_multiple_of(6) { LayerKind::Full } else { LayerKind::Sliding };
        let mut kinds = match &self.layer_types {
            None => (0..num_layers).map(default).collect(),
            Some(names) => names.iter().map(|name| layer_kind(name)).collect::<Result<Vec<_>>>()?,
        };
        if kinds.len() != num_layers {
            return Err(Error::invalid_model(format_args!("layer_types has {} layers, expected {num_layers}", kinds.len())));
        }
        kinds[num_layers - 1] = LayerKind::Full;
        Ok(kinds)
    }

    /// The head width of a layer, from whichever layout the file has.
    pub(super) fn head_dim(&self, layer_idx: usize, kind: LayerKind) -> Result<usize> {
        let head_dim = size("head_dim", self.head_dim, 256)?;
        let head_dim = match (self.overrides(layer_idx)?, kind) {
            (Some(layer), _) => size("per_layer_config.head_dim", layer.head_dim, head_dim)?,
            (None, LayerKind::Full) => size("global_head_dim", self.global_head_dim, 512)?,
            (None, LayerKind::Sliding) => head_dim,
        };
        if !head_dim.is_multiple_of(2) {
            return Err(Error::invalid_model(format_args!("layer {layer_idx}: head_dim is {head_dim}, expected an even number")));
        }
        Ok(head_dim)
    }

    /// The key heads of a layer. `num_global_key_value_heads` counts only with `attention_k_eq_v`, which is refused above.
    pub(super) fn num_key_value_heads(&self, layer_idx: usize) -> Result<usize> {
        let heads = size("num_key_value_heads", self.num_key_value_heads, 4)?;
        let own = self.overrides(layer_idx)?.and_then(|layer| layer.num_key_value_heads);
        size("per_layer_config.num_key_value_heads", own, heads)
    }

    /// What `per_layer_config` says of a layer; `None` if the file has the other layout. Its keys are zero-padded decimals.
    fn overrides(&self, layer_idx: usize) -> Result<Option<RawLayer>> {
        let Some(layers) = &self.per_layer_config else { return Ok(None) };
        let num_layers = self.num_hidden_layers.unwrap_or(30);
        let mut found = RawLayer::default();
        for (key, layer) in layers {
            match key.parse::<usize>() {
                Ok(index) if index == layer_idx => found = layer.clone(),
                Ok(index) if index < num_layers => {}
                _ => {
                    return Err(Error::invalid_model(format_args!(
                        "per_layer_config has the key {key:?}, expected a layer below {num_layers}"
                    )));
                }
            }
        }
        Ok(Some(found))
    }

    /// The inverse frequencies of one kind of layer.
    pub(super) fn inv_freq(&self, kind: LayerKind, head_dim: usize) -> Result<Vec<f32>> {
        let ropes = self.rope_parameters.clone().unwrap_or_default();
        let (rope, default_type, default_theta) = match kind {
            LayerKind::Sliding => (ropes.sliding_attention.unwrap_or_default(), "default", 10_000.0),
            LayerKind::Full => (ropes.full_attention.unwrap_or_default(), "proportional", 1_000_000.0),
        };
        let theta = theta(rope.rope_theta, default_theta)?;
        match rope.rope_type.as_deref().unwrap_or(default_type) {
            "default" => Ok(standard_inv_freq(head_dim, theta)),
            "proportional" => {
                let factor = rope.partial_rotary_factor.unwrap_or(if default_type == "default" { 1.0 } else { 0.25 });
                if !(0.0..=1.0).contains(&factor) {
                    return Err(Error::invalid_model(format_args!("partial_rotary_factor is {factor}, expected 0 to 1")));
                }
                Ok(proportional_inv_freq(head_dim, theta, factor))
            }
            other => Err(Error::unsupported(format_args!("rope_type is {other:?}, expected \"default\" or \"proportional\""))),
        }
    }
}

impl RawVision {
    /// The inverse frequencies of one axis: a half of the head each.
    pub(super) fn inv_freq(&self, head_dim: usize) -> Result<Vec<f32>> {
        let rope = self.rope_parameters.clone().unwrap_or_default();
        match rope.rope_type.as_deref().unwrap_or("axial") {
            "axial" | "default" => Ok(standard_inv_freq(head_dim / 2, theta(rope.rope_theta, 100.0)?)),
            other => Err(Error::unsupported(format_args!("rope_type is {other:?}, expected \"axial\""))),
        }
    }
}

fn theta(value: Option<f64>, default: f64) -> Result<f64> {
    match value.unwrap_or(default) {
        theta if theta.is_finite() && theta > 1.0 => Ok(theta),
        theta => Err(Error::invalid_model(format_args!("rope_theta is {theta}, expected more than 1"))),
    }
}

fn layer_kind(name: &str) -> Result<LayerKind> {
    match name {
        "sliding_attention" => Ok(LayerKind::Sliding),
        "full_attention" => Ok(LayerKind::Full),
        other => Err(Error::invalid_model(format_args!(
            "layer_types has {other:?}, expected \"sliding_attention\" or \"full_attention\""
        ))),
    }
}
