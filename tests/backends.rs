//! Every op on every path the machine has, against the op's reference made of tensor operations.

use candle_core::{DType, Device, Tensor};
use pyrex_core::batch::Queries;
use pyrex_core::ops::attention::{
    PagedKv, paged_attention_at, paged_reference, segment_attention_at, segment_reference,
};
use pyrex_core::ops::matmul::{self, Clip, matmul_at};
use pyrex_core::ops::rope::{self, RopeTable};
use pyrex_core::ops::simd::Level;
use pyrex_core::ops::{Matrix, activation, gather, pool, rms_norm};
use pyrex_core::{ErrorKind, Result};

/// Sums in another order: a share of `Σ |x| |w|`. Measured 1e-7; a product left out is 1e-3 and more.
const MATMUL_F32: f64 = 1e-6;
/// Half a step of f32 in each of the few operations of an elementwise op, and two of tanh.
const ELEMENTWISE_F32: f64 = 5e-7;
/// Scores and weights of at most 1 and values of about 1, summed in another order.
const ATTENTION_F32: f64 = 5e-6;
/// A sum that lies between two bf16 may be rounded to either: one step, relative.
const STEP_BF16: f64 = 1.0 / 128.0;

const ACTIVATIONS: [DType; 2] = [DType::F32, DType::BF16];
const WEIGHTS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Numbers about `−2..2` that are the same in every run.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 4.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape holds")
}

fn noise_as(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    noise(shape, seed).to_dtype(dtype).expect("a float dtype")
}

fn u32s(values: &[u32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).expect("a vector")
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1()).expect("a tensor of floats on the CPU")
}

/// Holds `got` against `wanted`: per element, `allowed` absolutely and, in bf16, one step more.
#[track_caller]
fn compare(what: &str, got: &Tensor, wanted: &Tensor, allowed: impl Fn(usize, f32) -> f64) {
    assert_eq!(got.dims(), wanted.dims(), "{what}: shape");
    assert_eq!(got.dtype(), wanted.dtype(), "{what}: dtype");
    let step = if got.dtype() == DType::BF16 { STEP_BF16 } else { 0.0 };
    for (i, (&got, &wanted)) in values(got).iter().zip(&values(wanted)).enumerate() {
        let allowed = allowed(i, wanted) + step * f64::from(wanted.abs());
        let error = f64::from((got - wanted).abs());
        assert!(error <= allowed, "{what}: element {i} is {got}, expected {wanted} within {allowed}");
    }
}

#[track_caller]
fn expect_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    assert_eq!(result.expect_err("bad input is an error").kind(), kind);
}

/// `run` on every level with f32 and with bf16 activations.
fn everywhere(run: impl Fn(Level, DType)) {
    for level in Level::all() {
        for dtype in ACTIVATIONS {
            run(level, dtype);
        }
    }
}

fn check_matmul(
    level: Level,
    dtype: DType,
    weight_dtype: DType,
    (rows, cols, out): (usize, usize, usize),
    clip: &Clip,
) {
    let x = noise_as(dtype, &[rows, cols], 1);
    let weight = noise_as(weight_dtype, &[out, cols], 2);
    let bound = {
        let magnitude = Matrix::from_tensor(&weight.abs().expect("abs")).expect("a matrix");
        values(&matmul::reference(&x.abs().expect("abs"), &magnitude, &Clip::NONE).expect("fits"))
    };
    let weight = Matrix::from_tensor(&weight).expect("a matrix");
    let got = matmul_at(level, &x, &weight, clip).expect("fits");
    let wanted = matmul::reference(&x, &weight, clip).expect("fits");
    let what = format!("{level:?} {dtype:?} [{rows}, {cols}] · [{out}, {cols}]ᵀ {weight_dtype:?} {clip:?}");
    // Before its rounding a bf16 output may be off by as much as an f32 one, which matters where terms cancel.
    compare(&what, &got, &wanted, |i, _| MATMUL_F32 * f64::from(bound[i]) * 1.01);
}

