//! [`Failure`]: how a command ends when it does not succeed, and with which exit code.

use pyrex_core::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads our output any more: that is no error.
    BrokenPipe,
    /// What was looked for was found, and has been said.
    Findings,
    /// The arguments make no sense together.
    Usage(String),
    /// Anything else.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// For stdout: a pipe that closed is told apart from a disk that is full.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Other(format!("cannot write to stdout: {error}")),
        }
    }
}

/// What clap has to say: the help that was asked for, or the first thing that is wrong with the arguments.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        // A reader that leaves in the middle of the help is no error.
        DisplayHelp | DisplayVersion => error.print().map_or(ExitCode::SUCCESS, |()| ExitCode::SUCCESS),
        DisplayHelpOnMissingArgumentOrSubcommand => report("no command was given, see pyrex --help", 2),
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            report(first.trim_start_matches("error: "), 2)
        }
    }
}

/// Prints the one line an error is, and turns `code` into an exit code.
pub(crate) fn report(message: &str, code: u8) -> ExitCode {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // If stderr is gone too, the exit code still tells.
    drop(writeln!(io::stderr(), "error: {line}"));
    ExitCode::from(code)
}
