//! Bugs that other engines shipped, each held by a test that names it (numbers as in their list; the others are named in
//! `generate_gemma4`, `batch_gemma4`, `checkpoints` and `prompt`).
//!
//! Where the bug is a constant, the checkpoint is changed as the bug would change it, and the goldens must notice: a golden
//! that does not move proves nothing.

use candle_core::{DType, Device, Tensor};
use pyrex_core::ErrorKind;
use pyrex_core::batch::{Batch, Chunk, Wanted};
use pyrex_core::kv::KvLayer;
use pyrex_core::models::{LoadFormat, LoadedModel, load};
use pyrex_core::prompt::Patches;
use pyrex_core::trace::{NoTap, Origin, Tap};
use pyrex_tests::{
    ALL, Golden, Recorder, Run, chat_prompt, edit_config, in_memory, load_model, load_options, model_files,
    pool, rel_l2,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// The change of the logits that a bug must cause to count as noticed: a hundred times what any tap may be off.
const NOTICED: f64 = 1e-3;

/// The logits' distance from the oracle, for a checkpoint loaded elsewhere.
fn logits_error(loaded: &LoadedModel, golden: &Golden) -> f64 {
    let prompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
    let mut tap = Recorder::default();
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
    let soft = run.encode_images(&mut tap, &prompt);
    run.forward(&mut tap, &prompt.input_ids, soft.as_ref(), ALL);
    golden.taps["logits"].rel_l2(&tap.seen["logits"])
}

/// The E2B-like checkpoint with its config and its bf16 tensors changed.
fn changed(config: impl FnOnce(&mut Value), tensor: impl Fn(&str, &mut [f32])) -> LoadedModel {
    let mut files = model_files("e2b-like");
    edit_config(&mut files, config);
    let weights = files["model.safetensors"].clone();
    let widened: Vec<(String, Vec<usize>, Vec<u8>)> = SafeTensors::deserialize(&weights)
        .unwrap()
        .iter()
        .map(|(name, view)| {
            let words =
                view.data().chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            let mut values: Vec<f32> = words.map(f32::from_bits).collect();
            tensor(name, &mut values);
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.to_string(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = widened.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let rewritten = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    files.insert("model.safetensors".to_string(), rewritten);
    load(&load_options(in_memory(files), DType::F32, LoadFormat::Safetensors)).unwrap()
}

/// known-bugs 4: the number of soft tokens is no constant, and images of different sizes in one run do not see each other.
#[test]
fn known_bug_04_images_of_different_sizes_in_one_run_have_the_soft_tokens_they_have_alone() {
    for checkpoint in ["shapes", "e2b-like"] {
        let golden = Golden::read(checkpoint, "two_images");
        let loaded = load_model(checkpoint, DType::F32);
        let prompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
        let patches: Vec<&Patches> = prompt.images.iter().map(|image| &image.patches).collect();
        assert_ne!((patches[0].columns, patches[0].rows), (patches[1].columns, patches[1].rows));
        let encode = |images: &[&Patches]| -> Vec<f32> {
            let batch = loaded.model.image_batch(images).unwrap();
            loaded.model.encode_images(&batch, &mut NoTap).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let alone = [encode(&patches[..1]), encode(&patches[1..])].concat();
        assert!(rel_l2(&encode(&patches), &alone) < 1e-5, "{checkpoint}");
    }
}

/// known-bugs 8: the cap stands between the two taps exactly once, and the golden's logits are large enough to tell.
#[test]
fn known_bug_08_the_soft_cap_is_applied_exactly_once() {
    let golden = Golden::read("e2b-like", "text");
    let loaded = load_model("e2b-like", DType::F32);
    let prompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
    let mut tap = Recorder::default();
    Run::new(loaded.model.as_ref(), prompt.input_ids.len()).forward(&mut tap, &prompt.input_ids, None, ALL);
    let values = |name: &str| -> Vec<f32> { tap.seen[name].flatten_all().unwrap().to_vec1().unwrap() };
    let (before, after) = (values("lm_head"), values("logits"));
    let capped: Vec<f32> = before.iter().map(|x| (30.0 * (f64::from(*x) / 30.0).tanh()) as f32).collect();
    assert!(rel_l2(&after, &capped) < 1e-6);
    assert!(rel_l2(&before, &capped) > NOTICED, "the cap does not bind");
    let without = changed(|config| config["text_config"]["final_logit_softcapping"] = Value::Null, |_, _| {});
    assert!(logits_error(&without, &golden) > NOTICED);
}

/// known-bugs 9: each constant that other ports got wrong moves the goldens.
#[test]
fn known_bug_09_the_goldens_notice_every_wrong_constant() {
    let keep = |_: &str, _: &mut [f32]| {};
    let same = |_: &mut Value| {};
    let image = Golden::read("e2b-like", "image");
    assert!(logits_error(&changed(same, keep), &image) < 1e-5, "unchanged, the checkpoint is the golden's");
    let add_one = |name: &str, values: &mut [f32]| {
        if name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
    };
    let scalar_one = |name: &str, values: &mut [f32]| {
        if name.ends_with("layer_scalar") {
            values.fill(1.0);
        }
    };
    let unclipped = |name: &str, values: &mut [f32]| match name {
        _ if name.ends_with("put_min") => values.fill(f32::NEG_INFINITY),
        _ if name.ends_with("put_max") => values.fill(f32::INFINITY),
        _ => {}
    };
    let empty_pad_row = |name: &str, values: &mut [f32]| {
        if name.ends_with("embed_tokens_per_layer.weight") {
            values[..80].fill(0.0);
        }
    };
    let rope = |factor: f64| {
        move |config: &mut Value| {
            config["text_config"]["rope_parameters"]["full_attention"]["partial_rotary_factor"] =
                factor.into();
        }
    };
    let window =
        |window: usize| move |config: &mut Value| config["text_config"]["sliding_window"] = window.into();
    let cases: [(&str, LoadedModel); 7] = [
        ("norms with 1 + w", changed(same, add_one)),
        ("no layer_scalar", changed(same, scalar_one)),
        ("clip bounds ignored", changed(same, unclipped)),
        ("padding row of the per-layer table taken as zero", changed(same, empty_pad_row)),
        ("full layers rotated whole", changed(rope(1.0), keep)),
        ("window one too long", changed(window(17), keep)),
        ("window one too short", changed(window(15), keep)),
    ];
    for (bug, loaded) in cases {
        let error = logits_error(&loaded, &image);
        assert!(error > NOTICED, "{bug}: the logits move by {error:.1e} only");
    }
}

/// known-bugs 24: a pass may be ended before any layer of the decoder and before any block of the vision tower.
#[test]
fn known_bug_24_every_layer_asks_whether_to_go_on() {
    struct Stop {
        left: usize,
    }
    impl Tap for Stop {
        fn watching(&self) -> bool {
            false
        }
        fn visit(&mut self, _: &str, _: &Tensor, _: Origin) -> pyrex_core::Result<Option<Tensor>> {
            Ok(None)
        }
        fn proceed(&mut self) -> pyrex_core::Result<()> {
            self.left = self.left.checked_sub(1).ok_or_else(|| pyrex_core::Error::cancelled("enough"))?;
            Ok(())
        }
    }
    let golden = Golden::read("e2b-like", "image");
    let loaded = load_model("e2b-like", DType::F32);
    let prompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
    let images = loaded.model.image_batch(&[&prompt.images[0].patches]).unwrap();
    let run = |left: usize| loaded.model.encode_images(&images, &mut Stop { left });
    assert!((0..2).all(|left| run(left).unwrap_err().kind() == ErrorKind::Cancelled));
    assert!(run(2).is_ok());
    let mut kv = pool(loaded.model.as_ref(), 1);
    let tables = vec![&[0][..]; kv.num_groups()];
    let chunk = Chunk { input_ids: &[2, 3], first_position: 0, block_tables: tables, wanted: Wanted::Last };
    let batch = Batch::new(&[chunk], 16, &Device::Cpu).unwrap();
    let mut run = |left: usize| loaded.model.forward(&batch, &mut kv, &mut Stop { left });
    assert!((0..10).all(|left| run(left).unwrap_err().kind() == ErrorKind::Cancelled));
    assert!(run(10).is_ok());
}

/// known-bugs 11: each layer's cache has its own layer's sizes, and holds keys as keys and values as values.
#[test]
fn known_bug_11_caches_have_their_layers_head_dim_and_values_are_not_keys() {
    let loaded = load_model("e2b-like", DType::F32);
    let spec = loaded.model.spec();
    let kv = pool(loaded.model.as_ref(), 3);
    let mut head_dims = Vec::new();
    for (layer_idx, layer) in spec.kv.layers.iter().enumerate() {
        let owner = match *layer {
            KvLayer::Reads { layer_idx } => spec.kv.layers[layer_idx],
            own => own,
        };
        let KvLayer::Owns { num_key_value_heads, head_dim, .. } = owner else {
            panic!("{layer_idx} reads a reader")
        };
        head_dims.push(head_dim);
        assert_eq!(kv.layer(layer_idx).unwrap().keys.dims(), [48, num_key_value_heads, head_dim]);
    }
    assert_eq!(head_dims, [16, 16, 16, 16, 32, 16, 16, 16, 16, 32]);
    let golden = Golden::read("e2b-like", "text");
    let swapped = changed(
        |_| {},
        |name, values| {
            if name.ends_with("layers.4.self_attn.v_proj.weight") {
                values.reverse();
            }
        },
    );
    assert!(logits_error(&swapped, &golden) > NOTICED, "values of the full donor do not matter");
}
