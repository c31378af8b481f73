//! `pyrex bench`: how long loading, the vision tower, prefill and decode take, and how much memory.
//!
//! One warm-up request, then [`NUM_RUNS`] of the same; each figure is the median. The answer goes on past stop tokens.
//! After each run the machine's memory is read for a moment: decoding is bound by reading weights, and how fast memory is
//! changes with whatever else the machine does.

use crate::fail::Failure;
use crate::options::{ModelArguments, RunArguments, ThreadArguments, at_least_one};
use crate::picture::{Picture, parse_size};
use crate::progress;
use clap::{Args, ValueEnum};
use pyrex_core::{
    Chat, Completion, EncodedPrompt, Engine, EngineOptions, LoadFormat, Message, Prompt, Request,
    SamplingParams, describe,
};
use serde_json::{Value, json};
use std::fs;
use std::hint::black_box;
use std::io::{Write, stdout};
use std::num::NonZeroUsize;
use std::thread;
use std::time::Instant;

/// How often the request is measured.
const NUM_RUNS: usize = 3;
/// Room in the longest sequence for the tokens of an image, whose number is known only once it is resized.
const IMAGE_ROOM: usize = 1200;

/// Arguments of `bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    /// Where the weights come from
    #[arg(long, value_enum, default_value_t)]
    load_format: Format,
    /// Length of the prompt, its image included
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    max_tokens: usize,
    /// Begin the prompt with a picture of this size
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    image: Option<Picture>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The files of the checkpoint.
    #[default]
    Safetensors,
    /// Made-up numbers of the right shapes: a lone config.json will do as --model.
    Dummy,
}

