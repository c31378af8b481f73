//! `pyrex generate`: one prompt, its answer streamed as text or printed as one JSON object.

use crate::fail::Failure;
use crate::options::{ModelArguments, PromptArguments, RunArguments, ThreadArguments, at_least_one};
use crate::progress;
use clap::{Args, ValueEnum};
use pyrex_core::{Completion, Engine, EngineOptions, Event, Request, RequestHandle, SamplingParams};
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// Arguments of `generate`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
struct SamplingArguments {
    /// The most tokens to generate [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the likeliest tokens up to this mass
    #[arg(long, value_name = "P", requires = "temperature", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep the K likeliest tokens
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Keep tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", requires = "temperature", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// The same seed gives the same answer [default: a fresh one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Text that ends the answer; may be given several times
    #[arg(long, value_name = "S")]
    stop: Vec<String>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The answer, as it comes.
    #[default]
    Text,
    /// One object when it is whole.
    Json,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let sampling = arguments.sampling.params();
    sampling.validate().map_err(|error| Failure::Usage(error.to_string()))?;
    let prompt = arguments.prompt.prompt()?;
    let engine = Engine::open(EngineOptions {
        device: arguments.run.device,
        dtype: arguments.run.dtype,
        num_threads: arguments.threads.num_threads,
        progress: progress::on_terminal(),
        ..EngineOptions::new(arguments.model.source()?)
    })?;
    let answer = engine.submit(Request::new(prompt).with_sampling(sampling))?;
    match arguments.format {
        Format::Text => stream(answer),
        Format::Json => Ok(writeln!(stdout(), "{}", as_json(&answer.wait()?))?),
    }
}

impl SamplingArguments {
    fn params(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ..SamplingParams::default()
        }
    }
}

fn stream(answer: RequestHandle) -> Result<(), Failure> {
    let mut stdout = stdout();
    for event in answer {
        match event {
            Event::Token { text, .. } => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Started { .. } | Event::Finished { .. } => {}
        }
    }
    Ok(writeln!(stdout)?)
}

fn as_json(answer: &Completion) -> Value {
    let (usage, timings) = (&answer.usage, &answer.timings);
    json!({
        "text": answer.text,
        "token_ids": answer.token_ids,
        "prompt_token_ids": &answer.prompt_token_ids[..],
        "finish_reason": answer.finish_reason.name(),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "image_tokens": usage.image_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "timings": {
            "load_ms": timings.load_ms,
            "preprocess_ms": timings.preprocess_ms,
            "encode_images_ms": timings.encode_images_ms,
            "prefill_ms": timings.prefill_ms,
            "decode_ms": timings.decode_ms,
            "ttft_ms": timings.ttft_ms,
        },
    })
}
