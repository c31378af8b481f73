//! Every op on the device that `PYREX_TEST_DEVICE` names, against its definition in tensor operations on the CPU. Without a name
//! the CPU's own kernels are held to the same.

use candle_core::{DType, Device, Tensor};
use pyrex_core::batch::Queries;
use pyrex_core::engine::sampler::Sampler;
use pyrex_core::engine::sampling::SamplingParams;
use pyrex_core::ops::attention::{
    PagedKv, paged_attention, paged_reference, segment_attention, segment_reference,
};
use pyrex_core::ops::heads::{
    CacheWrite, norm_rope, norm_rope_reference, write_keys_values, write_keys_values_reference,
};
use pyrex_core::ops::matmul::{
    self, Clip, clipped_matmul, gated_matmul, gated_matmul_reference, matmul_gelu_mul, matmul_pair,
};
use pyrex_core::ops::matrix::Placement;
use pyrex_core::ops::per_layer::{PerLayer, per_layer_inputs, per_layer_inputs_reference};
use pyrex_core::ops::recording::{Recording, can_record, copy_into, overwrite};
use pyrex_core::ops::rms_norm::{AddNorm, Norm, add_norm, add_norm_reference, rms_norm};
use pyrex_core::ops::rope::{RopeTable, rope};
use pyrex_core::ops::sampling::{Draw, DrawTable, can_draw};
use pyrex_core::ops::{self, Matrix, activation, gather, pool};
use std::sync::LazyLock;

/// One for all tests: they share its stream.
static DEVICE: LazyLock<Device> = LazyLock::new(pyrex_tests::device);

const ACTIVATIONS: [DType; 2] = [DType::F32, DType::BF16];
const WEIGHTS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Relative L2 of what is rounded once or a few times: sums in another order in f32; in bf16 some results fall on the other side of
/// a rounding, by one step of 2^-8.
fn bound(dtype: DType) -> f64 {
    if dtype == DType::F32 { 3e-6 } else { 5e-3 }
}

fn noise(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 4.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    let x = Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape holds");
    x.to_dtype(dtype).expect("a float dtype")
}

fn u32s(values: &[u32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).expect("a vector")
}

fn there(x: &Tensor) -> Tensor {
    x.to_device(&DEVICE).expect("the device has room")
}

fn values(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(&Device::Cpu).expect("it can be read");
    x.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1()).expect("a tensor of numbers")
}

#[track_caller]
fn close(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_eq!((got.dims(), got.dtype()), (wanted.dims(), wanted.dtype()), "{what}");
    let (got, wanted) = (values(got), values(wanted));
    let error: f64 = got.iter().zip(&wanted).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    let norm: f64 = wanted.iter().map(|w| f64::from(*w).powi(2)).sum();
    let error = (error / norm.max(f64::MIN_POSITIVE)).sqrt();
    assert!(error <= bound, "{what}: relative L2 {error:e}, expected at most {bound:e}");
}

#[track_caller]
fn same(what: &str, got: &Tensor, wanted: &Tensor) {
    assert_eq!((got.dims(), values(got)), (wanted.dims(), values(wanted)), "{what}");
}

#[test]
fn norms() {
    for dtype in ACTIVATIONS {
        for width in [33, 64, 256, 1536] {
            let (x, residual) = (noise(dtype, &[3, width], 1), noise(dtype, &[3, width], 2));
            let (w, v) = (noise(DType::F32, &[width], 3), noise(DType::F32, &[width], 4));
            let (x_there, residual_there, w_there, v_there) =
                (there(&x), there(&residual), there(&w), there(&v));
            let what = format!("{dtype:?} of {width}");
            let got = rms_norm(&x_there, Some(&w_there), 1e-6).expect("it fits");
            close(&what, &got, &ops::rms_norm::reference(&x, Some(&w), 1e-6).expect("it fits"), bound(dtype));
            let got = rms_norm(&x_there, None, 1e-6).expect("it fits");
            close(&what, &got, &ops::rms_norm::reference(&x, None, 1e-6).expect("it fits"), bound(dtype));
            let end = |residual, w, v| AddNorm {
                residual,
                norm: Norm { weight: Some(w), eps: 1e-6 },
                scale: 0.3,
                next: Some(Norm { weight: Some(v), eps: 1e-6 }),
            };
            let got = add_norm(&x_there, &end(&residual_there, &w_there, &v_there)).expect("it fits");
            let wanted = add_norm_reference(&x, &end(&residual, &w, &v)).expect("it fits");
            close(&what, &got.0, &wanted.0, bound(dtype));
            close(&what, &got.1.expect("asked for"), &wanted.1.expect("asked for"), 2.0 * bound(dtype));
        }
    }
}

