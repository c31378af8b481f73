//! `pyrex inspect`: what a checkpoint is, without loading its weights.

use crate::bundled;
use crate::fail::Failure;
use crate::options::folder;
use clap::Args;
use pyrex_core::{ModelDescription, describe};
use std::fmt::{self, Write as _};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Folder of a checkpoint, or a config.json [default: the small bundled model]
    #[arg(value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = arguments.model.as_deref().map_or_else(|| Ok(bundled::source()), folder)?;
    let mut page = String::new();
    print(&mut page, &describe(&source)?).expect("writing to a string cannot fail");
    Ok(stdout().write_all(page.as_bytes())?)
}

fn print(page: &mut String, model: &ModelDescription) -> fmt::Result {
    writeln!(page, "{} ({})", model.architecture, model.family)?;
    writeln!(page, "\nconfig")?;
    let width = model.config.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &model.config {
        writeln!(page, "  {name:width$}  {value}")?;
    }
    writeln!(page, "\nlayers")?;
    for (layer_idx, layer) in model.layers.iter().enumerate() {
        writeln!(page, "  {layer_idx:>3}  {:14}  {:18}  {}", layer.attention, layer.kv, layer.notes)?;
    }
    print_components(page, model)?;
    let elements = model.kv_elements_per_token;
    writeln!(page, "\nkv cache  {} bytes per token in bf16, {} in f32", elements * 2, elements * 4)?;
    match model.unsupported.is_empty() {
        true => writeln!(page, "\nunsupported  nothing"),
        false => {
            writeln!(page, "\nunsupported")?;
            model.unsupported.iter().try_for_each(|what| writeln!(page, "  {what}"))
        }
    }
}

fn print_components(page: &mut String, model: &ModelDescription) -> fmt::Result {
    writeln!(page, "\n{:28}  {:>15}  {:>15}", "components", "parameters", "bytes")?;
    let rows = model.components.iter().map(|part| (part.name.as_str(), part.num_parameters, part.num_bytes));
    for (name, parameters, bytes) in rows.chain([("total", model.num_parameters(), model.num_bytes())]) {
        writeln!(page, "  {name:26}  {:>15}  {:>15}", grouped(parameters), grouped(bytes))?;
    }
    Ok(())
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1 000"), (2_670_048, "2 670 048")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
