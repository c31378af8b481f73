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

/// How the log looks, and who else hears of what happens.
#[derive(Args)]
pub(crate) struct LogArguments {
    /// How the log on stderr looks
    #[arg(long, value_enum, default_value_t)]
    log: Format,
    /// What is logged: error, warn, info, debug or trace, or as in RUST_LOG [default: RUST_LOG, or else info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// An OpenTelemetry collector that is told of spans, such as http://localhost:4318
    #[cfg(feature = "otel")]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A line for people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// The log, to be closed when nothing more is said.
#[derive(Default)]
pub(crate) struct Log {
    #[cfg(feature = "otel")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts the log of the process.
///
/// # Errors
/// If the level is none, or the collector's URL.
pub(crate) fn start(arguments: &LogArguments) -> Result<Log, Failure> {
    let told = || env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let level = arguments.log_level.clone().or_else(told).unwrap_or_else(|| DEFAULT_LEVEL.to_owned());
    let wrong = |error| Failure::Usage(format!("log level {level:?}: {error}"));
    let filter = EnvFilter::builder().parse(&level).map_err(wrong)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match arguments.log {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let (log, spans) = spans(arguments)?;
    let layers: Vec<_> = [lines].into_iter().chain(spans).collect();
    tracing_subscriber::registry().with(layers).with(filter).init();
    Ok(log)
}

/// The log, and what makes the subscriber tell a collector of spans.
type Spans = (Log, Option<Box<dyn Layer<Registry> + Send + Sync>>);

#[cfg(feature = "otel")]
fn spans(arguments: &LogArguments) -> Result<Spans, Failure> {
    let Some(url) = &arguments.otlp else { return Ok((Log::default(), None)) };
    let (layer, provider) = crate::otel::layer(url)?;
    Ok((Log { spans: Some(provider) }, Some(layer)))
}

#[cfg(not(feature = "otel"))]
fn spans(_arguments: &LogArguments) -> Result<Spans, Failure> {
    Ok((Log::default(), None))
}

impl Log {
    /// Sends what was not sent yet.
    pub(crate) fn close(self) {
        #[cfg(feature = "otel")]
        if let Some(Err(error)) = self.spans.map(|spans| spans.shutdown()) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