fn table(dtype: DType, positions: &[u32], pairs: usize, device: &Device) -> RopeTable {
    let inv_freq: Vec<f32> = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    let positions = u32s(positions).to_device(device).expect("room");
    RopeTable::new(&positions, &Tensor::new(inv_freq, device).expect("room"), dtype).expect("it fits")
}

#[test]
fn heads() {
    for dtype in ACTIVATIONS {
        for head_dim in [16, 64, 256, 512] {
            let what = format!("{dtype:?} of {head_dim}");
            let positions = [0, 5, 131_071];
            let (here_table, there_table) = (
                table(dtype, &positions, head_dim / 2, &Device::Cpu),
                table(dtype, &positions, head_dim / 2, &DEVICE),
            );
            close(&what, &there_table.cos, &here_table.cos, bound(dtype));
            close(&what, &there_table.sin, &here_table.sin, bound(dtype));
            let x = noise(dtype, &[3, 2, head_dim], 5);
            let w = noise(DType::F32, &[head_dim], 6);
            let w_there = there(&w);
            let got = rope(&there(&x), &there_table).expect("it fits");
            close(&what, &got, &ops::rope::reference(&x, &here_table).expect("it fits"), bound(dtype));
            let got = norm_rope(&there(&x), Norm { weight: Some(&w_there), eps: 1e-6 }, &there_table)
                .expect("it fits");
            let wanted =
                norm_rope_reference(&x, Norm { weight: Some(&w), eps: 1e-6 }, &here_table).expect("it fits");
            close(&what, &got, &wanted, 2.0 * bound(dtype));

            let (values_here, slots) = (noise(dtype, &[3, 2, head_dim], 7), u32s(&[6, 0, 3]));
            let pools = || (noise(dtype, &[8, 2, head_dim], 8), noise(dtype, &[8, 2, head_dim], 9));
            let (keys, values) = pools();
            let (keys_there, values_pool) = (there(&keys), there(&values));
            let (x_there, v_there, slots_there) = (there(&x), there(&values_here), there(&slots));
            let new = CacheWrite {
                keys: &x_there,
                values: &v_there,
                k_norm: Norm { weight: Some(&w_there), eps: 1e-6 },
                v_norm: Norm { weight: None, eps: 1e-6 },
                rope: &there_table,
                slot_mapping: &slots_there,
            };
            write_keys_values(&new, &keys_there, &values_pool).expect("it fits");
            let new = CacheWrite {
                keys: &x,
                values: &values_here,
                k_norm: Norm { weight: Some(&w), eps: 1e-6 },
                rope: &here_table,
                slot_mapping: &slots,
                ..new
            };
            write_keys_values_reference(&new, &keys, &values).expect("it fits");
            close(&what, &keys_there, &keys, 2.0 * bound(dtype));
            close(&what, &values_pool, &values, bound(dtype));
        }
    }
}

#[test]
fn elementwise() {
    for dtype in ACTIVATIONS {
        let (x, wide) = (noise(dtype, &[3, 40], 10), noise(dtype, &[3, 4, 40], 11));
        let slice = |wide: &Tensor| wide.narrow(1, 2, 1).and_then(|x| x.squeeze(1)).expect("a column block");
        let got = activation::gelu_mul(&there(&x), &slice(&there(&wide))).expect("it fits");
        close(
            "gelu",
            &got,
            &activation::gelu_mul_reference(&x, &slice(&wide)).expect("it fits"),
            bound(dtype),
        );
        let got = activation::soft_cap(&there(&x), 3.0).expect("it fits");
        close("cap", &got, &activation::soft_cap_reference(&x, 3.0).expect("it fits"), bound(dtype));
        let got = activation::scale(&there(&x), 0.37).expect("it fits");
        same("scale", &got, &activation::scale_reference(&x, 0.37).expect("it fits"));
        let (x, slots) =
            (noise(dtype, &[18, 33], 12), u32s(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]));
        let got = pool::average_pool(&there(&x), &there(&slots), 2, 9, 27.7).expect("it fits");
        close("pool", &got, &pool::reference(&x, &slots, 2, 9, 27.7).expect("it fits"), bound(dtype));
    }
}

