//! What taps cost when nobody looks, and what looking costs: `cargo bench -p pyrex-core --bench taps`.
//!
//! A decode step of the shapes of `reference/configs/e2b-10layers.json`, made-up weights, two threads. First what a step
//! pays at most for taps that nobody looks at: how many there are, times what one costs where the compiler can hide
//! nothing. Then steps with a tap that looks and does nothing, each beside a step that nobody looks at: the median of
//! their ratios, for other work on the machine mostly slows both of a pair.

use candle_core::{DType, Device, Tensor};
use pyrex_core::diag::pass::{Pass, Rows};
use pyrex_core::models::{LoadFormat, LoadOptions, LoadedModel, ModelSource, load};
use pyrex_core::ops::threads::thread_pool;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_core::trace::{NoTap, Origin, Tap};
use pyrex_core::{Error, Result};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const NUM_THREADS: usize = 2;
const PROMPT_TOKENS: usize = 64;
/// Pairs of steps, one with and one without somebody who looks.
const NUM_PAIRS: usize = 150;
/// Taps nobody looks at, to time one.
const NUM_CALLS: usize = 100_000_000;

/// Looks at everything, and counts.
#[derive(Default)]
struct Count(usize);

impl Tap for Count {
    fn watching(&self) -> bool {
        true
    }

    fn watching_steps(&self) -> bool {
        false
    }

    fn visit(&mut self, _: &str, _: &Tensor, _: Origin) -> Result<Option<Tensor>> {
        self.0 += 1;
        Ok(None)
    }
}

fn main() -> Result<()> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference/configs/e2b-10layers.json");
    let mut loaded = load(&LoadOptions {
        format: LoadFormat::Dummy,
        ..LoadOptions::new(ModelSource::Path(config), Device::Cpu, DType::F32)
    })?;
    let ns_per_call = unwatched_call()?;
    let loaded = &mut loaded;
    let Steps { num_taps, pairs } = thread_pool(Some(NUM_THREADS))?.install(move || steps(loaded))?;
    let unwatched_ms = median(pairs.iter().map(|pair| pair.0));
    let watched_ms = median(pairs.iter().map(|pair| pair.1));
    let more = median(pairs.iter().map(|pair| pair.1 / pair.0)) - 1.0;
    let share = num_taps as f64 * ns_per_call / (unwatched_ms * 1e6) * 100.0;
    println!("taps in a decode step            {num_taps:8}");
    println!("one that nobody looks at, ns     {ns_per_call:8.2}");
    println!("a decode step, ms                {unwatched_ms:8.3}");
    println!("  of which taps, at most, %      {share:8.5}");
    println!("a step that somebody watches, ms {watched_ms:8.3}");
    println!("  more than the one beside it, % {:8.3}", more * 100.0);
    Ok(())
}

/// Nanoseconds of a tap that nobody looks at: the virtual call, with a name like the real ones that is never built.
fn unwatched_call() -> Result<f64> {
    let path = String::from("model.language_model.layers.3.self_attn");
    let mut nobody = NoTap;
    let mut x = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    let started = Instant::now();
    for _ in 0..NUM_CALLS {
        let tap: &mut dyn Tap = black_box(&mut nobody);
        x = black_box(tap.see(|| format!("{}.q_rope", black_box(&path)), x)?);
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / NUM_CALLS as f64)
}

/// Milliseconds of steps without and with somebody who looks.
struct Steps {
    num_taps: usize,
    pairs: Vec<(f64, f64)>,
}

fn steps(loaded: &mut LoadedModel) -> Result<Steps> {
    let input_ids: Vec<u32> = (0..PROMPT_TOKENS as u32).map(|i| 100 + 31 * i).collect();
    let prompt = EncodedPrompt { input_ids, ..EncodedPrompt::default() };
    let mut pass = Pass::new(&*loaded.model, PROMPT_TOKENS + 2 * NUM_PAIRS + 1)?;
    pass.prefill(&mut NoTap, &prompt, Rows::Last)?;
    let mut count = Count::default();
    pass.decode(&mut count, 7)?;
    let mut timed = |tap: &mut dyn Tap| -> Result<f64> {
        let started = Instant::now();
        black_box(pass.decode(tap, 7)?);
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    let num_taps = count.0;
    let mut pairs = Vec::with_capacity(NUM_PAIRS);
    for turn in 0..NUM_PAIRS {
        // Who goes first changes: the context grows by one from step to step.
        let early = if turn % 2 == 1 { Some(timed(&mut count)?) } else { None };
        let unwatched = timed(&mut NoTap)?;
        let watched = early.map_or_else(|| timed(&mut count), Ok)?;
        pairs.push((unwatched, watched));
    }
    match count.0 == num_taps * (NUM_PAIRS + 1) {
        true => Ok(Steps { num_taps, pairs }),
        false => Err(Error::internal("a step showed other taps than the one before")),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
