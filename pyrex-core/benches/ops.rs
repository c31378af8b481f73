//! How fast the ops are, against what the machine can do: `cargo bench -p pyrex-core --bench ops [-- name]`.
//!
//! Every figure is the best of several runs, because other work on the machine only ever makes one slower.

use candle_core::{DType, Device, Tensor};
use pyrex_core::Result;
use pyrex_core::ops::attention::{PagedKv, Queries, paged_attention, segment_attention};
use pyrex_core::ops::{Matrix, activation, matmul, rms_norm};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Weights to cycle through, so that none is still in the cache: several times the last level of any machine.
const COLD_BYTES: usize = 400 << 20;

fn main() -> Result<()> {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    type Section = (&'static str, fn() -> Result<()>);
    let sections: [Section; 7] = [
        ("bandwidth", bandwidth),
        ("matvec", matvec),
        ("batch", batch),
        ("gemm", gemm),
        ("attention", attention),
        ("decode", decode),
        ("rows", rows),
    ];
    for (name, run) in sections {
        if wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())) {
            println!("\n{name}");
            run()?;
        }
    }
    Ok(())
}

/// Seconds of the fastest of `runs`.
fn best<T>(runs: usize, mut f: impl FnMut() -> T) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(f());
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
}

fn bandwidth() -> Result<()> {
    for threads in [1, 2] {
        println!("  read, {threads} threads: {:6.1} GB/s", read_bandwidth(threads) / 1e9);
    }
    Ok(())
}

/// Bytes per second of the fastest part of a long read; parts are as long as one weight.
fn read_bandwidth(threads: usize) -> f64 {
    const PART: usize = 16 << 20;
    let words = vec![1u64; COLD_BYTES / 8];
    let sum = |part: &[u64]| part.iter().fold(0u64, |sum, word| sum ^ word);
    let mut parts = words.chunks(PART / 8).cycle();
    let mut read = || parts.next().map(|part| part.par_chunks(1 << 15).map(sum).reduce(|| 0, |a, b| a ^ b));
    PART as f64 / pool(threads).install(|| best(10 * COLD_BYTES / PART, &mut read))
}

fn noise(shape: (usize, usize), dtype: DType) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?.to_dtype(dtype)?)
}

fn matvec() -> Result<()> {
    let peak = [1, 2].map(read_bandwidth);
    for (rows, cols) in [(6144, 1536), (12288, 1536), (1536, 12288), (32768, 1536)] {
        for dtype in [DType::BF16, DType::F32, DType::F16] {
            let bytes = rows * cols * dtype.size_in_bytes();
            let weight = noise((rows, cols), dtype)?;
            let weights = (0..COLD_BYTES.div_ceil(bytes))
                .map(|_| Matrix::from_tensor(&weight))
                .collect::<Result<Vec<_>>>()?;
            for (tokens, threads) in [(1, 1), (1, 2), (2, 2)] {
                if dtype != DType::BF16 && (tokens, threads) != (1, 2) {
                    continue;
                }
                let x = noise((tokens, cols), DType::F32)?;
                let mut weights_in_turn = weights.iter().cycle();
                let mut run = || weights_in_turn.next().map(|weight| matmul::matmul(&x, weight));
                let rate = bytes as f64 / pool(threads).install(|| best(4 * weights.len(), &mut run));
                let share = 100.0 * rate / peak[threads - 1];
                println!(
                    "  [{rows:5}, {cols:5}] {dtype:?} × {tokens:2} rows, {threads} threads: {:6.1} GB/s, {share:5.1} % of reading",
                    rate / 1e9
                );
            }
        }
    }
    Ok(())
}

/// One token each of several sequences: weights in no cache, two threads.
fn batch() -> Result<()> {
    let pool = pool(2);
    for (rows, cols) in [(6144, 1536), (1536, 6144), (12288, 1536), (1536, 12288)] {
        let (plain, bytes) = (noise((rows, cols), DType::F32)?, rows * cols * 2);
        let weight = plain.to_dtype(DType::BF16)?;
        let copies = COLD_BYTES.div_ceil(2 * bytes);
        let plain = (0..copies).map(|_| plain.copy()).collect::<candle_core::Result<Vec<_>>>()?;
        let ours = (0..2 * copies).map(|_| Matrix::from_tensor(&weight)).collect::<Result<Vec<_>>>()?;
        for tokens in [1, 2, 4, 8, 16, 32] {
            let x = noise((tokens, cols), DType::F32)?;
            let (mut plain_in_turn, mut ours_in_turn) = (plain.iter().cycle(), ours.iter().cycle());
            let theirs = pool.install(|| {
                best(4 * copies, || {
                    plain_in_turn.next().map(|weight| x.matmul(&weight.t().expect("two axes")))
                })
            });
            let ours = pool.install(|| {
                best(8 * copies, || ours_in_turn.next().map(|weight| matmul::matmul(&x, weight)))
            });
            let flops = (2 * tokens * rows * cols) as f64 / 1e9;
            println!(
                "  [{rows:5}, {cols:5}] × {tokens:2} rows, 2 threads: bf16 {:6.0} µs, {:5.1} GB/s, {:5.1} GFLOP/s; gemm crate f32 {:5.1} GFLOP/s",
                ours * 1e6,
                bytes as f64 / ours / 1e9,
                flops / ours,
                flops / theirs
            );
        }
    }
    Ok(())
}

