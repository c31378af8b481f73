use super::*;
use crate::batch::{Batch, ImageBatch};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::{ModelSpec, SamplingDefaults};
use crate::prompt::Patches;
use crate::trace::{Origin, Tap};
use crate::weights::Asked;
use candle_core::{DType, Device, Tensor};
use std::time::Duration;

/// The shapes of E2B's first layers, and no more: a window of 512 in layer 0, layer 2 reads layer 1.
struct Shapes {
    spec: ModelSpec,
    weights: Vec<(&'static str, Asked, WeightUse)>,
}

impl Shapes {
    fn new() -> Self {
        let owns = |head_dim, window| KvLayer::Owns { num_key_value_heads: 1, head_dim, window };
        let layers = vec![owns(256, Some(512)), owns(512, None), KvLayer::Reads { layer_idx: 1 }];
        let spec = ModelSpec {
            family: "shapes",
            kv: KvLayout { layers },
            vocab_size: 32_768,
            max_position_embeddings: 1 << 17,
            image_token_id: None,
            stop_ids: Vec::new(),
            sampling: SamplingDefaults::default(),
            dtype: DType::F32,
            device: Device::Cpu,
            stage_of: |_| "decoder",
        };
        let weight = |tap, shape: &[usize], how| {
            let num_bytes = 2 * shape.iter().product::<usize>() as u64;
            (tap, Asked { name: String::new(), shape: shape.to_vec(), num_bytes }, how)
        };
        let weights = vec![
            weight("layers.0.mlp.gate_proj", &[6144, 1536], WeightUse::Product),
            weight("per_layer_model_projection", &[2560, 1536], WeightUse::Product),
            weight("model.layers.0.input_layernorm", &[1536], WeightUse::Scale),
            weight("embed_tokens", &[32_768, 1536], WeightUse::Rows),
        ];
        Self { spec, weights }
    }
}

impl Model for Shapes {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn image_batch(&self, _: &[&Patches]) -> Result<ImageBatch> {
        Err(Error::unsupported("shapes alone"))
    }

    fn encode_images(&self, _: &ImageBatch, _: &mut dyn Tap) -> Result<Tensor> {
        Err(Error::unsupported("shapes alone"))
    }

    fn forward(&self, _: &Batch, _: &mut KvPool, _: &mut dyn Tap) -> Result<Tensor> {
        Err(Error::unsupported("shapes alone"))
    }

    fn weight_of(&self, tap: &str) -> Option<UsedWeight<'_>> {
        let (_, weight, how) = self.weights.iter().find(|(name, ..)| *name == tap)?;
        Some(UsedWeight { weight, how: *how })
    }
}

fn visit(name: &str, shape: &[usize], dtype: DType) -> Visit {
    Visit {
        name: name.to_string(),
        origin: Origin { file: "", line: 0, function: "" },
        time: Duration::ZERO,
        shape: shape.to_vec(),
        dtype,
        shown_before: false,
    }
}

/// What `name` costs in a pass of `sight`; activations in f32.
fn check(sight: Sight<'_>, name: &str, shape: &[usize], kind: OperationKind, expected: [u64; 3]) {
    let [flops, bytes, weight_bytes] = expected;
    let found = cost(&Shapes::new(), sight, &visit(name, shape, DType::F32));
    assert_eq!(found, (kind, Cost { flops, bytes, weight_bytes }), "{name} {shape:?}");
}

const DECODE: Sight<'_> = Sight::Tokens { end: 1000 };
const PREFILL: Sight<'_> = Sight::Tokens { end: 600 };

#[test]
fn a_product_reads_its_weights_once_and_multiplies_every_row() {
    let kind = OperationKind::Product;
    let weights = 6144 * 1536 * 2;
    let one = [2 * 6144 * 1536, weights + (1536 + 6144) * 4, weights];
    check(DECODE, "layers.0.mlp.gate_proj", &[1, 6144], kind, one);
    let all = [600 * 2 * 6144 * 1536, weights + 600 * (1536 + 6144) * 4, weights];
    check(PREFILL, "layers.0.mlp.gate_proj", &[600, 6144], kind, all);
}

#[test]
fn a_product_that_gives_fewer_columns_reads_fewer_rows_of_its_matrix() {
    let of_four_layers = [2 * 1024 * 1536, 1024 * 1536 * 2 + (1536 + 1024) * 4, 1024 * 1536 * 2];
    check(DECODE, "per_layer_model_projection", &[1, 1024], OperationKind::Product, of_four_layers);
}

