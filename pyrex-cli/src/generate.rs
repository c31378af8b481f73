//! `pyrex generate`: one prompt, its answer streamed as text or printed as one JSON object.

use crate::fail::Failure;
use crate::options::{ModelArguments, PromptArguments, RunArguments, ThreadArguments};
use crate::sampling::SamplingArguments;
use clap::{Args, ValueEnum};
use pyrex_core::{Completion, Engine, Event, Request, RequestHandle};
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
    let sampling = arguments.sampling.params()?;
    let prompt = arguments.prompt.prompt()?;
    let engine = Engine::open(arguments.run.engine(arguments.model.source()?, &arguments.threads))?;
    let answer = engine.submit(Request::new(prompt).with_sampling(sampling))?;
    match arguments.format {
        Format::Text => stream(answer),
        Format::Json => Ok(writeln!(stdout(), "{}", as_json(&answer.wait()?))?),
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