fn gemm() -> Result<()> {
    let shapes = [
        (512, 1536, 6144),
        (512, 6144, 1536),
        (512, 1536, 2048),
        (512, 1536, 256),
        (512, 256, 1536),
        (2520, 768, 3072),
        (2520, 3072, 768),
        (2520, 768, 768),
        (64, 1536, 6144),
        (16, 1536, 6144),
    ];
    for (tokens, cols, rows) in shapes {
        let (x, weight) = (noise((tokens, cols), DType::F32)?, noise((rows, cols), DType::F32)?);
        let flops = (2 * tokens * cols * rows) as f64;
        for threads in [1, 2] {
            let rate = |f: &(dyn Fn() -> Tensor + Sync)| flops / pool(threads).install(|| best(7, f)) / 1e9;
            let plain = rate(&|| x.matmul(&weight.t().expect("two axes")).expect("the shapes fit"));
            print!("  {tokens:4} × [{rows:5}, {cols:5}], {threads} threads: gemm crate f32 {plain:6.1}");
            for dtype in [DType::F32, DType::BF16] {
                let weight = Matrix::from_tensor(&weight.to_dtype(dtype)?)?;
                print!(", {dtype:?} {:6.1}", rate(&|| matmul::matmul(&x, &weight).expect("the shapes fit")));
            }
            println!(" GFLOP/s");
        }
    }
    Ok(())
}

fn attention() -> Result<()> {
    let (patches, heads, width) = (2520, 12, 64);
    let part = || Tensor::randn(0f32, 1.0, (patches, heads, width), &Device::Cpu);
    let (q, k, v) = (part()?, part()?, part()?);
    let start = Tensor::new(&[0u32, patches as u32], &Device::Cpu)?;
    let flops = (4 * patches * patches * heads * width) as f64;
    for threads in [1, 2] {
        let seconds = pool(threads)
            .install(|| best(4, || segment_attention(&q, &k, &v, &start, 1.0).expect("the shapes fit")));
        println!(
            "  vision [{patches}, {heads}, {width}], {threads} threads: {:6.1} GFLOP/s",
            flops / seconds / 1e9
        );
    }
    Ok(())
}

/// One query each of several sequences over a paged cache that is in no other.
fn decode() -> Result<()> {
    const BLOCK_SIZE: usize = 16;
    for (sequences, context, head_dim) in
        [(1usize, 1000usize, 256usize), (1, 1000, 512), (16, 512, 256), (16, 1000, 256), (16, 1000, 512)]
    {
        let blocks = context.div_ceil(BLOCK_SIZE);
        let slots = sequences * blocks * BLOCK_SIZE;
        let bytes = 2 * sequences * context * head_dim * 4;
        let pool_of = |_| Tensor::randn(0f32, 1.0, (slots, 1, head_dim), &Device::Cpu);
        let copies = COLD_BYTES.div_ceil(bytes).min(100);
        let pools = (0..2 * copies).map(pool_of).collect::<candle_core::Result<Vec<_>>>()?;
        let tables = Tensor::arange(0, (sequences * blocks) as u32, &Device::Cpu)?;
        let tables = tables.reshape((blocks, sequences))?.t()?.contiguous()?;
        let queries = Queries {
            positions: Tensor::full(context as u32 - 1, sequences, &Device::Cpu)?,
            query_start: Tensor::arange(0, sequences as u32 + 1, &Device::Cpu)?,
            num_single: sequences,
        };
        let q = Tensor::randn(0f32, 1.0, (sequences, 8, head_dim), &Device::Cpu)?;
        for threads in [1, 2] {
            let mut pools_in_turn = pools.chunks(2).cycle();
            let mut run = || {
                pools_in_turn.next().map(|kv| {
                    let (keys, values, block_size) = (&kv[0], &kv[1], BLOCK_SIZE);
                    let kv = PagedKv { keys, values, block_tables: &tables, block_size };
                    paged_attention(&q, &kv, &queries, None, 1.0).expect("the shapes fit")
                })
            };
            let seconds = pool(threads).install(|| best(4 * copies, &mut run));
            println!(
                "  {sequences:2} × {context:4} keys of {head_dim}, 8 heads, {threads} threads: {:6.0} µs, {:5.1} GB/s",
                seconds * 1e6,
                bytes as f64 / seconds / 1e9
            );
        }
    }
    Ok(())
}

fn rows() -> Result<()> {
    for rows in [512, 16] {
        let (x, y) = (noise((rows, 6144), DType::F32)?, noise((rows, 6144), DType::F32)?);
        let weight = Tensor::ones(6144, DType::F32, &Device::Cpu)?;
        let bytes = (rows * 6144 * 4) as f64;
        for threads in [1, 2] {
            let pool = pool(threads);
            let norm = pool.install(|| {
                best(20, || rms_norm::rms_norm(&x, Some(&weight), 1e-6).expect("the shapes fit"))
            });
            let gelu = pool.install(|| best(20, || activation::gelu_mul(&x, &y).expect("the shapes fit")));
            println!(
                "  [{rows}, 6144] f32, {threads} threads: rms_norm {:5.0} µs ({:.1} GB/s), gelu_mul {:5.0} µs ({:.1} GB/s)",
                norm * 1e6,
                2.0 * bytes / norm / 1e9,
                gelu * 1e6,
                3.0 * bytes / gelu / 1e9
            );
        }
    }
    Ok(())
}
