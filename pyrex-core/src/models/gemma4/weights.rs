//! Where a Gemma 4 checkpoint keeps its tensors, which of them nobody reads, and which tap shows what was made with one.

use super::config::Config;
use crate::weights::{Asked, UsedWeight, WeightUse};
use std::collections::BTreeMap;

/// The weight that went into what `tap` shows: most stand under the tap's own name.
pub fn weight_of<'a>(
    config: &Config,
    tensors: &'a BTreeMap<String, Asked>,
    tap: &str,
) -> Option<UsedWeight<'a>> {
    let used = |name: &str, how| tensors.get(name).map(|weight| UsedWeight { weight, how });
    let table = |name: &str| format!("{}.{name}.weight", config.text_prefix);
    match tap.strip_prefix(config.text_prefix) {
        None if tap == "lm_head" && config.text.tie_word_embeddings => {
            return used(&table("embed_tokens"), WeightUse::Product);
        }
        Some(".embed_tokens") => return used(&table("embed_tokens"), WeightUse::Rows),
        Some(".per_layer_inputs") => return used(&table("embed_tokens_per_layer"), WeightUse::Rows),
        _ => {}
    }
    ["weight", "linear.weight", "layer_scalar"].into_iter().find_map(|suffix| {
        let weight = tensors.get(&format!("{tap}.{suffix}"))?;
        let how = if weight.shape.len() == 2 { WeightUse::Product } else { WeightUse::Scale };
        Some(UsedWeight { weight, how })
    })
}

/// Whether a tensor may be in the file without being used: the audio tower, and keys and values of layers that read
/// another layer's (the published checkpoints carry them; the reference ignores them too).
pub fn is_inert(config: &Config, name: &str) -> bool {
    if name.starts_with("model.audio_tower.") || name.starts_with("model.embed_audio.") {
        return true;
    }
    if name == "lm_head.weight" {
        return config.text.tie_word_embeddings;
    }
    let Some(rest) = name.strip_prefix(config.text_prefix).and_then(|rest| rest.strip_prefix(".layers.")) else {
        return false;
    };
    let Some((layer_idx, tensor)) = rest.split_once('.') else { return false };
    let shared = layer_idx.parse().is_ok_and(|layer_idx: usize| {
        config.text.layers.get(layer_idx).is_some_and(|plan| plan.reads_kv_of.is_some())
    });
    shared && matches!(tensor, "self_attn.k_proj.weight" | "self_attn.v_proj.weight" | "self_attn.k_norm.weight")
}
