//! One row for each stage: how many of its tensors are how far off.

use super::text::{Text, count};
use super::view::{Entry, NUM_LEVELS, View};
use std::fmt::{self, Write};

/// Draws the table of one view.
pub(super) fn draw(page: &mut String, view: &View<'_>) -> fmt::Result {
    writeln!(
        page,
        "<div class=\"box\" tabindex=\"0\" role=\"region\" aria-label=\"Stages\"><table class=\"stages\"><thead><tr>\
         <th scope=\"col\">stage</th><th scope=\"col\" class=\"num\">diverge</th><th scope=\"col\">how far off its tensors are</th>\
         <th scope=\"col\" class=\"num\">worst</th><th scope=\"col\">which</th></tr></thead><tbody>"
    )?;
    for stage in view.entries.chunk_by(|a, b| (a.step, a.stage) == (b.step, b.stage)) {
        row(page, stage)?;
    }
    writeln!(page, "</tbody></table></div>")
}

fn row(page: &mut String, stage: &[Entry<'_>]) -> fmt::Result {
    let Some(worst) = stage.iter().max_by(|a, b| a.cmp_error(b)) else { return Ok(()) };
    let num_diverging = stage.iter().filter(|entry| entry.diverges).count();
    let mut counts = [0usize; NUM_LEVELS];
    stage.iter().for_each(|entry| counts[entry.level()] += 1);
    write!(
        page,
        "<tr class=\"{}\"><th scope=\"row\">{}</th><td class=\"num\">{} of {}</td><td><span class=\"share\">",
        if num_diverging == 0 { "ok" } else { "bad" },
        Text(worst.stage_name()),
        count(num_diverging),
        count(stage.len())
    )?;
    for (level, num) in counts.into_iter().enumerate().filter(|(_, num)| *num > 0) {
        write!(page, "<i class=\"e{level}\" style=\"flex:{num}\"></i>")?;
    }
    let place = match (worst.layer, worst.operation) {
        (Some(layer), "") => format!("layer {layer}"),
        (Some(layer), operation) => format!("layer {layer} {operation}"),
        (None, operation) => operation.to_string(),
    };
    writeln!(
        page,
        "</span></td><td class=\"num\"><i class=\"chip e{}\">{}</i></td><td class=\"which\">{}</td></tr>",
        worst.level(),
        worst.figure(),
        Text(place)
    )
}