#[test]
fn rows() {
    for dtype in ACTIVATIONS {
        for table_dtype in WEIGHTS {
            let matrix = Matrix::from_tensor(&noise(table_dtype, &[20, 24], 13)).expect("a matrix");
            let placement = Placement::on(&DEVICE).expect("the device has room");
            let ids = u32s(&[19, 0, 7, 7]);
            let wanted = gather::gather_rows_reference(&matrix, &ids, dtype).expect("ids are rows");
            let scaled = activation::scale_reference(&wanted, 39.25).expect("it fits");
            for placed in [matrix.clone().placed(&placement), matrix.clone().beside(&placement)] {
                let placed = placed.expect("room");
                same(
                    "gather",
                    &gather::gather_rows(&placed, &there(&ids), dtype).expect("ids are rows"),
                    &wanted,
                );
                let got = gather::embed_rows(&placed, &there(&ids), 39.25, dtype).expect("ids are rows");
                same("embed", &got, &scaled);
                let norm = noise(DType::F32, &[8], 15);
                let norm_there = there(&norm);
                let per_layer = |table: &Matrix, weight| {
                    let table = table.clone().reshaped(60, 8).expect("as many elements");
                    let (num_layers, layers) = (6, 1..5);
                    let ids = u32s(&[9, 0, 3]);
                    let context = noise(dtype, &[3, 32], 14);
                    let norm = Norm { weight: Some(weight), eps: 1e-6 };
                    let parts = PerLayer {
                        table: &table,
                        factor: 2.8,
                        num_layers,
                        layers,
                        projection_scale: 0.2,
                        norm,
                    };
                    match table.host().is_some() && !can_draw(weight.device()) {
                        true => per_layer_inputs_reference(&context, &ids, &parts),
                        false => per_layer_inputs(&there(&context), &there(&ids), &parts),
                    }
                };
                let (got, wanted) = (per_layer(&placed, &norm_there), per_layer(&matrix, &norm));
                close("per layer", &got.expect("it fits"), &wanted.expect("it fits"), 2.0 * bound(dtype));
            }
        }
        let (x, source, at) = (noise(dtype, &[6, 11], 16), noise(dtype, &[2, 11], 17), u32s(&[4, 1]));
        let got = gather::scatter_rows(&there(&x), &there(&at), &there(&source)).expect("inside");
        same("scatter", &got, &gather::scatter_rows_reference(&x, &at, &source).expect("inside"));
        let got = gather::select_rows(&there(&x), &there(&at)).expect("inside");
        same("select", &got, &x.index_select(&at, 0).expect("inside"));
        let (here, far) = (noise(dtype, &[8, 2, 5], 18), there(&noise(dtype, &[8, 2, 5], 18)));
        let source = noise(dtype, &[3, 2, 5], 19);
        gather::write_slots(&far, &there(&u32s(&[7, 0, 3])), &there(&source)).expect("inside");
        gather::write_slots_reference(&here, &u32s(&[7, 0, 3]), &source).expect("inside");
        same("slots", &far, &here);
    }
    let ids = u32s(&[1, 77, 2, 78, 77]);
    let got = gather::mask_ids(&there(&ids), &[77, 78], 0).expect("it fits");
    same("mask", &got, &gather::mask_ids_reference(&ids, &[77, 78], 0).expect("it fits"));
    let target = there(&u32s(&[5, 6, 7, 8]));
    overwrite(&target, 1, &[60, 70]).expect("inside");
    gather::copy_ids(&there(&u32s(&[100, 101])), &[(1, 3)], &target).expect("inside");
    same("ids", &target, &u32s(&[5, 60, 70, 101]));
    assert!(overwrite(&target, 3, &[1, 2]).is_err());
}

