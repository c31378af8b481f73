//! `pyrex profile`: where the time goes, operation by operation, against what the machine can do.

mod page;

use crate::fail::Failure;
use crate::made_up::made_up_prompt;
use crate::options::{ModelArguments, PromptArguments, RunArguments, ThreadArguments, Weights, at_least_one};
use clap::{Args, ValueEnum};
use pyrex_core::{EncodedPrompt, GroupBy, LoadedModel, Profile, ProfileOptions, Prompt, profile};
use std::io::{Write, stdout};

/// Arguments of `profile`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Made-up ids instead of a prompt, this many [default without a prompt: 512]
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["prompt", "image", "system"])]
    prompt_tokens: Option<usize>,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    /// Where the weights come from
    #[arg(long, value_enum, default_value_t)]
    load_format: Weights,
    /// Greedy decode steps after the prompt; 0 leaves decoding out
    #[arg(long, value_name = "N", default_value_t = 16)]
    steps: usize,
    /// How often all of it is measured, after one round that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    repetitions: usize,
    /// What goes into one row
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What goes into one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// The same operation of all layers.
    #[default]
    Operation,
    /// All of a layer.
    Layer,
    /// All of a stage.
    Stage,
}

/// How a profile is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    #[default]
    Text,
    /// One object.
    Json,
}

impl By {
    fn group(self) -> GroupBy {
        match self {
            Self::Operation => GroupBy::Operation,
            Self::Layer => GroupBy::Layer,
            Self::Stage => GroupBy::Stage,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Layer => "layer",
            Self::Stage => "stage",
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let prompt = arguments.prompt.prompt_if_any()?;
    let source = arguments.model.source()?;
    let mut loaded = arguments.run.load(&source, arguments.load_format)?;
    let prompt = encoded(&loaded, prompt, arguments.prompt_tokens)?;
    let options = ProfileOptions {
        steps: arguments.steps,
        repetitions: arguments.repetitions,
        num_threads: arguments.threads.num_threads,
        ceilings: None,
    };
    let found = profile(&mut loaded, &prompt, &options)?;
    let page = match arguments.format {
        Format::Text => page::text(&found, &head(arguments, &found), arguments.by.group()),
        Format::Json => format!("{}\n", page::json(&found, arguments)),
    };
    Ok(stdout().write_all(page.as_bytes())?)
}

fn encoded(
    loaded: &LoadedModel,
    prompt: Option<Prompt>,
    num_tokens: Option<usize>,
) -> Result<EncodedPrompt, Failure> {
    const DEFAULT_TOKENS: usize = 512;
    match prompt {
        Some(prompt) => Ok(loaded.processor.encode(&prompt)?),
        None => Ok(made_up_prompt(loaded.model.spec(), 0, num_tokens.unwrap_or(DEFAULT_TOKENS))),
    }
}

/// What was measured, in one line.
fn head(arguments: &Arguments, found: &Profile) -> String {
    format!(
        "{}, {}, {}, {} threads; medians of {} rounds after one to warm up",
        arguments.model.name(),
        arguments.run.device,
        arguments.run.dtype(),
        found.num_threads,
        found.repetitions
    )
}
