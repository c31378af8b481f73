//! `pyrex dump`: the named tensors of a prefill and of the decode steps after it, as the reference's `dump.py` writes them.

use crate::fail::Failure;
use crate::made_up::made_up_prompt;
use crate::options::{ModelArguments, PromptArguments, RunArguments, Weights, at_least_one};
use clap::Args;
use pyrex_core::{DumpInput, DumpOptions, dump};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `dump`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Made-up ids instead of a prompt, this many
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["prompt", "image", "system"])]
    prompt_tokens: Option<usize>,
    #[command(flatten)]
    run: RunArguments,
    /// Where the weights come from
    #[arg(long, value_enum, default_value_t)]
    load_format: Weights,
    /// Also dump this many greedy decode steps
    #[arg(long, value_name = "N", default_value_t = 0)]
    steps: usize,
    /// The file to write: safetensors, or raw f32 with a JSON index beside it if the name ends in .bin
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only the taps whose names match, such as '*layers.0.*'; may be given several times
    #[arg(long, value_name = "GLOB")]
    taps: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let prompt = match arguments.prompt_tokens {
        None => Some(arguments.prompt.prompt()?),
        Some(_) => None,
    };
    let source = arguments.model.source()?;
    let loaded = arguments.run.load(&source, arguments.load_format)?;
    let made_up;
    let input = match &prompt {
        Some(prompt) => DumpInput::Prompt(prompt),
        None => {
            made_up = made_up_prompt(loaded.model.spec(), 0, arguments.prompt_tokens.unwrap_or(1));
            DumpInput::Encoded(&made_up)
        }
    };
    let options = DumpOptions {
        taps: arguments.taps.clone(),
        steps: arguments.steps,
        model: arguments.model.name(),
        format: arguments.load_format.format(),
    };
    let written = dump(&loaded, &source, input, &options, &arguments.out)?;
    let out = arguments.out.display();
    Ok(writeln!(stdout(), "{out}: {} tensors, {} bytes", written.num_tensors, written.num_bytes)?)
}
