//! Where a Gemma 4 checkpoint keeps its tensors, and which of them nobody reads.

use super::config::Config;

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
