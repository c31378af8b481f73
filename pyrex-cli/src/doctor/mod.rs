//! `pyrex doctor`: what would fail here, and what to do about it, before anything is started.
//!
//! Takes the flags of `pyrex serve`. [`machine`], [`model`] and [`server`] look; every line of the answer is a [`Check`].

mod check;
mod machine;
mod model;
mod server;

use crate::fail::Failure;
use crate::serve::{ServerArguments, Settings, SettingsArguments};
use check::{Check, Verdict};
use clap::{Args, ValueEnum};
use machine::Memory;
use serde_json::json;
use std::io::{Write, stdout};

/// Arguments of `doctor`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Load the model and let it answer
    #[arg(long)]
    self_test: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A line for each check.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let checks = checks(arguments);
    let is_well = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let page = match arguments.format {
        Format::Text => text(&checks),
        Format::Json => {
            let checks: Vec<_> = checks.iter().map(Check::json).collect();
            format!("{}\n", json!({ "ok": is_well, "checks": checks }))
        }
    };
    stdout().write_all(page.as_bytes())?;
    if is_well { Ok(()) } else { Err(Failure::Findings) }
}

fn checks(arguments: &Arguments) -> Vec<Check> {
    let given = &arguments.settings;
    let (settings, mut checks) = match given.resolve() {
        Ok(settings) => (Some(settings), Vec::new()),
        Err(Failure::Usage(error) | Failure::Other(error)) => (
            None,
            vec![Check::fail("config", error, "the server would not start: see pyrex serve --print-config")],
        ),
        Err(Failure::BrokenPipe | Failure::Findings) => (None, Vec::new()),
    };
    let engine = settings.as_ref().map_or(&given.engine, |settings: &Settings| &settings.engine);
    let memory = Memory::read();
    checks.extend(machine::checks(engine, memory));
    checks.extend(model::checks(engine, memory));
    let is_well = checks.iter().all(|check| check.verdict != Verdict::Fail);
    if arguments.self_test && is_well {
        checks.push(model::self_test(engine));
    }
    // Who asks about the model alone wants no port.
    let about_a_server = given.config.is_some() || given.server != ServerArguments::default();
    if let Some(settings) = settings.filter(|_| about_a_server) {
        checks.extend(server::checks(&settings));
    }
    checks
}

fn text(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (ok, warn, fail) = (count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    let lines: String = checks.iter().map(Check::text).collect();
    format!("{lines}{ok} ok, {warn} warn, {fail} fail\n")
}