#[test]
fn matmul_agrees_with_its_reference() {
    let shapes = [
        (1, 1, 1),
        (1, 64, 5),
        (1, 1536, 33),
        (2, 33, 7),
        (3, 31, 6),
        (4, 130, 65),
        (5, 95, 9),
        (7, 100, 3),
        (8, 256, 130),
        // More activations than a first-level cache holds: blocks of columns, and a last block that is short.
        (1, 7300, 6),
        (2, 3701, 7),
        (3, 2500, 5),
        (4, 1793, 100),
        (8, 1900, 3),
        (13, 2047, 61),
        (32, 911, 49),
        (64, 64, 64),
        (65, 64, 64),
        (9, 64, 64),
        (9, 1, 1),
        (15, 515, 63),
        (17, 1100, 67),
        (48, 512, 64),
        (49, 40, 129),
        (100, 1025, 130),
        (700, 24, 70),
    ];
    everywhere(|level, dtype| {
        for weight_dtype in WEIGHTS {
            for shape in shapes {
                check_matmul(level, dtype, weight_dtype, shape, &Clip::NONE);
            }
        }
    });
}

#[test]
fn matmul_of_up_to_64_rows_gives_a_row_the_same_bits_in_any_company() {
    for level in Level::all() {
        for (weight_dtype, cols) in [(DType::BF16, 1900), (DType::F32, 77), (DType::F16, 500)] {
            let x = noise(&[64, cols], 21);
            let weight = Matrix::from_tensor(&noise_as(weight_dtype, &[101, cols], 22)).expect("a matrix");
            let product = |first: usize, rows: usize| {
                let x = x.narrow(0, first, rows).expect("inside");
                values(&matmul_at(level, &x, &weight, &Clip::NONE).expect("fits"))
            };
            let all = product(0, 64);
            for (first, rows) in [(0, 1), (63, 1), (7, 2), (20, 3), (5, 4), (40, 5), (9, 8), (30, 31)] {
                let alone = product(first, rows);
                assert_eq!(
                    alone,
                    all[first * 101..][..alone.len()],
                    "{level:?} {weight_dtype:?} {rows} rows"
                );
            }
        }
    }
}

#[test]
fn clipped_matmul_clamps_input_and_output() {
    let clip = Clip { input: (-0.75, 1.25), output: (-2.5, 1.5) };
    everywhere(|level, dtype| {
        for shape in [(1, 67, 5), (6, 64, 130), (9, 515, 65), (60, 70, 66)] {
            check_matmul(level, dtype, DType::BF16, shape, &clip);
        }
    });
}

#[test]
fn matmul_of_no_rows_is_empty() {
    let weight = Matrix::from_tensor(&noise(&[5, 7], 1)).expect("a matrix");
    everywhere(|level, dtype| {
        let x = Tensor::zeros((0, 7), dtype, &Device::Cpu).expect("an empty tensor");
        let y = matmul_at(level, &x, &weight, &Clip::NONE).expect("no rows are fine");
        assert_eq!((y.dims(), y.dtype()), (&[0, 5][..], dtype));
    });
    let x = noise(&[2, 6], 1);
    expect_kind(matmul::matmul(&x, &weight), ErrorKind::Internal);
}

#[test]
fn matmul_takes_rows_that_do_not_lie_together() {
    let x = noise(&[12, 20], 1).narrow(1, 3, 11).expect("inside");
    let weight = Matrix::from_tensor(&noise(&[9, 11], 2)).expect("a matrix");
    let wanted = matmul::reference(&x, &weight, &Clip::NONE).expect("fits");
    compare("narrowed", &matmul::matmul(&x, &weight).expect("fits"), &wanted, |_, _| 44.0 * MATMUL_F32);
}

#[test]
fn rms_norm_agrees_with_its_reference() {
    everywhere(|level, dtype| {
        for shape in [&[1, 1][..], &[3, 5], &[2, 3, 64], &[33, 100], &[5, 1536], &[0, 8]] {
            let x = noise_as(dtype, shape, 3);
            let weight = noise(&shape[shape.len() - 1..], 4);
            for weight in [None, Some(&weight)] {
                let got = rms_norm::rms_norm_at(level, &x, weight, 1e-6).expect("fits");
                let wanted = match shape[0] {
                    0 => x.clone(),
                    _ => rms_norm::reference(&x, weight, 1e-6).expect("fits"),
                };
                let what = format!("{level:?} {dtype:?} {shape:?}");
                compare(&what, &got, &wanted, |_, y| 2.0 * ELEMENTWISE_F32 * f64::from(y.abs()));
            }
        }
    });
    expect_kind(rms_norm::rms_norm(&noise(&[2, 4], 1), Some(&noise(&[3], 1)), 1e-6), ErrorKind::Internal);
}

