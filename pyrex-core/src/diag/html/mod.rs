//! What [`compare`](super::compare()) and [`bisect`](super::bisect()) found as one page of HTML that needs nothing else:
//! no network, no other file, and no script to be read.
//!
//! [`head`] says it in words, [`stages`] and [`plot`] show where it begins, [`tree`] has every figure, [`histogram`] and
//! [`maps`] look into the worst tensors. [`view`] is what they look at. Names come from files: all text goes through
//! [`text::Text`].

mod axis;
mod head;
mod heatmap;
mod histogram;
mod maps;
mod plot;
mod stages;
mod text;
mod tree;
mod view;

use super::bisect::Bisection;
use super::compare::{Comparison, Threshold};
use super::file::DumpFile;
use crate::error::Result;
use maps::Places;
use std::fmt::{self, Write};
use text::Text;
use view::{Entry, View};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A page that shows what a comparison of `ours` with `theirs` found.
///
/// # Errors
/// `Unsupported` if a tensor is of a type that no dump has.
pub fn of_comparison(
    found: &Comparison,
    threshold: Threshold,
    ours: &DumpFile,
    theirs: &DumpFile,
) -> Result<String> {
    let view = View::of_comparison(found, threshold);
    let mut top = String::new();
    head::of_comparison(&mut top, &view, &ours.manifest, &theirs.manifest).expect(NEVER_FAILS);
    Ok(page("Two dumps compared", &top, &[view], &Places::of(theirs)?).expect(NEVER_FAILS))
}

/// A page that shows what a bisection against `reference` found.
///
/// # Errors
/// As [`of_comparison`].
pub fn of_bisection(found: &Bisection, reference: &DumpFile) -> Result<String> {
    let views = [&found.cumulative, &found.isolated].map(|trace| View::of_trace(trace, found.threshold));
    let mut top = String::new();
    head::of_bisection(&mut top, found, &reference.manifest).expect(NEVER_FAILS);
    Ok(page(&head::sentence(found), &top, &views, &Places::of(reference)?).expect(NEVER_FAILS))
}

const NEVER_FAILS: &str = "writing to a string cannot fail";

/// A section: its id, its title, a word on how to read it, and what draws it.
struct Section<'a> {
    id: &'a str,
    title: &'a str,
    note: &'a str,
    draw: &'a dyn Fn(&mut String, &View<'_>) -> fmt::Result,
}

fn page(
    title: &str,
    top: &str,
    views: &[View<'_>],
    places: &Places,
) -> std::result::Result<String, fmt::Error> {
    let mut sections = vec![
        Section { id: "stages", title: "Stages", note: "", draw: &stages::draw },
        Section { id: "layers", title: "Error by layer", note: "", draw: &plot::draw },
        Section { id: "tensors", title: "Every tensor", note: TREE_NOTE, draw: &tree::draw },
        Section {
            id: "errors",
            title: "How large the errors are",
            note: ERRORS_NOTE,
            draw: &histogram::draw,
        },
    ];
    let draw_images = |page: &mut String, view: &View<'_>| maps::draw_images(page, view, places);
    let draw_tokens = |page: &mut String, view: &View<'_>| maps::draw_tokens(page, view, places);
    if places.has_images() {
        sections.push(Section {
            id: "images",
            title: "Over the images",
            note: MAPS_NOTE,
            draw: &draw_images,
        });
    }
    sections.push(Section { id: "tokens", title: "Along the prompt", note: MAPS_NOTE, draw: &draw_tokens });
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{top}",
        Text(title)
    );
    bar(&mut page, views, &sections)?;
    for Section { id, title, note, draw } in &sections {
        writeln!(page, "<section id=\"{id}\"><h2>{title}</h2>{note}")?;
        for view in views {
            writeln!(page, "<div class=\"view {}\">", view.id)?;
            draw(&mut page, view)?;
            writeln!(page, "</div>")?;
        }
        writeln!(page, "</section>")?;
    }
    writeln!(page, "<footer>{LEGEND}</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")?;
    Ok(page)
}

/// The way to the sections, and between the modes if there are several.
fn bar(page: &mut String, views: &[View<'_>], sections: &[Section<'_>]) -> fmt::Result {
    writeln!(page, "<div class=\"bar\">")?;
    if views.len() > 1 {
        writeln!(page, "<fieldset class=\"modes\"><legend>Mode</legend>")?;
        // The culprit is in sight first; where both modes have one, the freely running one shows what follows from it.
        let first = views.iter().position(|view| view.finger.is_some()).unwrap_or(0);
        for (idx, View { id, mode, .. }) in views.iter().enumerate() {
            let checked = if idx == first { " checked" } else { "" };
            writeln!(
                page,
                "<input type=\"radio\" name=\"mode\" id=\"mode-{id}\" value=\"{mode}\"{checked}><label for=\"mode-{id}\">{mode}</label>"
            )?;
        }
        writeln!(page, "</fieldset>")?;
    }
    writeln!(page, "<nav aria-label=\"Sections\">")?;
    sections.iter().try_for_each(|section| writeln!(page, "<a href=\"#{0}\">{0}</a>", section.id))?;
    writeln!(page, "</nav></div>")
}

/// The name of a tensor, and the one figure.
fn caption(page: &mut String, entry: &Entry<'_>) -> fmt::Result {
    // A long name breaks at its dots.
    let name = Text(&entry.compared.name).to_string().replace('.', ".<wbr>");
    let (level, figure) = (entry.level(), entry.figure());
    write!(page, "<b class=\"tensor\">{name}</b> <i class=\"chip e{level}\">{figure}</i>")
}

const TREE_NOTE: &str = "<p class=\"tools\"><label><input type=\"checkbox\" id=\"only-bad\"> only what diverges</label>\
    <button type=\"button\" data-open=\"1\">open all</button><button type=\"button\" data-open=\"\">close all</button></p>";

const ERRORS_NOTE: &str = "<p class=\"dim\">The worst tensors: their elements by the size of |ours − theirs|, a bar for each power of \
    two. Both scales are logarithmic.</p>";

const MAPS_NOTE: &str = "<p class=\"dim\">The worst tensors: the relative L2 of each row. Colours are logarithmic, each map has its \
    own scale.</p>";

const LEGEND: &str = "<h2>How to read it</h2><p class=\"legend\"><i class=\"chip e0\">below ½ of the noise</i> \
    <i class=\"chip e1\">up to it</i> <i class=\"chip e2\">passes</i> <i class=\"chip e3\">diverges</i> <i class=\"chip e4\">by 10 times \
    what passes</i> <i class=\"chip e5\">by 10³</i> <i class=\"chip e6\">by 10⁵, or not finite</i></p>\
    <p>The noise is how far the reference is from itself when it sums in another order, and what passes is a multiple of it. \
    Where nobody knows the noise, verdicts decide: match is a cosine above 0.9999, drift above 0.99, suspicious above 0.9, \
    catastrophic below; then figures are relative L2, |ours − theirs| / |theirs|. A module is as far off as the worst tensor \
    inside of it.</p>";
