//! A [`Profile`] as tables, or as JSON.

use super::Arguments;
use pyrex_core::{GroupBy, Profile, ProfilePhase, ProfileRow};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};

/// Rows of less than this share of a pass are shown as one.
const LEAST_SHARE: f64 = 0.001;

/// The tables, under `head`.
pub(super) fn text(found: &Profile, head: &str, by: GroupBy) -> String {
    let mut page = format!("{head}\n");
    print(&mut page, found, by).expect("writing to a string cannot fail");
    page
}

fn print(page: &mut String, found: &Profile, by: GroupBy) -> fmt::Result {
    match &found.ceilings {
        Some(ceilings) => {
            let (flops, bytes) = (ceilings.flops_per_s / 1e9, ceilings.bytes_per_s / 1e9);
            writeln!(page, "ceilings  {flops:.1} GFLOP/s in f32, {bytes:.1} GB/s of reading memory")?;
        }
        None => writeln!(page, "ceilings  unknown on this device")?,
    }
    for (name, _, phase) in phases(found) {
        let share = phase.overhead_ms / phase.wall_ms * 100.0;
        writeln!(page, "watching  {:.3} ms, {share:.2} % of the {name}, in no operation", phase.overhead_ms)?;
    }
    phases(found).try_for_each(|(name, tokens, phase)| {
        let (explained, medians) = (phase.explained * 100.0, phase.operations_ms() / phase.wall_ms * 100.0);
        writeln!(page, "\n{name}: {tokens}")?;
        write!(page, "{:.3} ms; operations explain {explained:.1} % of a pass, ", phase.wall_ms)?;
        writeln!(page, "their medians add up to {medians:.1} %")?;
        table(page, found, phase, by)
    })
}

/// Each phase, what to call it, and what ran through it.
fn phases(found: &Profile) -> impl Iterator<Item = (&'static str, String, &ProfilePhase)> {
    let tokens = match found.image_tokens {
        0 => format!("{} tokens", found.prompt_tokens),
        image_tokens => format!("{} tokens, {image_tokens} of them of images", found.prompt_tokens),
    };
    let steps = format!("a step at position {}, the middle of {}", middle(found), found.steps);
    let decode = found.decode.iter().map(move |phase| ("decode", steps.clone(), phase));
    [("prompt", tokens, &found.prompt)].into_iter().chain(decode)
}

/// The position of the middle step.
fn middle(found: &Profile) -> usize {
    found.prompt_tokens + found.steps / 2
}

fn table(page: &mut String, found: &Profile, phase: &ProfilePhase, by: GroupBy) -> fmt::Result {
    let what = match by {
        GroupBy::Operation => "operation",
        GroupBy::Layer => "layer",
        GroupBy::Stage => "stage",
    };
    writeln!(page, "        ms   share  calls   GFLOP/s    GB/s  of ceiling       {what}")?;
    let rows = phase.rows(by, found.ceilings.as_ref());
    let (shown, rest): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.time_ms >= LEAST_SHARE * phase.wall_ms);
    let names: Vec<String> = shown.iter().map(|row| name(row)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (row, name) in shown.iter().zip(&names) {
        figures(page, row, phase)?;
        match row.origin {
            Some(origin) => writeln!(page, "{name:width$}  {origin}")?,
            None => writeln!(page, "{name}")?,
        }
    }
    if !rest.is_empty() {
        let time_ms: f64 = rest.iter().map(|row| row.time_ms).sum();
        let calls: usize = rest.iter().map(|row| row.calls).sum();
        let (share, blank) = (time_ms / phase.wall_ms * 100.0, "");
        let others = format!("{} others of less than {} %", rest.len(), LEAST_SHARE * 100.0);
        writeln!(page, "{time_ms:10.3}  {share:5.1} %  {calls:5}  {blank:38}{others}")?;
    }
    figures(page, &phase.total(found.ceilings.as_ref()), phase)?;
    writeln!(page, "total")
}

fn figures(page: &mut String, row: &ProfileRow, phase: &ProfilePhase) -> fmt::Result {
    let share = row.time_ms / phase.wall_ms * 100.0;
    let rate = |amount: u64, per_s: f64| match amount {
        0 => "-".to_owned(),
        _ => format!("{:.1}", per_s / 1e9),
    };
    let (flops, bytes) = (rate(row.cost.flops, row.flops_per_s()), rate(row.cost.bytes, row.bytes_per_s()));
    write!(page, "{:10.3}  {share:5.1} %  {:5}  {flops:>8}  {bytes:>6}  ", row.time_ms, row.calls)?;
    match (row.share_of_ceiling(), row.bound) {
        (Some(share), Some(bound)) if row.cost.bytes > 0 => {
            write!(page, "{:3.0} % {:10}  ", share * 100.0, bound.name())
        }
        _ => write!(page, "{:>3} {:12}  ", "-", ""),
    }
}

/// The row's name: its stage, and what in it.
fn name(row: &ProfileRow) -> String {
    let stage = row.stage;
    match (row.layer, row.operation.as_deref()) {
        (Some(layer), _) => format!("{stage}, layer {layer}"),
        (None, Some("")) => format!("{stage}, layer output"),
        (None, Some(operation)) => format!("{stage}, {operation}"),
        (None, None) => stage.to_owned(),
    }
}

/// The whole profile as one object.
pub(super) fn json(found: &Profile, arguments: &Arguments) -> Value {
    let phase = |phase: &ProfilePhase| {
        let rows = phase.rows(arguments.by.group(), found.ceilings.as_ref());
        json!({
            "wall_ms": phase.wall_ms,
            "explained": phase.explained,
            "operations_ms": phase.operations_ms(),
            "overhead_ms": phase.overhead_ms,
            "rows": rows.iter().map(row).collect::<Vec<_>>(),
            "total": row(&phase.total(found.ceilings.as_ref())),
        })
    };
    json!({
        "model": arguments.model.name(),
        "device": arguments.run.device.to_string(),
        "dtype": arguments.run.dtype().to_string(),
        "num_threads": found.num_threads,
        "repetitions": found.repetitions,
        "prompt_tokens": found.prompt_tokens,
        "image_tokens": found.image_tokens,
        "steps": found.steps,
        "by": arguments.by.name(),
        "ceilings": found.ceilings.map(|ceilings| json!({
            "flops_per_s": ceilings.flops_per_s,
            "bytes_per_s": ceilings.bytes_per_s,
        })),
        "prompt": phase(&found.prompt),
        "decode": found.decode.as_ref().map(phase),
    })
}

fn row(row: &ProfileRow) -> Value {
    json!({
        "stage": row.stage,
        "layer": row.layer,
        "operation": row.operation,
        "function": row.origin.map(|origin| origin.function),
        "file": row.origin.map(|origin| origin.file),
        "line": row.origin.map(|origin| origin.line),
        "calls": row.calls,
        "time_ms": row.time_ms,
        "flops": row.cost.flops,
        "bytes": row.cost.bytes,
        "weight_bytes": row.cost.weight_bytes,
        "share_of_ceiling": row.share_of_ceiling(),
        "bound": row.bound.map(|bound| bound.name()),
    })
}