/// The medians over all runs.
#[derive(Default)]
struct Figures {
    load_ms: f64,
    preprocess_ms: f64,
    encode_images_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    ttft_ms: f64,
    prompt_tokens: usize,
    image_tokens: usize,
    completion_tokens: usize,
    peak_rss_bytes: Option<u64>,
    /// Bytes of weights that one decoded token reads.
    decode_bytes: u64,
    /// Bytes per second of reading memory, between the runs.
    read_bytes_per_s: f64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let engine = open(arguments)?;
    let (preprocess_ms, prompt) = prompt(&engine, arguments)?;
    let measure = |max_tokens| -> Result<Completion, Failure> {
        let sampling =
            SamplingParams { max_tokens: Some(max_tokens), ignore_eos: true, ..SamplingParams::default() };
        Ok(engine.submit(Request::new(prompt.clone()).with_sampling(sampling))?.wait()?)
    };
    measure(arguments.max_tokens)?;
    let peak_rss_bytes = peak_rss_bytes();
    let reader = Reader::new(arguments.threads.num_threads);
    let (mut runs, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..NUM_RUNS {
        runs.push(measure(arguments.max_tokens)?);
        reads.push(reader.bytes_per_s());
    }
    let decode_bytes = describe(&arguments.model.source()?)?.decode_bytes;
    let figures = Figures {
        preprocess_ms,
        peak_rss_bytes,
        decode_bytes,
        read_bytes_per_s: median(reads),
        ..medians(&runs)
    };
    match arguments.json {
        true => Ok(writeln!(stdout(), "{}", as_json(arguments, &figures))?),
        false => print(&figures),
    }
}

fn open(arguments: &Arguments) -> Result<Engine, Failure> {
    let longest = arguments.prompt_tokens + arguments.max_tokens + IMAGE_ROOM;
    let options = EngineOptions::new(arguments.model.source()?);
    Ok(Engine::open(EngineOptions {
        device: arguments.run.device,
        dtype: arguments.run.dtype,
        num_threads: arguments.threads.num_threads,
        load_format: match arguments.load_format {
            Format::Safetensors => LoadFormat::Safetensors,
            Format::Dummy => LoadFormat::Dummy,
        },
        max_model_len: (longest > EngineOptions::DEFAULT_MAX_MODEL_LEN).then_some(longest),
        // Every run asks the same: a prompt that is remembered has no prefill.
        prefix_cache: false,
        progress: progress::on_terminal(),
        ..options
    })?)
}

/// The picture if there is one, then ordinary ids up to the length asked for; and how long that took.
fn prompt(engine: &Engine, arguments: &Arguments) -> Result<(f64, EncodedPrompt), Failure> {
    let started = Instant::now();
    let mut encoded = match &arguments.image {
        None => EncodedPrompt::default(),
        Some(picture) => {
            let message = Message::parts("user", vec![picture.to_part()]);
            engine.encode(&Prompt::Chat(Chat::new(vec![message])))?
        }
    };
    let preprocess_ms = started.elapsed().as_secs_f64() * 1e3;
    // Special tokens stand at the ends of a vocabulary; the lower half past its beginning is ordinary.
    let half = (engine.spec().vocab_size / 2).max(1);
    let ids = (encoded.input_ids.len()..arguments.prompt_tokens).map(|i| ((i * 31 + 97) % half) as u32);
    let ids: Vec<u32> = ids.collect();
    encoded.input_ids.extend(ids);
    Ok((preprocess_ms, encoded))
}

/// The medians of what the engine measures itself.
fn medians(runs: &[Completion]) -> Figures {
    let of = |figure: fn(&Completion) -> f64| median(runs.iter().map(figure).collect());
    let usage = runs[0].usage;
    Figures {
        load_ms: of(|run| run.timings.load_ms),
        encode_images_ms: of(|run| run.timings.encode_images_ms),
        prefill_ms: of(|run| run.timings.prefill_ms),
        decode_ms: of(|run| run.timings.decode_ms),
        ttft_ms: of(|run| run.timings.ttft_ms),
        prompt_tokens: usage.prompt_tokens,
        image_tokens: usage.image_tokens,
        completion_tokens: usage.completion_tokens,
        ..Figures::default()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory to read, larger than any cache.
struct Reader {
    words: Vec<u64>,
    num_threads: usize,
}

impl Reader {
    const BYTES: usize = 512 << 20;

    fn new(num_threads: Option<usize>) -> Self {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { words: vec![1; Self::BYTES / 8], num_threads: num_threads.unwrap_or_else(cores) }
    }

    /// Reads everything once, a part on each thread.
    fn bytes_per_s(&self) -> f64 {
        let started = Instant::now();
        thread::scope(|scope| {
            for part in self.words.chunks(self.words.len().div_ceil(self.num_threads)) {
                scope.spawn(|| black_box(part.iter().fold(0, |sum, word| sum ^ word)));
            }
        });
        Self::BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

impl Figures {
    fn prefill_tokens_per_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill_ms * 1e3
    }

    /// Bytes of weights per second while decoding.
    fn decode_bytes_per_s(&self) -> Option<f64> {
        self.decode_tokens_per_s().map(|rate| rate * self.decode_bytes as f64)
    }

    /// The first token belongs to the prefill.
    fn decode_tokens_per_s(&self) -> Option<f64> {
        let steps = self.completion_tokens - 1;
        (steps > 0).then(|| steps as f64 / self.decode_ms * 1e3)
    }
}

fn print(figures: &Figures) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(out, "load         {:10.1} ms", figures.load_ms)?;
    if figures.image_tokens > 0 {
        writeln!(out, "preprocess   {:10.1} ms", figures.preprocess_ms)?;
        writeln!(
            out,
            "vision       {:10.1} ms     {} soft tokens",
            figures.encode_images_ms, figures.image_tokens
        )?;
    }
    writeln!(
        out,
        "prefill      {:10.1} tok/s  {} tokens",
        figures.prefill_tokens_per_s(),
        figures.prompt_tokens
    )?;
    if let Some(rate) = figures.decode_tokens_per_s() {
        writeln!(out, "decode       {rate:10.1} tok/s  {} tokens", figures.completion_tokens)?;
    }
    if let Some(rate) = figures.decode_bytes_per_s() {
        let share = rate / figures.read_bytes_per_s * 100.0;
        writeln!(out, "  weights    {:10.1} GB/s   {share:.0} % of reading memory", rate / 1e9)?;
    }
    writeln!(out, "first token  {:10.1} ms", figures.ttft_ms)?;
    if let Some(bytes) = figures.peak_rss_bytes {
        writeln!(out, "peak memory  {:10.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    Ok(())
}

fn as_json(arguments: &Arguments, figures: &Figures) -> Value {
    json!({
        "model": arguments.model.name(),
        "load_format": match arguments.load_format {
            Format::Safetensors => "safetensors",
            Format::Dummy => "dummy",
        },
        "device": arguments.run.device.to_string(),
        "dtype": arguments.run.dtype().to_string(),
        "num_threads": arguments.threads.num_threads,
        "num_runs": NUM_RUNS,
        "prompt_tokens": figures.prompt_tokens,
        "image_tokens": figures.image_tokens,
        "completion_tokens": figures.completion_tokens,
        "load_ms": figures.load_ms,
        "preprocess_ms": figures.preprocess_ms,
        "encode_images_ms": figures.encode_images_ms,
        "prefill_ms": figures.prefill_ms,
        "prefill_tokens_per_s": figures.prefill_tokens_per_s(),
        "decode_ms": figures.decode_ms,
        "decode_tokens_per_s": figures.decode_tokens_per_s(),
        "decode_bytes_per_s": figures.decode_bytes_per_s(),
        "read_bytes_per_s": figures.read_bytes_per_s,
        "ttft_ms": figures.ttft_ms,
        "peak_rss_bytes": figures.peak_rss_bytes,
    })
}

/// The most memory this process has held, where the system says so.
fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
