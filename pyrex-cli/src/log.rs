//! What a server says on stderr: text for people, or one JSON object a line.

use crate::fail::Failure;
use clap::{Args, ValueEnum};
use std::env;
use std::io::stderr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

/// What is said unless somebody wants to hear more.
const DEFAULT_LEVEL: &str = "info";

/// How the log looks.
#[derive(Args)]
pub(crate) struct LogArguments {
    /// How the log on stderr looks
    #[arg(long, value_enum, default_value_t)]
    log: Format,
    /// What is logged: error, warn, info, debug or trace, or as in RUST_LOG [default: RUST_LOG, or else info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A line for people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Starts the log of the process.
///
/// # Errors
/// If the level is none.
pub(crate) fn start(arguments: &LogArguments) -> Result<(), Failure> {
    let told = || env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let level = arguments.log_level.clone().or_else(told).unwrap_or_else(|| DEFAULT_LEVEL.to_owned());
    let wrong = |error| Failure::Usage(format!("log level {level:?}: {error}"));
    let filter = EnvFilter::builder().parse(&level).map_err(wrong)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match arguments.log {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(filter).init();
    Ok(())
}