#[test]
fn rope_agrees_with_its_reference_to_the_bit() {
    everywhere(|level, dtype| {
        for (tokens, heads, width, axes) in
            [(1, 1, 2, 1), (3, 2, 256, 1), (5, 3, 64, 2), (2, 1, 72, 2), (70, 4, 512, 1)]
        {
            let x = noise_as(dtype, &[tokens, heads, width], 5);
            let positions: Vec<u32> = (0..(tokens * axes) as u32).map(|i| i * 37 % 1000).collect();
            let positions = u32s(&positions).reshape((tokens, axes)).expect("one per axis");
            let inv_freq = noise(&[width / 2 / axes], 6).abs().expect("abs");
            let table = RopeTable::new(&positions, &inv_freq, dtype).expect("fits");
            let got = rope::rope_at(level, &x, &table).expect("fits");
            let wanted = rope::reference(&x, &table).expect("fits");
            assert_eq!(
                values(&got),
                values(&wanted),
                "{level:?} {dtype:?} [{tokens}, {heads}, {width}] in {axes}"
            );
        }
        let table = RopeTable::new(&u32s(&[]), &noise(&[4], 6), dtype).expect("no positions are fine");
        let x = Tensor::zeros((0, 2, 8), dtype, &Device::Cpu).expect("an empty tensor");
        assert_eq!(rope::rope_at(level, &x, &table).expect("no rows are fine").dims(), [0, 2, 8]);
    });
    let table = RopeTable::new(&u32s(&[1, 2]), &noise(&[4], 6), DType::F32).expect("fits");
    expect_kind(rope::rope(&noise(&[3, 1, 8], 1), &table), ErrorKind::Internal);
    expect_kind(rope::rope(&noise(&[2, 1, 6], 1), &table), ErrorKind::Internal);
}

#[test]
fn activations_agree_with_their_references() {
    everywhere(|level, dtype| {
        for shape in [&[1, 1][..], &[3, 5], &[2, 1024], &[7, 1025], &[3, 16400], &[0, 4]] {
            let x = (noise_as(dtype, shape, 7) * 4.0).expect("scaled");
            let y = noise_as(dtype, shape, 8);
            let what = format!("{level:?} {dtype:?} {shape:?}");
            let allowed = |scale: f64| move |_, _: f32| ELEMENTWISE_F32 * scale;
            // Two roundings in bf16: the gelu may fall one step beside the reference's, and then the product.
            let got = activation::gelu_mul_at(level, &x, &y).expect("fits");
            let wanted = activation::gelu_mul_reference(&x, &y).expect("fits");
            let step = if dtype == DType::BF16 { STEP_BF16 } else { 0.0 };
            compare(&what, &got, &wanted, |_, y| ELEMENTWISE_F32 * 8.0 + step * f64::from(y.abs()));
            let got = activation::soft_cap_at(level, &x, 5.0).expect("fits");
            compare(&what, &got, &activation::soft_cap_reference(&x, 5.0).expect("fits"), allowed(5.0));
            let got = activation::scale_at(level, &x, 0.0255).expect("fits");
            assert_eq!(
                values(&got),
                values(&activation::scale_reference(&x, 0.0255).expect("fits")),
                "{what}"
            );
        }
    });
    expect_kind(activation::gelu_mul(&noise(&[2, 3], 1), &noise(&[3, 2], 1)), ErrorKind::Internal);
}

