//! `pyrex`: describe images and complete text from a shell.
//!
//! This crate only translates: arguments into the core's options, events into lines. Every command is a file.
//! Exit codes: 0; 2 for bad usage; 1 for everything else, with one line on stderr unless it is what was looked for.

mod bench;
mod bisect;
mod bundled;
mod canary;
mod chat;
mod compare;
mod data_url;
mod diff_logits;
mod doctor;
mod dump;
mod fail;
mod generate;
mod inspect;
mod log;
mod made_up;
mod options;
#[cfg(feature = "otel")]
mod otel;
mod picture;
mod profile;
mod progress;
mod sampling;
mod serve;

use clap::{Parser, Subcommand};
use fail::Failure;
use std::process::ExitCode;

/// Text and images in, tokens out, on this machine.
#[derive(Parser)]
#[command(name = "pyrex", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer one prompt and print the answer as it comes.
    Generate(generate::Arguments),
    /// Talk to a model on a terminal, pictures included.
    Chat(chat::Arguments),
    /// Answer OpenAI's protocol on a port.
    Serve(serve::Arguments),
    /// Ask a server what has a known answer, once or every minute.
    Canary(canary::Arguments),
    /// Write every named tensor of a prefill, and of decode steps, to a file.
    Dump(dump::Arguments),
    /// Compare two dumps, tensor by tensor.
    Compare(compare::Arguments),
    /// Compare the choices of two dumps, position by position.
    DiffLogits(diff_logits::Arguments),
    /// Find where a model first leaves the reference.
    Bisect(bisect::Arguments),
    /// Measure loading, the vision tower, prefill and decode.
    Bench(bench::Arguments),
    /// Find where the time goes, operation by operation.
    Profile(profile::Arguments),
    /// Say what would fail here, and what to do about it.
    Doctor(doctor::Arguments),
    /// Show what a checkpoint is: config, layers, sizes, and what is not supported.
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return fail::usage(&error),
    };
    let done = match arguments.command {
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Canary(arguments) => canary::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::DiffLogits(arguments) => diff_logits::run(&arguments),
        Command::Bisect(arguments) => bisect::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
    };
    match done {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Findings) => ExitCode::FAILURE,
        Err(Failure::Usage(message)) => fail::report(&message, 2),
        Err(Failure::Other(message)) => fail::report(&message, 1),
    }
}
