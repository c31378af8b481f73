//! `pyrex bisect`: where a model first goes wrong, against a dump of the reference.

use crate::fail::Failure;
use crate::options::{ModelArguments, PromptArguments, RunArguments, Weights};
use clap::Args;
use pyrex_core::{ActivationDtype, DumpFile, bisect};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `bisect`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A dump of the reference: python reference/dump.py --noise …
    #[arg(long, value_name = "DUMP")]
    reference: PathBuf,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reference = DumpFile::open(&arguments.reference)?;
    let prompt = match arguments.prompt.is_empty() {
        true => None,
        false => Some(arguments.prompt.prompt()?),
    };
    let source = arguments.model.source()?;
    let dtype = arguments.run.dtype.unwrap_or(match reference.manifest.dtype.as_str() {
        "bf16" => ActivationDtype::Bf16,
        _ => ActivationDtype::F32,
    });
    let run = RunArguments { dtype: Some(dtype), ..arguments.run };
    let loaded = run.load(&source, Weights::Safetensors)?;
    let found = bisect(&loaded, &source, &reference, prompt.as_ref())?;
    write!(stdout(), "{found}")?;
    match found.is_clean() {
        true => Ok(()),
        false => Err(Failure::Findings),
    }
}