#[test]
fn gather_rows_reads_the_rows_asked_for() {
    for table_dtype in WEIGHTS {
        let table = Matrix::from_tensor(&noise_as(table_dtype, &[9, 37], 9)).expect("a matrix");
        for dtype in ACTIVATIONS {
            for ids in [&[][..], &[8], &[3, 0, 3, 7, 8]] {
                let got = gather::gather_rows(&table, &u32s(ids), dtype).expect("ids are rows");
                assert_eq!((got.dims(), got.dtype()), (&[ids.len(), 37][..], dtype));
                if !ids.is_empty() {
                    let wanted =
                        gather::gather_rows_reference(&table, &u32s(ids), dtype).expect("ids are rows");
                    assert_eq!(values(&got), values(&wanted), "{table_dtype:?} as {dtype:?}");
                }
            }
            expect_kind(gather::gather_rows(&table, &u32s(&[0, 9]), dtype), ErrorKind::InvalidRequest);
            expect_kind(gather::gather_rows(&table, &u32s(&[u32::MAX]), dtype), ErrorKind::InvalidRequest);
        }
    }
}

#[test]
fn scatter_rows_replaces_rows() {
    for dtype in ACTIVATIONS {
        let (x, source) = (noise_as(dtype, &[6, 11], 10), noise_as(dtype, &[2, 11], 11));
        let got = gather::scatter_rows(&x, &u32s(&[4, 1]), &source).expect("inside");
        let wanted = gather::scatter_rows_reference(&x, &u32s(&[4, 1]), &source).expect("inside");
        assert_eq!(values(&got), values(&wanted));
        let nothing = source.narrow(0, 0, 0).expect("an empty tensor");
        assert_eq!(
            values(&gather::scatter_rows(&x, &u32s(&[]), &nothing).expect("no rows are fine")),
            values(&x)
        );
        expect_kind(gather::scatter_rows(&x, &u32s(&[0, 6]), &source), ErrorKind::Internal);
        expect_kind(gather::scatter_rows(&x, &u32s(&[0]), &source), ErrorKind::Internal);
    }
}

#[test]
fn write_slots_writes_in_place_or_not_at_all() {
    for dtype in ACTIVATIONS {
        let pool_of = || noise_as(dtype, &[8, 2, 5], 12).contiguous().expect("contiguous");
        let source = noise_as(dtype, &[3, 2, 5], 13);
        let (pool, wanted) = (pool_of(), pool_of());
        let shared = pool.clone();
        gather::write_slots(&pool, &u32s(&[7, 0, 3]), &source).expect("inside");
        gather::write_slots_reference(&wanted, &u32s(&[7, 0, 3]), &source).expect("inside");
        assert_eq!(values(&shared), values(&wanted));
        let before = values(&pool);
        expect_kind(gather::write_slots(&pool, &u32s(&[1, 8, 2]), &source), ErrorKind::Internal);
        expect_kind(gather::write_slots(&pool, &u32s(&[1, 2]), &source), ErrorKind::Internal);
        assert_eq!(values(&pool), before);
        let nothing = source.narrow(0, 0, 0).expect("an empty tensor");
        gather::write_slots(&pool, &u32s(&[]), &nothing).expect("no rows are fine");
        assert_eq!(values(&pool), before);
    }
}

#[test]
fn average_pool_agrees_with_its_reference_to_the_bit() {
    for dtype in ACTIVATIONS {
        let x = noise_as(dtype, &[18, 33], 14);
        let slots: Vec<u32> = (0..18).map(|i| (i / 3 + i) % 2).collect();
        let got = pool::average_pool(&x, &u32s(&slots), 2, 9, 27.712_812).expect("inside");
        let wanted = pool::reference(&x, &u32s(&slots), 2, 9, 27.712_812).expect("inside");
        assert_eq!(values(&got), values(&wanted));
        assert_eq!(got.dtype(), DType::F32);
        expect_kind(pool::average_pool(&x, &u32s(&slots), 1, 9, 1.0), ErrorKind::Internal);
        expect_kind(pool::average_pool(&x, &u32s(&slots[1..]), 2, 9, 1.0), ErrorKind::Internal);
    }
}

/// Sequences over a cache whose blocks are dealt out of order.
struct Paged {
    heads: (usize, usize),
    head_dim: usize,
    block_size: usize,
    /// Positions of each sequence's queries.
    positions: Vec<Vec<u32>>,
    window: Option<usize>,
}

