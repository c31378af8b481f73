//! What a Gemma 4 checkpoint is made of, from its config and the headers of its files.

use super::config::{Config, LayerKind, LayerPlan};
use super::load_parts;
use crate::error::{ErrorKind, Result};
use crate::models::load::architectures;
use crate::models::{ComponentDescription, LayerDescription, ModelDescription, ModelSource};
use crate::weights::Store;
use crate::weights::files::Files;
use candle_core::DType;

const TOKEN_EMBEDDINGS: &str = "token embeddings";
const DECODER_LAYERS: &str = "decoder layers";
const OUTPUT_HEAD: &str = "output head";

/// Describes the checkpoint; what this build cannot run is named, not refused.
pub(super) fn describe(source: &ModelSource) -> Result<ModelDescription> {
    let config = match Config::read(source) {
        Ok(config) => config,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let unsupported = vec![error.message().to_string()];
            return Ok(ModelDescription { unsupported, ..named(source)? });
        }
        Err(error) => return Err(error),
    };
    let components = components(source, &config)?;
    let bytes = |name: &str| components.iter().filter(|part| part.name == name).map(|part| part.num_bytes).sum::<u64>();
    // A tied head reads the whole embedding table; one of its own stands beside it.
    let head = if config.text.tie_word_embeddings { TOKEN_EMBEDDINGS } else { OUTPUT_HEAD };
    let mut description = ModelDescription {
        config: settings(&config),
        layers: config.text.layers.iter().map(|plan| layer(&config, plan)).collect(),
        decode_bytes: bytes(DECODER_LAYERS).saturating_add(bytes(head)),
        components,
        kv_elements_per_token: config.kv_layout().elements_per_token(),
        ..named(source)?
    };
    if config.has_audio {
        description.unsupported.push("audio_config: audio input is not supported yet; text and images run".to_string());
    }
    Ok(description)
}

fn named(source: &ModelSource) -> Result<ModelDescription> {
    let architecture = architectures(source)?.into_iter().next().unwrap_or_default();
    Ok(ModelDescription { family: super::FAMILY.name, architecture, ..ModelDescription::default() })
}

fn settings(config: &Config) -> Vec<(String, String)> {
    let text = &config.text;
    let mut settings = vec![
        ("vocab_size", text.vocab_size.to_string()),
        ("hidden_size", text.hidden_size.to_string()),
        ("num_hidden_layers", text.layers.len().to_string()),
        ("num_attention_heads", text.num_attention_heads.to_string()),
        ("num_kv_shared_layers", (text.layers.len() - text.num_owning_layers()).to_string()),
        ("sliding_window", text.sliding_window.to_string()),
        ("max_position_embeddings", text.max_position_embeddings.to_string()),
        ("hidden_size_per_layer_input", text.per_layer_input.map_or(0, |input| input.width).to_string()),
        ("final_logit_softcapping", text.final_logit_softcapping.map_or("none".to_string(), |cap| cap.to_string())),
    ];
    if let Some(vision) = &config.vision {
        settings.push(("vision_config.num_hidden_layers", vision.num_hidden_layers.to_string()));
        settings.push(("vision_config.hidden_size", vision.hidden_size.to_string()));
        settings.push(("vision_config.use_clipped_linears", vision.use_clipped_linears.to_string()));
    }
    settings.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn layer(config: &Config, plan: &LayerPlan) -> LayerDescription {
    LayerDescription {
        attention: match plan.kind {
            LayerKind::Sliding => format!("sliding {}", config.text.sliding_window),
            LayerKind::Full => "full".to_string(),
        },
        kv: match plan.reads_kv_of {
            Some(layer_idx) => format!("reads layer {layer_idx}"),
            None => format!("own {} × {}", plan.num_key_value_heads, plan.head_dim),
        },
        notes: format!("head_dim {}, mlp {}", plan.head_dim, plan.intermediate_size),
    }
}

/// Every tensor that would be read, and every other one in the files, by the part it belongs to.
fn components(source: &ModelSource, config: &Config) -> Result<Vec<ComponentDescription>> {
    let store = Store::shapes();
    load_parts(&store, config, DType::F32, DType::F32)?;
    let files = source.weight_files().and_then(Files::open).ok();
    let asked = store.asked();
    let mut components: Vec<ComponentDescription> = Vec::new();
    for asked in &asked {
        let size = files.as_ref().and_then(|files| files.size(&asked.name));
        let (parameters, bytes) = size.unwrap_or((asked.num_elements() as u64, asked.num_bytes));
        add(&mut components, part_of(config, &asked.name), parameters, bytes);
    }
    let read: std::collections::BTreeSet<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
    for (name, files) in files.iter().flat_map(|files| files.names().map(move |name| (name, files))) {
        if let (false, Some((parameters, bytes))) = (read.contains(name), files.size(name)) {
            add(&mut components, "in the files, not read", parameters, bytes);
        }
    }
    Ok(components)
}

fn add(components: &mut Vec<ComponentDescription>, name: &str, num_parameters: u64, num_bytes: u64) {
    match components.iter_mut().find(|component| component.name == name) {
        Some(component) => {
            component.num_parameters = component.num_parameters.saturating_add(num_parameters);
            component.num_bytes = component.num_bytes.saturating_add(num_bytes);
        }
        None => components.push(ComponentDescription { name: name.to_string(), num_parameters, num_bytes }),
    }
}

fn part_of(config: &Config, name: &str) -> &'static str {
    let of_text = name.strip_prefix(config.text_prefix).map(|rest| rest.trim_start_matches('.'));
    match (of_text, name) {
        (Some(rest), _) if rest.starts_with("embed_tokens_per_layer") => "per-layer embedding table",
        (Some(rest), _) if rest.starts_with("embed_tokens") => TOKEN_EMBEDDINGS,
        (_, name) if name.starts_with("model.vision_tower") || name.starts_with("model.embed_vision") => "vision tower",
        (_, name) if name.starts_with("lm_head") => OUTPUT_HEAD,
        _ => DECODER_LAYERS,
    }
}
