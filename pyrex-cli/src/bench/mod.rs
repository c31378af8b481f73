//! `pyrex bench`: how fast a checkpoint is here, or the shapes of a config.
//!
//! [`single`]: one request at a time. [`together`]: many at once. [`prefix`]: a prompt whose beginning is in the cache.

mod machine;
mod prefix;
mod single;
mod timeline;
mod together;

use crate::fail::Failure;
use crate::options::{ModelArguments, RunArguments, ThreadArguments, Weights, at_least_one};
use crate::picture::{Picture, parse_size};
use clap::Args;
use pyrex_core::{Engine, EngineOptions, SamplingParams};
use serde_json::{Map, Value, json};

/// How often everything is measured.
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
    load_format: Weights,
    /// Length of the prompt, its image included
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    max_tokens: usize,
    /// Begin the prompt with a picture of this size
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    image: Option<Picture>,
    /// Measure so many requests together, and one of them alone
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "image")]
    requests: Option<usize>,
    /// How many of them one step computes [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "requests")]
    max_sequences: Option<usize>,
    /// Measure the first token after a prefix of so many tokens that the cache holds, and after one that it does not
    #[arg(long, value_name = "N", value_parser = at_least_one,
          conflicts_with_all = ["requests", "image", "prompt_tokens", "max_tokens"])]
    shared_prefix: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What each mode wants of its engine.
#[derive(Default)]
struct Setup {
    max_model_len: Option<usize>,
    max_sequences: Option<usize>,
    prefix_cache: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (arguments.requests, arguments.shared_prefix) {
        (Some(num_requests), _) => together::run(arguments, num_requests),
        (None, Some(prefix_tokens)) => prefix::run(arguments, prefix_tokens),
        (None, None) => single::run(arguments),
    }
}

/// Opens the engine. Only a run that is about the prefix cache has one: all others ask the same several times, and a prompt
/// that is remembered has no prefill.
fn open(arguments: &Arguments, setup: Setup) -> Result<Engine, Failure> {
    let Setup { max_model_len, max_sequences, prefix_cache } = setup;
    Ok(Engine::open(EngineOptions {
        load_format: arguments.load_format.format(),
        max_model_len,
        max_sequences,
        prefix_cache,
        ..arguments.run.engine(arguments.model.source()?, &arguments.threads)
    })?)
}

/// The option for sequences of up to so many tokens: the default if that is enough.
fn room_for(longest: usize) -> Option<usize> {
    (longest > EngineOptions::DEFAULT_MAX_MODEL_LEN).then_some(longest)
}

/// So many tokens, past stop tokens.
fn answer_of(max_tokens: usize) -> SamplingParams {
    SamplingParams { max_tokens: Some(max_tokens), ignore_eos: true, ..SamplingParams::default() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was measured, and then the figures.
fn with_head(arguments: &Arguments, figures: Value) -> Value {
    let mut object = Map::new();
    for part in [head(arguments), figures] {
        if let Value::Object(part) = part {
            object.extend(part);
        }
    }
    Value::Object(object)
}

fn head(arguments: &Arguments) -> Value {
    json!({
        "model": arguments.model.name(),
        "load_format": match arguments.load_format {
            Weights::Safetensors => "safetensors",
            Weights::Dummy => "dummy",
        },
        "device": arguments.run.device.to_string(),
        "dtype": arguments.run.dtype().to_string(),
        "num_threads": arguments.threads.num_threads,
        "num_runs": NUM_RUNS,
    })
}
