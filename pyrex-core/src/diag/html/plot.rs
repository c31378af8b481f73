//! The error by layer: one line for each stage that has layers, on a logarithmic scale, with what its noise allows.

use super::axis::{LogAxis, power_of_ten};
use super::text::Text;
use super::view::{Entry, View};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 42.0;
/// Lines that can be told apart.
const MAX_LINES: usize = 6;

/// A stage and one tensor for each of its layers.
struct Line<'a> {
    name: String,
    points: Vec<(usize, &'a Entry<'a>)>,
}

/// Draws the plot of one view.
pub(super) fn draw(page: &mut String, view: &View<'_>) -> fmt::Result {
    let mut lines = lines(view);
    if lines.is_empty() {
        return writeln!(page, "<p class=\"none\">Nothing was compared that stands in a layer.</p>");
    }
    let num_more = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    let entries = || lines.iter().flat_map(|line| line.points.iter().map(|(_, entry)| *entry));
    let values = entries().map(Entry::rel_l2).chain(entries().filter_map(Entry::bound));
    let y = LogAxis::over(values, BOTTOM, TOP);
    let last = lines.iter().flat_map(|line| line.points.iter().map(|(layer, _)| *layer)).max().unwrap_or(0);
    let x = |layer: usize| match last {
        0 => (LEFT + RIGHT) / 2.0,
        last => LEFT + 10.0 + (RIGHT - LEFT - 20.0) * layer as f64 / last as f64,
    };
    let what = if view.isolated { "the worst tensor of a layer" } else { "the output of a layer" };
    key(page, &lines)?;
    writeln!(
        page,
        "<div class=\"box\" tabindex=\"0\" role=\"region\" aria-label=\"Error by layer\"><svg class=\"lines\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Relative L2 of {what}, on a logarithmic scale\">"
    )?;
    axes(page, &y, &x, last)?;
    for (idx, line) in lines.iter().enumerate() {
        draw_line(page, idx, line, &|layer, error| (x(layer), y.at(error)))?;
    }
    writeln!(page, "</svg></div><p class=\"say\" aria-live=\"polite\">Each point is {what}.")?;
    if num_more > 0 {
        write!(page, " {num_more} more lines, of later steps, are not drawn.")?;
    }
    writeln!(page, "</p></figure>")
}

/// What the lines are.
fn key(page: &mut String, lines: &[Line<'_>]) -> fmt::Result {
    write!(page, "<figure class=\"plot\"><figcaption class=\"key\">")?;
    for (idx, line) in lines.iter().enumerate() {
        write!(page, "<span class=\"s{idx}\"><i></i>{}</span> ", Text(&line.name))?;
    }
    if lines.iter().flat_map(|line| &line.points).any(|(_, entry)| entry.bound().is_some()) {
        write!(page, "<span class=\"dashed\"><i></i>what the noise allows</span> ")?;
    }
    writeln!(page, "<span class=\"outlier\"><i></i>diverges</span></figcaption>")
}

/// The stages in the order in which they were computed. What stands for a layer is its output; its worst tensor if there
/// is none, or if each tensor shows its own error alone.
fn lines<'a>(view: &'a View<'a>) -> Vec<Line<'a>> {
    let in_layers = || view.entries.iter().filter_map(|entry| Some((entry.layer?, entry)));
    let is_output = |entry: &Entry<'_>| !view.isolated && entry.operation.is_empty();
    let with_outputs: HashSet<_> = in_layers()
        .filter(|(_, entry)| is_output(entry))
        .map(|(_, entry)| (entry.step, entry.stage))
        .collect();
    let mut order = Vec::new();
    let mut layers: HashMap<(usize, &str), BTreeMap<usize, &Entry<'a>>> = HashMap::new();
    for (layer, entry) in in_layers() {
        let key = (entry.step, entry.stage);
        if with_outputs.contains(&key) && !is_output(entry) {
            continue;
        }
        let layers = layers.entry(key).or_insert_with(|| {
            order.push((key, entry.stage_name()));
            BTreeMap::new()
        });
        let worst = layers.entry(layer).or_insert(entry);
        if entry.cmp_error(worst).is_gt() {
            *worst = entry;
        }
    }
    let line = |(key, name)| Line { name, points: layers.remove(&key).into_iter().flatten().collect() };
    order.into_iter().map(line).collect()
}

fn axes(page: &mut String, y: &LogAxis, x: &dyn Fn(usize) -> f64, last: usize) -> fmt::Result {
    let mut grid = String::new();
    for (at, exponent) in y.ticks() {
        write!(grid, "M{LEFT} {at:.1}H{RIGHT}")?;
        let (x, y) = (LEFT - 8.0, at + 4.0);
        write!(page, "<text x=\"{x}\" y=\"{y:.1}\" class=\"end\">{}</text>", power_of_ten(exponent))?;
    }
    let step = [1, 2, 5, 10, 20, 50, 100].into_iter().find(|step| last / step <= 14).unwrap_or(last);
    for layer in (0..=last).step_by(step) {
        write!(grid, "M{:.1} {BOTTOM}v5", x(layer))?;
        let anchor = if layer > 9999 { "end" } else { "mid" };
        write!(
            page,
            "<text x=\"{:.1}\" y=\"{}\" class=\"{anchor}\">{layer}</text>",
            x(layer),
            BOTTOM + 18.0
        )?;
    }
    let (middle, foot) = ((LEFT + RIGHT) / 2.0, HEIGHT - 6.0);
    write!(page, "<path class=\"grid\" d=\"{grid}\"/>")?;
    write!(page, "<text x=\"{middle}\" y=\"{foot}\" class=\"mid name\">layer</text>")?;
    let middle = (TOP + BOTTOM) / 2.0;
    writeln!(
        page,
        "<text transform=\"translate(12 {middle}) rotate(-90)\" class=\"mid name\">relative L2</text>"
    )
}

fn draw_line(
    page: &mut String,
    idx: usize,
    line: &Line<'_>,
    at: &dyn Fn(usize, f64) -> (f64, f64),
) -> fmt::Result {
    let (mut bound, mut path) = (String::new(), String::new());
    let mut joined = false;
    for (layer, entry) in &line.points {
        let (x, y) = at(*layer, entry.rel_l2());
        write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' })?;
        if let Some((x, y)) = entry.bound().map(|bound| at(*layer, bound)) {
            // A layer alone has a bound as wide as its point.
            let (letter, from) = if joined { ('L', x) } else { ('M', x - 6.0) };
            write!(bound, "{letter}{from:.1} {y:.1}L{:.1} {y:.1}", x + if joined { 0.0 } else { 0.1 })?;
            if line.points.len() == 1 {
                write!(bound, "L{:.1} {y:.1}", x + 6.0)?;
            }
        }
        joined = entry.bound().is_some();
    }
    write!(
        page,
        "<g class=\"s{idx}\"><path class=\"bound\" d=\"{bound}\"/><path class=\"line\" d=\"{path}\"/>"
    )?;
    for (layer, entry) in &line.points {
        let (x, y) = at(*layer, entry.rel_l2());
        let title = Text(entry.title());
        match entry.diverges {
            false => write!(
                page,
                "<circle class=\"p\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\"><title>{title}</title></circle>"
            )?,
            true => write!(
                page,
                "<path class=\"p bad\" d=\"M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5-5.5z\"><title>{title}</title></path>",
                y - 5.5
            )?,
        }
    }
    writeln!(page, "</g>")
}