#[test]
fn products() {
    let placement = Placement::on(&DEVICE).expect("the device has room");
    let clip = Clip { input: (-1.5, 1.25), output: (-20.0, 30.0) };
    for dtype in ACTIVATIONS {
        for weight_dtype in WEIGHTS {
            for (rows, cols, out) in [(1, 64, 48), (3, 33, 17), (8, 256, 40), (9, 64, 48), (40, 72, 130)] {
                let what = format!("{dtype:?} [{rows}, {cols}] x {weight_dtype:?} [{out}, {cols}]");
                let x = noise(dtype, &[rows, cols], 20);
                let host = Matrix::from_tensor(&noise(weight_dtype, &[out, cols], 21)).expect("a matrix");
                let other = Matrix::from_tensor(&noise(weight_dtype, &[out, cols], 22)).expect("a matrix");
                let alone = Matrix::from_tensor(&there(&host.to_tensor(&Device::Cpu).expect("a copy")))
                    .expect("a matrix");
                let (placed, placed_other) = (
                    host.clone().placed(&placement).expect("room"),
                    other.clone().placed(&placement).expect("room"),
                );
                for bounds in [Clip::NONE, clip] {
                    let wanted = matmul::reference(&x, &host, &bounds).expect("it fits");
                    for weight in [&placed, &alone] {
                        let got = clipped_matmul(&there(&x), weight, &bounds).expect("it fits");
                        close(&what, &got, &wanted, bound(dtype));
                    }
                    let got = gated_matmul(&there(&x), (&placed, &bounds), (&placed_other, &clip))
                        .expect("it fits");
                    let wanted =
                        gated_matmul_reference(&x, (&host, &bounds), (&other, &clip)).expect("it fits");
                    close(&what, &got, &wanted, 2.0 * bound(dtype));
                }
                let wide = noise(dtype, &[rows, 3 * out], 23);
                let slice = |wide: &Tensor| wide.narrow(1, out, out).expect("a column block");
                let got = matmul_gelu_mul(&there(&x), &placed, &slice(&there(&wide))).expect("it fits");
                let wanted = matmul::reference(&x, &host, &Clip::NONE).expect("it fits");
                let wanted = activation::gelu_mul_reference(&wanted, &slice(&wide)).expect("it fits");
                close(&what, &got, &wanted, 2.0 * bound(dtype));
                let (first, second) = matmul_pair(&there(&x), &placed, &placed_other).expect("it fits");
                close(
                    &what,
                    &first,
                    &matmul::reference(&x, &host, &Clip::NONE).expect("it fits"),
                    bound(dtype),
                );
                close(
                    &what,
                    &second,
                    &matmul::reference(&x, &other, &Clip::NONE).expect("it fits"),
                    bound(dtype),
                );
            }
        }
    }
}

/// Sequences with so many cached tokens and new rows.
fn attention(dtype: DType, head_dim: usize, sequences: &[(usize, usize)], window: Option<usize>) {
    const BLOCK: usize = 16;
    let (heads, kv_heads) = (8, 1);
    let blocks =
        sequences.iter().map(|(cached, rows)| (cached + rows).div_ceil(BLOCK)).max().expect("one at least");
    let (mut positions, mut starts, mut tables) = (Vec::new(), vec![0u32], Vec::new());
    for (sequence, (cached, rows)) in sequences.iter().enumerate() {
        positions.extend((*cached..cached + rows).map(|position| position as u32));
        starts.push(positions.len() as u32);
        tables.extend((0..blocks).map(|block| (block * sequences.len() + sequence) as u32));
    }
    let slots = blocks * sequences.len() * BLOCK;
    let (keys, values) =
        (noise(dtype, &[slots, kv_heads, head_dim], 30), noise(dtype, &[slots, kv_heads, head_dim], 31));
    let q = (noise(dtype, &[positions.len(), heads, head_dim], 32) / 8.0).expect("numbers");
    let tables = Tensor::from_vec(tables, (sequences.len(), blocks), &Device::Cpu).expect("as many");
    let num_single = sequences.iter().take_while(|(_, rows)| *rows <= 1).count();
    let queries = Queries { positions: u32s(&positions), query_start: u32s(&starts), num_single };
    let kv = PagedKv { keys: &keys, values: &values, block_tables: &tables, block_size: BLOCK };
    let wanted = paged_reference(&q, &kv, &queries, window, 1.0, DType::F32).expect("it fits");
    let queries = Queries {
        positions: there(&queries.positions),
        query_start: there(&queries.query_start),
        num_single,
    };
    let (keys, values, tables) = (there(&keys), there(&values), there(&tables));
    let kv = PagedKv { keys: &keys, values: &values, block_tables: &tables, block_size: BLOCK };
    let got = paged_attention(&there(&q), &kv, &queries, window, 1.0).expect("it fits");
    close(&format!("{dtype:?} of {head_dim}, {sequences:?}, {window:?}"), &got, &wanted, bound(dtype));
}

