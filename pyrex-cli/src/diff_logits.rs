//! `pyrex diff-logits`: position by position, what two dumps would choose next.

use crate::fail::Failure;
use crate::options::{RunArguments, Weights, at_least_one, folder};
use clap::{Args, ValueEnum};
use pyrex_core::{Candidate, DumpFile, LogitsDiff, Position, TokenBytes, diff_logits};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `diff-logits`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The dump in question
    #[arg(value_name = "A")]
    ours: PathBuf,
    /// The dump it should be like
    #[arg(value_name = "B")]
    theirs: PathBuf,
    /// How many tokens of each side to show
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = at_least_one)]
    top: usize,
    /// Only the positions where they choose differently
    #[arg(long)]
    failures: bool,
    /// A checkpoint whose tokenizer says what the ids mean
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// Two lines for each position.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (ours, theirs) = (DumpFile::open(&arguments.ours)?, DumpFile::open(&arguments.theirs)?);
    let found = diff_logits(&ours, &theirs, arguments.top)?;
    let vocabulary = match &arguments.model {
        None => Vec::new(),
        Some(path) => {
            let run = RunArguments::default();
            run.load(&folder(path)?, Weights::Safetensors)?.processor.vocabulary()
        }
    };
    let shown = found.positions.iter().filter(|position| !arguments.failures || !position.agrees());
    let page = match arguments.format {
        Format::Text => {
            shown.map(|position| text(position, &vocabulary)).collect::<String>() + &format!("{found}\n")
        }
        Format::Json => format!("{}\n", as_json(&found, shown)),
    };
    stdout().write_all(page.as_bytes())?;
    match found.positions.iter().all(Position::agrees) {
        true => Ok(()),
        false => Err(Failure::Findings),
    }
}

/// One line for each side of a position.
fn text(position: &Position, vocabulary: &[TokenBytes]) -> String {
    let place = match position.step {
        0 => format!("{}", position.row),
        step => format!("step {step}"),
    };
    let verdict = match position.agrees() {
        true => "agree".to_owned(),
        false => format!("differ by {:.2}", position.gap),
    };
    let mut text = String::new();
    for (head, side, candidates) in [(place.as_str(), "A", &position.ours), ("", "B", &position.theirs)] {
        let tokens = candidates.iter().map(|candidate| token(candidate, vocabulary)).collect::<Vec<_>>();
        let gap =
            candidates.first().zip(candidates.get(1)).map_or(0.0, |(best, next)| best.logit - next.logit);
        let verdict = if side == "A" { verdict.as_str() } else { "" };
        writeln!(text, "{head:>8}  {side}  {verdict:16}  gap {gap:6.3}  {}", tokens.join("  "))
            .expect("writing to a string cannot fail");
    }
    text
}

fn token(candidate: &Candidate, vocabulary: &[TokenBytes]) -> String {
    let Candidate { id, logit } = candidate;
    match vocabulary.get(*id as usize) {
        Some(Some(bytes)) => format!("{id} {:?} {logit:.3}", String::from_utf8_lossy(bytes)),
        _ => format!("{id} {logit:.3}"),
    }
}

fn as_json<'a>(found: &LogitsDiff, shown: impl Iterator<Item = &'a Position>) -> Value {
    let side = |candidates: &[Candidate]| -> Vec<Value> {
        candidates.iter().map(|candidate| json!({"id": candidate.id, "logit": candidate.logit})).collect()
    };
    let positions = shown.map(|position| {
        json!({
            "step": position.step,
            "row": position.row,
            "agrees": position.agrees(),
            "gap": position.gap,
            "max_abs": position.max_abs,
            "ours": side(&position.ours),
            "theirs": side(&position.theirs),
        })
    });
    json!({
        "summary": found.to_string(),
        "num_positions": found.positions.len(),
        "num_agreeing": found.positions.iter().filter(|position| position.agrees()).count(),
        "positions": positions.collect::<Vec<_>>(),
    })
}