#[test]
fn attention_sees_no_further_than_its_window() {
    let kind = OperationKind::Attention;
    let rows = |rows: u64, head_dim: u64| 2 * rows * 8 * head_dim * 4;
    // Position 999: 512 keys of 256 in the window, 1000 of 512 without one; layer 2 reads those of layer 1.
    let window = [4 * 8 * 256 * 512, 2 * 512 * 256 * 4 + rows(1, 256), 0];
    check(DECODE, "x.layers.0.self_attn.o_proj.input", &[1, 2048], kind, window);
    let full = [4 * 8 * 512 * 1000, 2 * 1000 * 512 * 4 + rows(1, 512), 0];
    check(DECODE, "x.layers.1.self_attn.o_proj.input", &[1, 4096], kind, full);
    check(DECODE, "x.layers.2.self_attn.o_proj.input", &[1, 4096], kind, full);
}

#[test]
fn attention_of_a_prompt_counts_the_pairs_below_the_diagonal() {
    let kind = OperationKind::Attention;
    // 1 + 2 + … + 512 keys, then 512 for each of the 88 others; together they see all 600.
    let pairs = 512 * 513 / 2 + 88 * 512;
    let window = [4 * 8 * 256 * pairs, 2 * 600 * 256 * 4 + 2 * 600 * 2048 * 4, 0];
    check(PREFILL, "x.layers.0.self_attn.o_proj.input", &[600, 2048], kind, window);
    let full = [4 * 8 * 512 * (600 * 601 / 2), 2 * 600 * 512 * 4 + 2 * 600 * 4096 * 4, 0];
    check(PREFILL, "x.layers.1.self_attn.o_proj.input", &[600, 4096], kind, full);
    // The last row alone.
    let last = [4 * 8 * 256 * 512, 2 * 512 * 256 * 4 + 2 * 2048 * 4, 0];
    check(PREFILL, "x.layers.0.self_attn.o_proj.input", &[1, 2048], kind, last);
}

#[test]
fn attention_is_open_inside_each_image() {
    let images = Sight::Images(&[2520, 1200]);
    let pairs = 2520 * 2520 + 1200 * 1200;
    let expected = [4 * 768 * pairs, 4 * 3720 * 768 * 4, 0];
    check(images, "v.layers.0.self_attn.o_proj.input", &[3720, 768], OperationKind::Attention, expected);
}

#[test]
fn everything_else_moves_what_goes_in_and_what_comes_out() {
    let kind = OperationKind::Elementwise;
    check(
        PREFILL,
        "model.layers.0.input_layernorm",
        &[600, 1536],
        kind,
        [0, 2 * 600 * 1536 * 4 + 3072, 3072],
    );
    check(PREFILL, "model.layers.0.self_attn.q_rope", &[600, 8, 256], kind, [0, 2 * 600 * 2048 * 4, 0]);
    check(PREFILL, "model.layers.0.mlp.down_proj.input", &[600, 6144], kind, [0, 3 * 600 * 6144 * 4, 0]);
    check(PREFILL, "model.layers.0", &[600, 1536], kind, [0, 3 * 600 * 1536 * 4, 0]);
    check(PREFILL, "model.norm", &[1, 1536], kind, [0, 2 * 1536 * 4, 0]);
}

#[test]
fn a_lookup_reads_rows_of_its_table() {
    let expected = [0, 600 * 1536 * (2 + 4), 600 * 1536 * 2];
    check(PREFILL, "embed_tokens", &[600, 1536], OperationKind::Lookup, expected);
}

#[test]
fn activations_of_two_bytes_move_half_as_much() {
    let model = Shapes { spec: ModelSpec { dtype: DType::BF16, ..Shapes::new().spec }, ..Shapes::new() };
    let of = |name, shape| cost(&model, DECODE, &visit(name, shape, DType::BF16)).1.bytes;
    assert_eq!(of("layers.0.mlp.gate_proj", &[1, 6144]), 6144 * 1536 * 2 + (1536 + 6144) * 2);
    assert_eq!(of("x.layers.0.self_attn.o_proj.input", &[1, 2048]), 2 * 512 * 256 * 2 + 2 * 2048 * 2);
}

#[test]
fn what_the_tap_before_has_shown_costs_nothing() {
    let again = Visit { shown_before: true, ..visit("layers.0.mlp.gate_proj", &[1, 6144], DType::F32) };
    assert_eq!(cost(&Shapes::new(), DECODE, &again), (OperationKind::Shown, Cost::default()));
}
