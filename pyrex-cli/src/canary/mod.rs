//! `pyrex canary`: does a server still see and speak, and how fast.
//!
//! Each round sends what [`probe`] knows the answer to; [`window`] keeps how the last rounds went, and says when the objective
//! is breached. Every round is one JSON object on a line of stdout.

mod client;
mod probe;
mod window;

use crate::fail::Failure;
use crate::options::at_least_one;
use clap::Args;
use client::{Client, ClientArguments};
use probe::{Probe, ProbeArguments};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use window::{Round, Window};

/// Arguments of `canary`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    #[command(flatten)]
    probes: ProbeArguments,
    /// Go on asking until the objective is breached
    #[arg(long)]
    watch: bool,
    /// Seconds between the beginnings of two rounds
    #[arg(long, value_name = "S", default_value = "60", requires = "watch", value_parser = seconds)]
    every: Duration,
    /// How many rounds are remembered
    #[arg(long, value_name = "N", default_value_t = 60, requires = "watch", value_parser = at_least_one)]
    window: usize,
    /// A round with a slower answer breaches the objective
    #[arg(long, value_name = "MS", value_parser = at_least_one)]
    max_latency_ms: Option<usize>,
    /// So does one after which fewer of the remembered rounds were well, once all that are remembered have been
    #[arg(long, value_name = "SHARE", requires = "watch", value_parser = share)]
    min_success: Option<f64>,
    /// So many breaches one after another are too many
    #[arg(long, value_name = "N", default_value_t = 3, requires = "watch", value_parser = at_least_one)]
    breaches: usize,
    /// What a shell does then, with the last line of the log on its stdin; watching goes on. Without it, the exit code is 1
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let probes = arguments.probes.probes();
    let size = if arguments.watch { arguments.window } else { 1 };
    let mut window = Window::new(size, arguments.min_success);
    let limit = if arguments.watch { arguments.breaches } else { 1 };
    loop {
        let began = Instant::now();
        let round = ask(&client, &probes, arguments.max_latency_ms);
        let line = line(&round, &mut window);
        say(&line)?;
        if window.num_breaches() >= limit {
            let Some(command) = &arguments.run else { return Err(Failure::Findings) };
            say(&pull(command, &line)?)?;
            window.forget_breaches();
            if !arguments.watch {
                return Err(Failure::Findings);
            }
        }
        if !arguments.watch {
            return Ok(());
        }
        thread::sleep(arguments.every.saturating_sub(began.elapsed()));
    }
}

fn ask(client: &Client, probes: &[Probe], max_latency_ms: Option<usize>) -> Round {
    let max_latency_ms = max_latency_ms.map_or(f64::INFINITY, |ms| ms as f64);
    Round { answers: probes.iter().map(|probe| client.ask(probe, max_latency_ms)).collect() }
}

/// The line of a round, once the window has seen it.
fn line(round: &Round, window: &mut Window) -> Value {
    window.see(round);
    let answers = round.answers.iter().map(|answer| {
        json!({
            "probe": answer.probe,
            "ok": answer.wrong.is_none(),
            "latency_ms": (answer.latency_ms * 1e3).round() / 1e3,
            "text": answer.text,
            "error": answer.wrong,
        })
    });
    json!({
        "time": seconds_since_1970(),
        "event": "round",
        "ok": round.is_well(),
        "probes": answers.collect::<Vec<_>>(),
        "window": window.figures(),
        "breaches": window.num_breaches(),
    })
}

/// Runs the command that a breach calls for, and returns the line that says how it went.
fn pull(command: &str, line: &Value) -> Result<Value, Failure> {
    let failed = |error| Failure::Other(format!("cannot run {command:?}: {error}"));
    let shell = Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut shell = shell.map_err(failed)?;
    if let Some(mut stdin) = shell.stdin.take() {
        // A command that reads nothing is none the worse for it.
        let _ = writeln!(stdin, "{line}");
    }
    let status = shell.wait().map_err(failed)?;
    Ok(
        json!({ "time": seconds_since_1970(), "event": "run", "ok": status.success(), "exit_code": status.code() }),
    )
}

fn say(line: &Value) -> Result<(), Failure> {
    let mut stdout = stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

fn seconds_since_1970() -> f64 {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    millis as f64 / 1e3
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}, expected a number of seconds");
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|every| !every.is_zero()).ok_or_else(wrong)
}

fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?}, expected a number from 0 to 1");
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
}
