//! `config.json` → [`RawConfig`], as the file has it → [`Config`], with every default resolved and every relation checked.

mod raw;

use crate::error::{Error, Result};
use crate::kv::{KvLayer, KvLayout};
use crate::models::ModelSource;
use crate::models::load::OneOrMany;
use raw::{RawText, RawVision};

pub use raw::RawConfig;

/// Which rotary table and mask a layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// Sees the last `sliding_window` tokens.
    Sliding,
    /// Sees all.
    Full,
}

/// Everything one decoder layer needs to know about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// Its mask and rotary table.
    pub kind: LayerKind,
    /// Width of a head, `D`.
    pub head_dim: usize,
    /// Key and value heads, `K`.
    pub num_key_value_heads: usize,
    /// Width of its MLP.
    pub intermediate_size: usize,
    /// The layer whose keys and values it reads, if it owns none.
    pub reads_kv_of: Option<usize>,
}

/// The decoder.
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// Entries of the vocabulary, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `C`.
    pub hidden_size: usize,
    /// Query heads, `H`.
    pub num_attention_heads: usize,
    /// Of every norm.
    pub rms_norm_eps: f64,
    /// Bound of the logits.
    pub final_logit_softcapping: Option<f32>,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Tokens a sliding layer sees, the newest included.
    pub sliding_window: usize,
    /// Inverse frequencies of the sliding layers, `[D / 2]`.
    pub sliding_inv_freq: Vec<f32>,
    /// Inverse frequencies of the full layers, `[D / 2]`; zero where a pair is not rotated.
    pub full_inv_freq: Vec<f32>,
    /// Width of the per-layer embeddings, and entries of their table; `None` if the model has none.
    pub per_layer_input: Option<PerLayerInput>,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The id embedded where an image's placeholder is.
    pub pad_token_id: u32,
    /// One per layer, in order.
    pub layers: Vec<LayerPlan>,
}

/// The per-layer embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayerInput {
    /// Width per layer, `P`.
    pub width: usize,
    /// Entries of the table.
    pub vocab_size: usize,
}

/// The vision tower.
#[derive(Clone, Debug)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Heads of queries, keys and values alike.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Pixels along a side of a patch.
    pub patch_size: usize,
    /// Patches along a side of a soft token.
    pub pooling_kernel_size: usize,
    /// Positions along one axis.
    pub position_embedding_size: usize,
    /// Whether linears clamp what goes in and out.
    pub use_clipped_linears: bool,
    /// Whether soft tokens are standardized.
    pub standardize: bool,
    /// Of every norm.
    pub rms_norm_eps: f64,
    /// Inverse frequencies of one axis, `[head_dim / 4]`.
    pub inv_freq: Vec<f32>,
}

/// A Gemma 4 checkpoint.
#[derive(Clone, Debug)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower, if there is one.
    pub vision: Option<VisionConfig>,
    /// The ids of image, video and audio placeholders: they are embedded as padding.
    pub placeholder_ids: Vec<u32>,
    /// `eos_token_id` of the top level, for checkpoints without `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Prefix of the decoder's tensors.
    pub text_prefix: &'static str,
    /// Whether the checkpoint has an audio tower, which this build leaves alone.
    pub has_audio: bool,
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// `InvalidModel` if a field is missing, out of range or contradicts another; `Unsupported` if it asks for what
    /// is not built yet.
    pub fn read(source: &ModelSource) -> Result<Self> {
        let bytes = source.require("config.json")?;
        let raw = RawConfig::parse(&bytes)?;
        Self::try_from(raw).map_err(|e| e.context("config.json"))
    }

    /// Which layer owns keys and values.
    pub fn kv_layout(&self) -> KvLayout {
        let layer = |plan: &LayerPlan| match plan.reads_kv_of {
            Some(layer_idx) => KvLayer::Reads { layer_idx },
            None => KvLayer::Owns {
                num_key_value_heads: plan.num_key_value_heads,
                head_dim: plan.head_dim,
                window: self.text.window(plan.kind),
            },
        };
        KvLayout { layers: self.text.layers.iter().map(layer).collect() }
    }
}

impl TextConfig {
    /// How many tokens back a layer of this kind sees.
    pub fn window(&self, kind: LayerKind) -> Option<usize> {
        (kind == LayerKind::Sliding).then_some(self.sliding_window)
    }

