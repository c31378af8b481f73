//! `pyrex compare`: two dumps, tensor by tensor.

use crate::fail::Failure;
use clap::{Args, ValueEnum};
use pyrex_core::{Compared, Comparison, DumpFile, Outcome, Threshold, Verdict, compare, html};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `compare`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The dump in question
    #[arg(value_name = "A")]
    ours: PathBuf,
    /// The dump it should be like
    #[arg(value_name = "B")]
    theirs: PathBuf,
    /// A third dump, as far from B as is fair: B's model in bf16, say. Errors are judged as multiples of its distance
    #[arg(long, value_name = "DUMP")]
    noise: Option<PathBuf>,
    /// The worst verdict that passes
    #[arg(long, value_enum, default_value_t = Worst::Match)]
    threshold: Worst,
    /// The largest multiple of the noise that passes, where the noise is known
    #[arg(long, value_name = "X", default_value_t = Threshold::default().ratio)]
    max_ratio: f64,
    /// Only what does not pass; a page shows all, and has a switch for it
    #[arg(long)]
    failures: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Worst {
    Match,
    Drift,
    Suspicious,
    Catastrophic,
}

/// How a finding is shown.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    #[default]
    Text,
    /// One object.
    Json,
    /// One page that needs nothing else.
    Html,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (ours, theirs) = (DumpFile::open(&arguments.ours)?, DumpFile::open(&arguments.theirs)?);
    let noise = arguments.noise.as_deref().map(DumpFile::open).transpose()?;
    let found = compare(&ours, &theirs, noise.as_ref())?;
    let verdict = match arguments.threshold {
        Worst::Match => Verdict::Match,
        Worst::Drift => Verdict::Drift,
        Worst::Suspicious => Verdict::Suspicious,
        Worst::Catastrophic => Verdict::Catastrophic,
    };
    let threshold = Threshold { verdict, ratio: arguments.max_ratio };
    let shown = |compared: &&Compared| !arguments.failures || !compared.passes(threshold);
    let page = match arguments.format {
        Format::Text => {
            let mut page = String::new();
            table(&mut page, found.tensors.iter().filter(shown)).expect("writing to a string cannot fail");
            page + &summary(&found, threshold)
        }
        Format::Json => {
            let tensors = found.tensors.iter().filter(shown).map(|compared| as_json(compared, threshold));
            format!("{}\n", json!({"tensors": tensors.collect::<Vec<_>>()}))
        }
        Format::Html => html::of_comparison(&found, threshold, &ours, &theirs)?,
    };
    stdout().write_all(page.as_bytes())?;
    match found.failures(threshold).next() {
        None => Ok(()),
        Some(_) => Err(Failure::Findings),
    }
}

fn table<'a>(page: &mut String, tensors: impl Iterator<Item = &'a Compared>) -> fmt::Result {
    writeln!(
        page,
        "verdict         cosine    rel l2   max abs   max rel    first  nan/inf   x noise  tensor"
    )?;
    for compared in tensors {
        match &compared.outcome {
            Outcome::Figures { figures, .. } => {
                let first = figures.first_difference.map_or("-".to_string(), |first| first.to_string());
                let non_finite = [figures.ours, figures.theirs].map(|side| side.nan + side.inf);
                write!(page, "{:12}  {:8.6}  {:8.1e}", compared.verdict(), figures.cosine, figures.rel_l2)?;
                write!(page, "  {:8.1e}  {:8.1e}  {first:>7}", figures.max_abs, figures.max_rel)?;
                write!(page, "  {:>7}", format!("{}/{}", non_finite[0], non_finite[1]))?;
                match compared.ratio() {
                    Some(ratio) => writeln!(page, "  {ratio:8.1}  {}", compared.name)?,
                    None => writeln!(page, "         -  {}", compared.name)?,
                }
            }
            Outcome::Shapes { ours, theirs } => {
                writeln!(page, "shape         {ours:?}, expected {theirs:?}  {}", compared.name)?;
            }
            Outcome::OnlyOurs => writeln!(page, "only in A     {}", compared.name)?,
            Outcome::OnlyTheirs => writeln!(page, "only in B     {}", compared.name)?,
        }
    }
    Ok(())
}

fn summary(found: &Comparison, threshold: Threshold) -> String {
    let num_failures = found.failures(threshold).count();
    format!("{} tensors, {num_failures} do not pass\n", found.tensors.len())
}

/// A tensor of two dumps as an object.
pub(crate) fn as_json(compared: &Compared, threshold: Threshold) -> Value {
    let passes = compared.passes(threshold);
    match &compared.outcome {
        Outcome::Figures { figures, shape, noise } => json!({
            "name": compared.name,
            "shape": shape,
            "verdict": compared.verdict().name(),
            "passes": passes,
            "cosine": figures.cosine,
            "rel_l2": figures.rel_l2,
            "max_abs": figures.max_abs,
            "max_rel": figures.max_rel,
            "first_difference": figures.first_difference,
            "worst": figures.worst,
            "nan": [figures.ours.nan, figures.theirs.nan],
            "inf": [figures.ours.inf, figures.theirs.inf],
            "noise": noise,
            "ratio": compared.ratio().filter(|ratio| ratio.is_finite()),
        }),
        Outcome::Shapes { ours, theirs } => {
            json!({"name": compared.name, "passes": passes, "finding": "shape", "shape": ours, "expected": theirs})
        }
        Outcome::OnlyOurs => json!({"name": compared.name, "passes": passes, "finding": "only in A"}),
        Outcome::OnlyTheirs => json!({"name": compared.name, "passes": passes, "finding": "only in B"}),
    }
}