impl Paged {
    fn check(&self, level: Level, dtype: DType, pool_dtype: DType) {
        let Self { heads: (heads, kv_heads), head_dim, block_size, ref positions, window } = *self;
        let blocks_of = |p: &Vec<u32>| p.iter().max().map_or(0, |&last| last as usize / block_size + 1);
        let width = positions.iter().map(blocks_of).max().unwrap_or(0).max(1);
        let total: usize = positions.iter().map(blocks_of).sum();
        let mut free = (0..total as u32).rev();
        let mut tables = Vec::new();
        for p in positions {
            tables.extend(free.by_ref().take(blocks_of(p)).chain(std::iter::repeat(0)).take(width));
        }
        let tables =
            Tensor::from_vec(tables, (positions.len(), width), &Device::Cpu).expect("a table per sequence");
        let shape = [total * block_size, kv_heads, head_dim];
        let (keys, values) = (noise_as(pool_dtype, &shape, 15), noise_as(pool_dtype, &shape, 16));
        let kv = PagedKv { keys: &keys, values: &values, block_tables: &tables, block_size };
        let mut starts = vec![0];
        for p in positions {
            starts.push(starts[starts.len() - 1] + p.len() as u32);
        }
        let queries =
            Queries { positions: u32s(&positions.concat()), query_start: u32s(&starts), num_single: 0 };
        let q = noise_as(dtype, &[positions.concat().len(), heads, head_dim], 17);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let got = paged_attention_at(level, &q, &kv, &queries, window, scale).expect("fits");
        let wanted = paged_reference(&q, &kv, &queries, window, scale, DType::F32).expect("fits");
        let what = format!(
            "{level:?} {dtype:?} over {pool_dtype:?}, heads {heads}/{kv_heads} of {head_dim}, {window:?}"
        );
        compare(&what, &got, &wanted, |_, _| ATTENTION_F32);
    }
}

#[test]
fn paged_attention_agrees_with_its_reference() {
    let run = |range: std::ops::Range<u32>| range.collect::<Vec<u32>>();
    let cases = [
        Paged { heads: (1, 1), head_dim: 32, block_size: 1, positions: vec![vec![0]], window: None },
        Paged { heads: (8, 1), head_dim: 256, block_size: 16, positions: vec![run(0..40)], window: Some(7) },
        Paged {
            heads: (8, 1),
            head_dim: 512,
            block_size: 16,
            positions: vec![run(0..20), vec![300]],
            window: None,
        },
        Paged {
            heads: (8, 2),
            head_dim: 64,
            block_size: 8,
            positions: vec![run(120..140), vec![], run(0..3)],
            window: Some(20),
        },
        Paged { heads: (4, 4), head_dim: 72, block_size: 5, positions: vec![run(0..130)], window: Some(1) },
        Paged {
            heads: (3, 1),
            head_dim: 7,
            block_size: 3,
            positions: vec![vec![2, 9, 255, 256, 257]],
            window: Some(128),
        },
        Paged {
            heads: (2, 1),
            head_dim: 32,
            block_size: 16,
            positions: vec![vec![1800], vec![1801]],
            window: None,
        },
        Paged { heads: (2, 2), head_dim: 32, block_size: 16, positions: vec![vec![1300]], window: Some(512) },
    ];
    everywhere(|level, dtype| {
        for case in &cases {
            for pool_dtype in ACTIVATIONS {
                case.check(level, dtype, pool_dtype);
            }
        }
    });
}

#[test]
fn window_of_w_sees_w_keys() {
    // The values count: the mean of the last three of 0, 1, 2, … 9 is 8.
    let keys = Tensor::zeros((10, 1, 32), DType::F32, &Device::Cpu).expect("zeros");
    let counted = Tensor::arange(0f32, 10.0, &Device::Cpu)
        .and_then(|x| x.reshape((10, 1, 1))?.broadcast_as((10, 1, 32)));
    let counted = counted.and_then(|x| x.contiguous()).expect("contiguous");
    let tables = Tensor::new(&[[0u32, 1]], &Device::Cpu).expect("a table");
    let kv = PagedKv { keys: &keys, values: &counted, block_tables: &tables, block_size: 5 };
    let queries = Queries { positions: u32s(&[9]), query_start: u32s(&[0, 1]), num_single: 0 };
    everywhere(|level, dtype| {
        let q = noise_as(dtype, &[1, 1, 32], 1);
        let out = paged_attention_at(level, &q, &kv, &queries, Some(3), 1.0).expect("fits");
        assert_eq!(values(&out), [8.0; 32]);
    });
}

