use super::*;
use crate::error::ErrorKind;
use serde_json::{Value, json};

/// The published E2B configuration, as far as the decoder goes.
fn e2b() -> Value {
    let layer_types: Vec<&str> =
        (0..35).map(|i| if i % 5 == 4 { "full_attention" } else { "sliding_attention" }).collect();
    json!({
        "architectures": ["Gemma4ForConditionalGeneration"],
        "image_token_id": 258880, "video_token_id": 258884, "audio_token_id": 258881,
        "eos_token_id": [1, 106], "tie_word_embeddings": true,
        "text_config": {
            "vocab_size": 262144, "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35,
            "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512,
            "sliding_window": 512, "layer_types": layer_types, "final_logit_softcapping": 30.0,
            "num_kv_shared_layers": 20, "use_double_wide_mlp": true, "hidden_size_per_layer_input": 256
        },
        "vision_config": {"use_clipped_linears": true},
        "audio_config": {"hidden_size": 1024}
    })
}

fn config(json: &Value) -> Result<Config> {
    RawConfig::parse(json.to_string().as_bytes()).and_then(Config::try_from)
}

fn refused(change: impl FnOnce(&mut Value), kind: ErrorKind, words: &str) {
    let mut json = e2b();
    change(&mut json);
    let error = config(&json).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "{error}");
}

#[test]
fn e2b_layers_share_the_last_owner_of_their_kind() {
    let text = config(&e2b()).unwrap().text;
    assert_eq!(text.num_owning_layers(), 15);
    let donors: Vec<_> = text.layers.iter().map(|plan| plan.reads_kv_of).collect();
    assert!(donors[..15].iter().all(Option::is_none));
    assert_eq!(donors[15..20], [Some(13), Some(13), Some(13), Some(13), Some(14)]);
    assert_eq!((text.layers[3].head_dim, text.layers[4].head_dim), (256, 512));
    assert_eq!((text.layers[14].intermediate_size, text.layers[15].intermediate_size), (6144, 12288));
    assert_eq!(text.per_layer_input, Some(PerLayerInput { width: 256, vocab_size: 262_144 }));
}

#[test]
fn both_layouts_of_head_sizes_mean_the_same() {
    let published = config(&e2b()).unwrap().text.layers;
    let mut json = e2b();
    let text = json["text_config"].as_object_mut().unwrap();
    text.remove("global_head_dim");
    let overrides: serde_json::Map<_, _> =
        (0..35).filter(|i| i % 5 == 4).map(|i| (format!("{i:02}"), json!({"head_dim": 512}))).collect();
    text.insert("per_layer_config".into(), overrides.into());
    assert_eq!(config(&json).unwrap().text.layers, published);
}

#[test]
fn global_head_dim_is_ignored_next_to_per_layer_config() {
    let mut json = e2b();
    json["text_config"]["per_layer_config"] = json!({});
    let layers = config(&json).unwrap().text.layers;
    assert!(layers.iter().all(|plan| plan.head_dim == 256));
}

#[test]
fn what_is_not_built_yet_is_named() {
    use ErrorKind::Unsupported;
    refused(|c| c["text_config"]["enable_moe_block"] = true.into(), Unsupported, "enable_moe_block is true");
    refused(|c| c["text_config"]["attention_k_eq_v"] = true.into(), Unsupported, "attention_k_eq_v is true");
    let bidirectional = |c: &mut Value| c["text_config"]["use_bidirectional_attention"] = "vision".into();
    refused(bidirectional, Unsupported, "use_bidirectional_attention is vision");
}

#[test]
fn nonsense_is_refused_by_the_name_of_its_field() {
    use ErrorKind::InvalidModel;
    refused(|c| c["text_config"]["hidden_size"] = 0.into(), InvalidModel, "hidden_size is 0");
    refused(|c| c["text_config"]["vocab_size"] = (1u64 << 50).into(), InvalidModel, "vocab_size is 1125899906842624");
    refused(|c| c["text_config"]["num_kv_shared_layers"] = 35.into(), InvalidModel, "num_kv_shared_layers is 35");
    refused(|c| c["text_config"]["num_kv_shared_layers"] = 34.into(), InvalidModel, "layer 4 shares keys and values");
    refused(|c| c["text_config"]["num_key_value_heads"] = 3.into(), InvalidModel, "8 query heads do not divide");
    refused(|c| c["text_config"]["layer_types"] = json!(["full_attention"]), InvalidModel, "layer_types has 1 layers");
    refused(|c| c["text_config"]["per_layer_config"] = json!({"35": {}}), InvalidModel, "the key \"35\"");
    refused(|c| c["text_config"] = Value::Null, InvalidModel, "text_config is missing");
}
