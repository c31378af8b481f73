//! How many elements of a tensor are off by how much: a bar for each power of two, an axis in powers of ten.

use super::axis::power_of_ten;
use super::text::{Text, count, counted, short};
use super::view::{Entry, View};
use crate::diag::compare::Outcome;
use crate::diag::figures::Figures;
use std::fmt::{self, Write};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = HEIGHT - 32.0;
/// Tensors that are shown.
const MAX_TENSORS: usize = 6;
/// How high a bar of one element is, in powers of ten.
const ONE: f64 = 0.35;

/// Draws the histograms of the worst tensors of one view.
pub(super) fn draw(page: &mut String, view: &View<'_>) -> fmt::Result {
    let differs = |entry: &Entry<'_>| entry.compared.figures().is_some_and(|figures| figures.max_abs > 0.0);
    let worst = view.worst(MAX_TENSORS, differs);
    if worst.is_empty() {
        return writeln!(page, "<p class=\"none\">No element of any tensor differs.</p>");
    }
    writeln!(page, "<div class=\"cards\">")?;
    for entry in worst {
        if let Some(figures) = entry.compared.figures() {
            write!(page, "<figure><figcaption>")?;
            super::caption(page, entry)?;
            let same = figures.histogram.first().copied().unwrap_or(0) as usize;
            write!(
                page,
                "<p class=\"dim\">at most {}; {} of {} the same</p></figcaption>",
                short(figures.max_abs),
                count(same),
                counted(figures.num_elements, "element")
            )?;
            bars(page, entry, figures)?;
            writeln!(page, "</figure>")?;
        }
    }
    writeln!(page, "</div>")
}

fn bars(page: &mut String, entry: &Entry<'_>, figures: &Figures) -> fmt::Result {
    // The first bin holds what is the same.
    let filled = || figures.histogram.iter().enumerate().skip(1).filter(|(_, count)| **count > 0);
    let (Some((low, _)), Some((high, _))) = (filled().next(), filled().next_back()) else { return Ok(()) };
    let most = filled().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    let bin_width = ((RIGHT - LEFT) / (high + 1 - low) as f64).min(30.0);
    let x = |bin: f64| LEFT + (bin - low as f64) * bin_width;
    let y = |count: f64| BOTTOM - (BOTTOM - TOP) * (count.log10() + ONE) / (most.log10() + ONE);
    writeln!(
        page,
        "<svg class=\"bars\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"How large the errors of {} are\">",
        Text(&entry.compared.name)
    )?;
    axes(page, &x, &y, (low, high), most)?;
    for (bin, &num) in filled() {
        let (left, top) = (x(bin as f64), y(num as f64));
        let from = 2f64.powi(bin as i32 - 127);
        write!(
            page,
            "<rect class=\"p e{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: off by {} to {}</title></rect>",
            entry.level(),
            (bin_width - 1.0).max(0.6),
            BOTTOM - top,
            counted(num as usize, "element"),
            short(from),
            short(2.0 * from)
        )?;
    }
    writeln!(page, "</svg><p class=\"say\" aria-live=\"polite\">Worst: element {}</p>", place(entry, figures))
}

/// Where the worst element is: its index along each axis.
fn place(entry: &Entry<'_>, figures: &Figures) -> String {
    let mut rest = figures.worst.unwrap_or(0);
    let Outcome::Figures { shape, .. } = &entry.compared.outcome else { return rest.to_string() };
    let mut indices = Vec::with_capacity(shape.len());
    for len in shape.iter().rev() {
        indices.push((rest % len.max(&1)).to_string());
        rest /= len.max(&1);
    }
    indices.reverse();
    format!("[{}]", indices.join(", "))
}

/// Powers of ten along both; `bins` are the first and the last.
fn axes(
    page: &mut String,
    x: &dyn Fn(f64) -> f64,
    y: &dyn Fn(f64) -> f64,
    bins: (usize, usize),
    most: f64,
) -> fmt::Result {
    let bin_of = |exponent: i32| f64::from(exponent) * std::f64::consts::LOG2_10 + 127.0;
    let mut grid = format!("M{LEFT} {BOTTOM}H{RIGHT}");
    let end = BOTTOM + 16.0;
    let inside = |exponent: &i32| (bins.0 as f64..=bins.1 as f64 + 1.0).contains(&bin_of(*exponent));
    let exponents: Vec<i32> = (-39..39).filter(inside).collect();
    for exponent in exponents.iter().step_by(exponents.len().div_ceil(7).max(1)) {
        let at = x(bin_of(*exponent));
        write!(grid, "M{at:.1} {BOTTOM}v4")?;
        write!(page, "<text x=\"{at:.1}\" y=\"{end}\" class=\"mid\">{}</text>", power_of_ten(*exponent))?;
    }
    let decades = most.log10() as i32;
    for exponent in (0..=decades).step_by(1 + decades as usize / 4) {
        let at = y(10f64.powi(exponent));
        write!(grid, "M{LEFT} {at:.1}H{RIGHT}")?;
        let (x, y) = (LEFT - 6.0, at + 3.5);
        write!(page, "<text x=\"{x}\" y=\"{y:.1}\" class=\"end\">{}</text>", power_of_ten(exponent))?;
    }
    write!(page, "<path class=\"grid\" d=\"{grid}\"/>")?;
    let (middle, foot) = ((LEFT + RIGHT) / 2.0, HEIGHT - 3.0);
    writeln!(page, "<text x=\"{middle}\" y=\"{foot}\" class=\"mid name\">|error|</text>")
}