#[test]
fn attention_over_the_cache() {
    for dtype in ACTIVATIONS {
        for head_dim in [16, 64, 256, 512] {
            for window in [None, Some(20)] {
                attention(dtype, head_dim, &[(0, 1), (40, 1), (15, 1)], window);
                attention(dtype, head_dim, &[(33, 1), (0, 21), (18, 5)], window);
            }
        }
    }
}

#[test]
fn attention_inside_segments() {
    for dtype in ACTIVATIONS {
        for head_dim in [16, 64] {
            let parts =
                [40, 41, 42].map(|seed| (noise(dtype, &[30, 2, head_dim], seed) / 2.0).expect("numbers"));
            let [q, k, v] = &parts;
            let starts = u32s(&[0, 11, 30]);
            let wanted = segment_reference(q, k, v, &starts, 1.0, DType::F32).expect("it fits");
            let got =
                segment_attention(&there(q), &there(k), &there(v), &there(&starts), 1.0).expect("it fits");
            close(&format!("{dtype:?} of {head_dim}"), &got, &wanted, 2.0 * bound(dtype));
        }
    }
}

#[test]
fn a_device_draws_what_the_sampler_draws() {
    if !can_draw(&DEVICE) {
        return;
    }
    let vocab_size = 1000;
    let logits = (noise(DType::F32, &[8, vocab_size], 50) * 3.0).expect("numbers");
    let rows: Vec<Vec<f32>> = logits.to_vec2().expect("rows");
    let with = |temperature, top_k, top_p, min_p| SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        seed: Some(7),
        ..SamplingParams::default()
    };
    let params = [
        with(0.0, None, None, None),
        with(1.0, None, None, None),
        with(1.0, Some(64), Some(0.95), None),
        with(0.7, Some(1), None, None),
        with(1.5, None, Some(0.5), None),
        with(1.0, None, None, Some(0.1)),
        with(2.0, Some(5000), Some(0.99), Some(0.01)),
        with(0.01, Some(3), None, None),
    ];
    for position in [0, 1, 17, 4000] {
        let mut samplers =
            params.iter().map(|params| Sampler::new(params, &[], [].into(), 0, None)).collect::<Vec<_>>();
        let draws: Vec<Draw> = samplers
            .iter()
            .map(|sampler| sampler.draw(position).expect("nothing but logits decides"))
            .collect();
        let table = DrawTable::new(8, &DEVICE).expect("room");
        table.write(&draws).expect("as many rows");
        let got: Vec<u32> = table.draw(&there(&logits)).and_then(|ids| Ok(ids.to_vec1()?)).expect("it draws");
        let wanted: Vec<u32> = samplers
            .iter_mut()
            .zip(&rows)
            .map(|(sampler, row)| sampler.sample(row, position).expect("numbers").token_id)
            .collect();
        assert_eq!(got, wanted, "position {position}");
    }
}

#[test]
fn what_was_recorded_does_the_same_with_new_numbers() {
    // A device of its own: whatever else ran on its stream would be recorded too.
    let device = pyrex_tests::device();
    if !can_record(&device) {
        return;
    }
    let x = noise(DType::F32, &[2, 64], 60).to_device(&device).expect("room");
    let out = x.zeros_like().expect("room");
    let work = || copy_into(&out, &activation::scale(&rms_norm(&x, None, 1e-6)?, 0.5)?);
    let recording = Recording::new(&device, work).expect("it can be recorded");
    for seed in [61, 62] {
        let new = noise(DType::F32, &[2, 64], seed);
        copy_into(&x, &new.to_device(&device).expect("room")).expect("it fits");
        recording.replay().expect("it runs");
        let wanted = ops::rms_norm::reference(&new, None, 1e-6).and_then(|x| activation::scale(&x, 0.5));
        close("replayed", &out, &wanted.expect("it fits"), bound(DType::F32));
    }
    let refused = Recording::new(&device, || {
        out.to_vec2::<f32>()?;
        Ok(())
    });
    assert!(refused.is_err(), "reading back cannot be recorded");
    recording.replay().expect("a recording that failed harms nobody");
}
