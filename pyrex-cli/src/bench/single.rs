//! One request at a time: loading, the vision tower, prefill, decode, and memory.
//!
//! One warm-up request, then [`NUM_RUNS`] like it, each with a picture of its own if there is one; each figure is the median. The
//! answer goes on past stop tokens, and from its first token to its last counts what the clock says, whoever was waited for.
//! After each run the machine's memory is read for a moment: decoding is bound by reading weights, and how fast memory is
//! changes with whatever else the machine does.

use super::machine::peak_rss_bytes;
use super::{Arguments, IMAGE_ROOM, NUM_RUNS, Setup, answer_of, median, open, room_for, with_head};
use crate::fail::Failure;
use crate::made_up::made_up_ids;
use pyrex_core::{
    Chat, EncodedPrompt, Engine, MemoryReader, Message, Prompt, Request, Timings, Usage, describe,
};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::time::Instant;

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

/// Runs the mode.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let max_model_len = room_for(arguments.prompt_tokens + arguments.max_tokens + IMAGE_ROOM);
    let engine = open(arguments, Setup { max_model_len, ..Setup::default() })?;
    measure(&engine, arguments, 0)?;
    let peak_rss_bytes = peak_rss_bytes();
    let reader = MemoryReader::new(arguments.threads.num_threads);
    let (mut runs, mut reads) = (Vec::new(), Vec::new());
    for run in 1..=NUM_RUNS as u8 {
        runs.push(measure(&engine, arguments, run)?);
        reads.push(reader.bytes_per_s());
    }
    let decode_bytes = describe(&arguments.model.source()?)?.decode_bytes;
    let figures = Figures { peak_rss_bytes, decode_bytes, read_bytes_per_s: median(reads), ..medians(&runs) };
    match arguments.json {
        true => Ok(writeln!(stdout(), "{}", as_json(arguments, &figures))?),
        false => print(&figures),
    }
}

/// One answer: what it took, and how long it was.
fn measure(engine: &Engine, arguments: &Arguments, variant: u8) -> Result<(Timings, Usage), Failure> {
    let (preprocess_ms, prompt) = prompt(engine, arguments, variant)?;
    let request = Request::new(prompt).with_sampling(answer_of(arguments.max_tokens));
    let submitted = Instant::now();
    let completion = engine.submit(request)?.wait()?;
    let decode_ms = submitted.elapsed().as_secs_f64() * 1e3 - completion.timings.ttft_ms;
    Ok((Timings { preprocess_ms, decode_ms, ..completion.timings }, completion.usage))
}

/// The picture if there is one, then ordinary ids up to the length asked for; and how long that took.
fn prompt(engine: &Engine, arguments: &Arguments, variant: u8) -> Result<(f64, EncodedPrompt), Failure> {
    let started = Instant::now();
    let mut encoded = match &arguments.image {
        None => EncodedPrompt::default(),
        Some(picture) => {
            let message = Message::parts("user", vec![picture.to_part(variant)]);
            engine.encode(&Prompt::Chat(Chat::new(vec![message])))?
        }
    };
    let preprocess_ms = started.elapsed().as_secs_f64() * 1e3;
    let ids = made_up_ids(engine.spec(), 0, arguments.prompt_tokens);
    encoded.input_ids.extend(ids.iter().skip(encoded.input_ids.len()));
    Ok((preprocess_ms, encoded))
}

fn medians(runs: &[(Timings, Usage)]) -> Figures {
    let of = |figure: fn(&Timings) -> f64| median(runs.iter().map(|(timings, _)| figure(timings)).collect());
    let (_, usage) = runs[0];
    Figures {
        load_ms: of(|run| run.load_ms),
        preprocess_ms: of(|run| run.preprocess_ms),
        encode_images_ms: of(|run| run.encode_images_ms),
        prefill_ms: of(|run| run.prefill_ms),
        decode_ms: of(|run| run.decode_ms),
        ttft_ms: of(|run| run.ttft_ms),
        prompt_tokens: usage.prompt_tokens,
        image_tokens: usage.image_tokens,
        completion_tokens: usage.completion_tokens,
        ..Figures::default()
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
    let figures = json!({
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
    });
    with_head(arguments, figures)
}
