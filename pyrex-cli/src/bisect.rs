//! `pyrex bisect`: where a model first goes wrong, against a dump of the reference.

use crate::compare::{Format, as_json};
use crate::fail::Failure;
use crate::options::{ModelArguments, PromptArguments, RunArguments, Weights};
use clap::Args;
use pyrex_core::{ActivationDtype, Bisection, DumpFile, Share, Trace, WeightFinding, bisect, html};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `bisect`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A dump of the reference: python reference/dump.py --noise …
    #[arg(long, value_name = "DUMP")]
    reference: PathBuf,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    run: RunArguments,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reference = DumpFile::open(&arguments.reference)?;
    let prompt = arguments.prompt.prompt_if_any()?;
    let source = arguments.model.source()?;
    let dtype = arguments.run.dtype.unwrap_or(match reference.manifest.dtype.as_str() {
        "bf16" => ActivationDtype::Bf16,
        _ => ActivationDtype::F32,
    });
    let run = RunArguments { dtype: Some(dtype), ..arguments.run };
    let loaded = run.load(&source, Weights::Safetensors)?;
    let found = bisect(&loaded, &source, &reference, prompt.as_ref())?;
    let page = match arguments.format {
        Format::Text => found.to_string(),
        Format::Json => format!("{}\n", all_as_json(&found)),
        Format::Html => html::of_bisection(&found, &reference)?,
    };
    stdout().write_all(page.as_bytes())?;
    match found.is_clean() {
        true => Ok(()),
        false => Err(Failure::Findings),
    }
}

fn all_as_json(found: &Bisection) -> Value {
    let weight = |finding: &WeightFinding| {
        let what = match finding {
            WeightFinding::Differs(_) => "differs",
            WeightFinding::Missing(_) => "missing",
            WeightFinding::Extra(_) => "extra",
        };
        json!({"name": finding.name(), "finding": what})
    };
    let threshold = found.threshold;
    json!({
        "what": found.what,
        "clean": found.is_clean(),
        "noise_known": found.noise_known,
        "threshold": {"verdict": threshold.verdict.name(), "ratio": threshold.ratio},
        "num_weights": found.num_weights,
        "weights": found.weights.iter().map(weight).collect::<Vec<_>>(),
        "prompt": found.prompt.iter().map(|compared| as_json(compared, threshold)).collect::<Vec<_>>(),
        "cumulative": trace_as_json(found, &found.cumulative),
        "isolated": trace_as_json(found, &found.isolated),
        "unwatched": found.unwatched.as_ref().map(|logits| as_json(logits, threshold)),
    })
}

fn trace_as_json(found: &Bisection, trace: &Trace) -> Value {
    let parts = trace.parts.iter().map(|part| {
        let mut object = as_json(&part.compared, found.threshold);
        object["stage"] = json!(part.stage);
        object["step"] = json!(part.step);
        object["layer"] = json!(part.layer);
        object["operation"] = json!(part.operation);
        object["diverges"] = json!(part.diverges);
        object["origin"] =
            json!({"function": part.origin.function, "file": part.origin.file, "line": part.origin.line});
        object
    });
    let finger = trace.finger.as_ref().map(|finger| {
        let name = |part: usize| &trace.parts[part].compared.name;
        let function = |share: &Share| {
            json!({"function": share.function, "num_wrong": share.num_wrong, "num_places": share.num_places})
        };
        json!({
            "tensor": name(finger.part),
            "part": finger.part,
            "place": trace.parts[finger.part].place(),
            "before": finger.before.map(name),
            "functions": finger.functions.iter().map(function).collect::<Vec<_>>(),
        })
    });
    json!({"finger": finger, "unseen": trace.unseen, "parts": parts.collect::<Vec<_>>()})
}