#[test]
fn segment_attention_agrees_with_its_reference() {
    everywhere(|level, dtype| {
        for (starts, heads, head_dim) in
            [(&[0, 1][..], 1, 64), (&[0, 5, 6, 60], 2, 64), (&[0, 0, 150, 150], 3, 72), (&[0, 300], 2, 32)]
        {
            let patches = *starts.last().expect("not empty") as usize;
            let part = |seed| noise_as(dtype, &[patches, heads, head_dim], seed);
            let (q, k, v) = (part(18), part(19), part(20));
            let got = segment_attention_at(level, &q, &k, &v, &u32s(starts), 0.125).expect("fits");
            let wanted = segment_reference(&q, &k, &v, &u32s(starts), 0.125, DType::F32).expect("fits");
            compare(&format!("{level:?} {dtype:?} {starts:?}"), &got, &wanted, |_, _| ATTENTION_F32);
        }
    });
}

#[test]
fn attention_of_no_rows_is_empty() {
    let pool = noise(&[4, 1, 32], 1);
    let tables = Tensor::zeros((1, 1), DType::U32, &Device::Cpu).expect("a table");
    let kv = PagedKv { keys: &pool, values: &pool, block_tables: &tables, block_size: 4 };
    let queries = Queries { positions: u32s(&[]), query_start: u32s(&[0, 0]), num_single: 0 };
    everywhere(|level, dtype| {
        let q = Tensor::zeros((0, 2, 32), dtype, &Device::Cpu).expect("an empty tensor");
        let out = paged_attention_at(level, &q, &kv, &queries, None, 1.0).expect("no rows are fine");
        assert_eq!((out.dims(), out.dtype()), (&[0, 2, 32][..], dtype));
        let out = segment_attention_at(level, &q, &q, &q, &u32s(&[0]), 1.0).expect("no rows are fine");
        assert_eq!(out.dims(), [0, 2, 32]);
    });
}

#[test]
fn attention_outside_the_cache_is_an_error() {
    let (pool, q) = (noise(&[8, 1, 32], 1), noise(&[1, 2, 32], 2));
    let attend = |table: &[u32], block_size: usize, position: u32, starts: &[u32]| {
        let tables = u32s(table).reshape((1, table.len())).expect("a table");
        let kv = PagedKv { keys: &pool, values: &pool, block_tables: &tables, block_size };
        let queries = Queries { positions: u32s(&[position]), query_start: u32s(starts), num_single: 0 };
        paged_attention_at(Level::Widest, &q, &kv, &queries, None, 1.0)
    };
    attend(&[1, 0], 4, 7, &[0, 1]).expect("inside");
    expect_kind(attend(&[1, 0], 4, 8, &[0, 1]), ErrorKind::Internal);
    expect_kind(attend(&[1, 2], 4, 7, &[0, 1]), ErrorKind::Internal);
    expect_kind(attend(&[u32::MAX], 4, 0, &[0, 1]), ErrorKind::Internal);
    expect_kind(attend(&[0], 4, u32::MAX, &[0, 1]), ErrorKind::Internal);
    expect_kind(attend(&[0], 0, 0, &[0, 1]), ErrorKind::Internal);
    expect_kind(attend(&[0], 4, 0, &[0, 2]), ErrorKind::Internal);
    expect_kind(attend(&[0], 4, 0, &[1, 1]), ErrorKind::Internal);
    expect_kind(attend(&[0], 4, 0, &[0]), ErrorKind::Internal);
    let k = noise(&[2, 2, 32], 3);
    expect_kind(segment_attention_at(Level::Widest, &q, &k, &k, &u32s(&[0, 1]), 1.0), ErrorKind::Internal);
    expect_kind(segment_attention_at(Level::Widest, &q, &q, &q, &u32s(&[]), 1.0), ErrorKind::Internal);
}