    /// How many layers, from the first, own keys and values: prompt tokens need no others.
    pub fn num_owning_layers(&self) -> usize {
        self.layers.iter().take_while(|plan| plan.reads_kv_of.is_none()).count()
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = Error;

    fn try_from(raw: RawConfig) -> Result<Self> {
        let (text_prefix, has_audio) = (raw.text_prefix(), raw.has_audio());
        let eos_token_ids = raw.eos_token_id.clone().map(OneOrMany::into_vec).unwrap_or_default();
        let placeholder_ids = [raw.image_token_id, raw.video_token_id, raw.audio_token_id].into_iter().flatten().collect();
        let vision = raw.vision_config.as_ref().map(vision).transpose().map_err(|e| e.context("vision_config"))?;
        let tied = raw.tie_word_embeddings;
        let text = raw.text_config.ok_or_else(|| Error::invalid_model("text_config is missing"))?;
        let text = text_config(&text, tied).map_err(|e| e.context("text_config"))?;
        Ok(Self { text, vision, placeholder_ids, eos_token_ids, text_prefix, has_audio })
    }
}

fn text_config(raw: &RawText, tied: Option<bool>) -> Result<TextConfig> {
    refuse_unsupported(raw)?;
    let layers = layer_plans(raw)?;
    let head_dim = |kind| layers.iter().find(|plan| plan.kind == kind).map_or(2, |plan| plan.head_dim);
    let per_layer_width = raw.size_or_zero("hidden_size_per_layer_input", raw.hidden_size_per_layer_input, 256)?;
    let vocab_size = raw::size("vocab_size", raw.vocab_size, 262_144)?;
    let per_layer_vocab = raw::size("vocab_size_per_layer_input", raw.vocab_size_per_layer_input, 262_144)?;
    Ok(TextConfig {
        vocab_size,
        hidden_size: raw::size("hidden_size", raw.hidden_size, 2304)?,
        num_attention_heads: raw::size("num_attention_heads", raw.num_attention_heads, 8)?,
        rms_norm_eps: raw::eps(raw.rms_norm_eps)?,
        final_logit_softcapping: soft_cap(raw.final_logit_softcapping)?,
        max_position_embeddings: raw::size("max_position_embeddings", raw.max_position_embeddings, 131_072)?,
        sliding_window: raw::size("sliding_window", raw.sliding_window, 512)?,
        sliding_inv_freq: raw.inv_freq(LayerKind::Sliding, head_dim(LayerKind::Sliding))?,
        full_inv_freq: raw.inv_freq(LayerKind::Full, head_dim(LayerKind::Full))?,
        per_layer_input: (per_layer_width > 0)
            .then_some(PerLayerInput { width: per_layer_width, vocab_size: per_layer_vocab }),
        tie_word_embeddings: tied.or(raw.tie_word_embeddings).unwrap_or(true),
        pad_token_id: raw.pad_token_id.unwrap_or(0),
        layers,
    })
}

/// What later models of the family need and this build does not have.
fn refuse_unsupported(raw: &RawText) -> Result<()> {
    let refuse = |field: &str, found: &str| {
        Err(Error::unsupported(format_args!("{field} is {found}, which is not supported yet")))
    };
    if raw.enable_moe_block.unwrap_or(false) {
        return refuse("enable_moe_block", "true");
    }
    if raw.attention_k_eq_v.unwrap_or(false) {
        return refuse("attention_k_eq_v", "true");
    }
    if let Some(value) = &raw.use_bidirectional_attention {
        return refuse("use_bidirectional_attention", value);
    }
    if raw.attention_bias.unwrap_or(false) {
        return refuse("attention_bias", "true");
    }
    raw::only_tanh_gelu(raw.hidden_activation.as_deref())
}

fn soft_cap(value: Option<f32>) -> Result<Option<f32>> {
    match value {
        Some(cap) if !(cap.is_finite() && cap > 0.0) => {
            Err(Error::invalid_model(format_args!("final_logit_softcapping is {cap}, expected a positive number")))
        }
        cap => Ok(cap),
    }
}

fn layer_plans(raw: &RawText) -> Result<Vec<LayerPlan>> {
    let kinds = raw.layer_kinds()?;
    let num_layers = kinds.len();
    let num_shared = raw.num_kv_shared_layers.unwrap_or(0);
    if num_shared >= num_layers {
        return Err(Error::invalid_model(format_args!(
            "num_kv_shared_layers is {num_shared}, expected less than the {num_layers} layers"
        )));
    }
    let num_owning = num_layers - num_shared;
    let intermediate_size = raw::size("intermediate_size", raw.intermediate_size, 9216)?;
    let shared_factor = if raw.use_double_wide_mlp.unwrap_or(false) { 2 } else { 1 };
    let plan = |layer_idx: usize| -> Result<LayerPlan> {
        let kind = kinds[layer_idx];
        let shares = layer_idx >= num_owning;
        let donor = || kinds[..num_owning].iter().rposition(|other| *other == kind);
        let reads_kv_of = match (shares, donor()) {
            (true, None) => {
                return Err(Error::invalid_model(format_args!(
                    "layer {layer_idx} shares keys and values, but no {kind:?} layer below {num_owning} owns any"
                )));
            }
            (shares, donor) => donor.filter(|_| shares),
        };
        Ok(LayerPlan {
            kind,
            head_dim: raw.head_dim(layer_idx, kind)?,
            num_key_value_heads: raw.num_key_value_heads(layer_idx)?,
            intermediate_size: if shares { shared_factor * intermediate_size } else { intermediate_size },
            reads_kv_of,
        })
    };
    let plans = (0..num_layers).map(plan).collect::<Result<Vec<_>>>()?;
    check_heads(raw, &plans)?;
    Ok(plans)
}

/// Query heads must divide among key heads; one kind of layer has one head width; a reader must fit its donor.
fn check_heads(raw: &RawText, plans: &[LayerPlan]) -> Result<()> {
    let heads = raw::size("num_attention_heads", raw.num_attention_heads, 8)?;
    for (layer_idx, plan) in plans.iter().enumerate() {
        if !heads.is_multiple_of(plan.num_key_value_heads) {
            return Err(Error::invalid_model(format_args!(
                "layer {layer_idx}: {heads} query heads do not divide among {} key heads",
                plan.num_key_value_heads
            )));
        }
        let alike = plans.iter().find(|other| other.kind == plan.kind).unwrap_or(plan);
        let donor = &plans[plan.reads_kv_of.unwrap_or(layer_idx)];
        if alike.head_dim != plan.head_dim || donor.num_key_value_heads != plan.num_key_value_heads {
            return Err(Error::invalid_model(format_args!(
                "layer {layer_idx}: {} heads of {}, expected those of the layer it is alike to: {} of {}",
                plan.num_key_value_heads, plan.head_dim, donor.num_key_value_heads, alike.head_dim
            )));
        }
    }
    Ok(())
}

fn vision(raw: &RawVision) -> Result<VisionConfig> {
    raw::only_tanh_gelu(raw.hidden_activation.as_deref())?;
    let head_dim = raw::size("head_dim", raw.head_dim, 64)?;
    let heads = raw::size("num_attention_heads", raw.num_attention_heads, 12)?;
    let kv_heads = raw::size("num_key_value_heads", raw.num_key_value_heads, heads)?;
    if !head_dim.is_multiple_of(4) || kv_heads != heads {
        return Err(Error::invalid_model(format_args!(
            "heads: expected a head_dim that is a multiple of 4 and as many key heads as query heads, \
             found {head_dim}, {heads} and {kv_heads}"
        )));
    }
    if raw.attention_bias.unwrap_or(false) {
        return Err(Error::unsupported("attention_bias is true, which is not supported yet"));
    }
    Ok(VisionConfig {
        hidden_size: raw::size("hidden_size", raw.hidden_size, 768)?,
        intermediate_size: raw::size("intermediate_size", raw.intermediate_size, 3072)?,
        num_hidden_layers: raw::num_layers(raw.num_hidden_layers, 16)?,
        num_attention_heads: heads,
        head_dim,
        patch_size: raw::size("patch_size", raw.patch_size, 16)?,
        pooling_kernel_size: raw::size("pooling_kernel_size", raw.pooling_kernel_size, 3)?,
        position_embedding_size: raw::size("position_embedding_size", raw.position_embedding_size, 10_240)?,
        use_clipped_linears: raw.use_clipped_linears.unwrap_or(false),
        standardize: raw.standardize.unwrap_or(false),
        rms_norm_eps: raw::eps(raw.rms_norm_eps)?,
        inv_freq: raw.inv_freq(head_dim)?,
    })
}

#[cfg(test)]
mod tests;
