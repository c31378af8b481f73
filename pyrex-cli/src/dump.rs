//! `pyrex dump`: the named tensors of one prefill, in f32, as a safetensors file.

use crate::fail::Failure;
use crate::options::{ModelArguments, PromptArguments, RunArguments};
use crate::progress;
use clap::Args;
use pyrex_core::{DumpOptions, LoadFormat, LoadOptions, dump_prefill, load};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `dump`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    run: RunArguments,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only the taps whose names match, such as '*layers.0.*'
    #[arg(long, value_name = "GLOB")]
    taps: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let prompt = arguments.prompt.prompt()?;
    let source = arguments.model.source()?;
    let options = DumpOptions { taps: arguments.taps.clone(), model: arguments.model.name() };
    let loaded = load(&LoadOptions {
        source,
        device: arguments.run.device.open()?,
        dtype: arguments.run.dtype().dtype(),
        format: LoadFormat::Safetensors,
        progress: progress::on_terminal(),
    })?;
    let written = dump_prefill(&*loaded.model, &*loaded.processor, &prompt, &options, &arguments.out)?;
    let out = arguments.out.display();
    Ok(writeln!(stdout(), "{out}: {} tensors, {} bytes", written.num_tensors, written.num_bytes)?)
}
