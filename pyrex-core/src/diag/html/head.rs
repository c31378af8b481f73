//! What a page says first: the verdict, what was compared, and what there is to know before any figure is believed.

use super::text::{Text, count, counted};
use super::view::View;
use crate::diag::bisect::words::{self, error_of};
use crate::diag::bisect::{Bisection, Trace};
use crate::diag::compare::Outcome;
use crate::diag::manifest::Manifest;
use std::fmt::{self, Write};

/// Whether something is as it should be, to its colour.
fn class(good: bool) -> &'static str {
    if good { "good" } else { "wrong" }
}

/// The verdict, large.
fn verdict(page: &mut String, good: bool, command: &str, sentence: &str) -> fmt::Result {
    writeln!(page, "<header class=\"{}\"><p class=\"kicker\">pyrex {command}</p>", class(good))?;
    writeln!(page, "<h1>{}</h1>", Text(sentence))
}

/// A bisection in one sentence.
pub(super) fn sentence(found: &Bisection) -> String {
    let fingers = [&found.isolated, &found.cumulative].into_iter();
    let place = |trace: &Trace| Some(trace.parts[trace.finger.as_ref()?.part].place());
    if let Some(place) = fingers.clone().find_map(place) {
        return format!("It first goes wrong in {place}.");
    }
    let num = count(found.cumulative.parts.len());
    match found.is_clean() {
        true => format!("No divergence: all {num} tensors are the reference's, up to rounding."),
        false => format!("None of {num} tensors diverges, but not all is the reference's."),
    }
}

pub(super) fn of_bisection(page: &mut String, found: &Bisection, reference: &Manifest) -> fmt::Result {
    verdict(page, found.is_clean(), "bisect", &sentence(found))?;
    writeln!(page, "<p class=\"what\">{}</p></header>", Text(&found.what))?;
    writeln!(page, "<section class=\"fingers\" aria-label=\"Where it goes wrong\">")?;
    let ways = ["running freely", "each operation given the reference's inputs"];
    for (trace, way) in [&found.cumulative, &found.isolated].into_iter().zip(ways) {
        card(page, trace, way)?;
    }
    writeln!(page, "</section><ul class=\"findings\">")?;
    if !found.noise_known {
        writeln!(page, "<li class=\"wrong\">{}</li>", words::NOISE_UNKNOWN)?;
    }
    let mut lines = |lines: Vec<String>, good: &dyn Fn(usize) -> bool| {
        lines.iter().enumerate().try_for_each(|(idx, line)| {
            writeln!(page, "<li class=\"{}\">{}</li>", class(good(idx)), Text(line))
        })
    };
    lines(words::weights(found), &|_| found.weights.is_empty())?;
    lines(words::prompt(found), &|idx| found.prompt[idx].passes(found.threshold))?;
    let unwatched = found.unwatched.as_ref().is_none_or(|logits| logits.passes(found.threshold));
    lines(words::unwatched(found).into_iter().collect(), &|_| unwatched)?;
    writeln!(page, "</ul>")?;
    facts(page, &[("reference", reference)])
}

/// Where one mode points.
fn card(page: &mut String, trace: &Trace, way: &str) -> fmt::Result {
    let name = words::name(trace.mode);
    let good = trace.finger.is_none() && trace.unseen.is_empty();
    writeln!(page, "<article class=\"card {}\"><h2>{name} <small>{way}</small></h2>", class(good))?;
    match &trace.finger {
        None => writeln!(page, "<p class=\"place\">no divergence</p>")?,
        Some(finger) => {
            let place = trace.parts[finger.part].place();
            writeln!(page, "<p class=\"place\">{}</p><ul>", Text(place))?;
            for line in words::reasons(trace, finger) {
                writeln!(page, "<li>{}</li>", Text(line))?;
            }
            let (id, mode) = (&name[..1], name);
            writeln!(page, "</ul><p><a href=\"#{id}-finger\" data-mode=\"{mode}\">in the tree</a></p>")?;
        }
    }
    if let Some(line) = words::unseen(trace) {
        writeln!(page, "<p class=\"place\">{}</p>", Text(line))?;
    }
    writeln!(page, "</article>")
}

pub(super) fn of_comparison(
    page: &mut String,
    view: &View<'_>,
    ours: &Manifest,
    theirs: &Manifest,
) -> fmt::Result {
    let (num, num_failures) = (view.entries.len(), view.num_diverging());
    let sentence = match num_failures {
        0 => format!("All {} pass.", counted(num, "tensor")),
        1 => format!("1 of {} does not pass.", counted(num, "tensor")),
        _ => format!("{} of {} do not pass.", count(num_failures), counted(num, "tensor")),
    };
    verdict(page, num_failures == 0, "compare", &sentence)?;
    let who = |manifest: &Manifest| match manifest.producer.as_str() {
        "" => "an unknown producer".to_string(),
        producer if manifest.dtype.is_empty() => producer.to_string(),
        producer => format!("{producer} in {}", manifest.dtype),
    };
    let family = if theirs.family.is_empty() { "a model" } else { &theirs.family };
    writeln!(
        page,
        "<p class=\"what\">{}</p></header>",
        Text(format_args!("{family}: {} against {}", who(ours), who(theirs)))
    )?;
    writeln!(page, "<ul class=\"findings\">")?;
    if let Some(first) = view.entries.iter().find(|entry| entry.diverges) {
        let line =
            format!("the first that does not pass is {}: {}", first.compared.name, error_of(first.compared));
        writeln!(page, "<li class=\"wrong\">{}</li>", Text(line))?;
    }
    if let Some(worst) =
        view.worst(1, |entry| matches!(entry.compared.outcome, Outcome::Figures { .. })).pop()
    {
        let line = format!("the worst is {}: {}", worst.compared.name, error_of(worst.compared));
        writeln!(page, "<li class=\"{}\">{}</li>", class(!worst.diverges), Text(line))?;
    }
    for line in differences(ours, theirs) {
        writeln!(page, "<li class=\"wrong\">{}</li>", Text(line))?;
    }
    writeln!(page, "</ul>")?;
    facts(page, &[("ours", ours), ("theirs", theirs)])
}

/// Why two dumps may have to differ, as far as both say.
fn differences(ours: &Manifest, theirs: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    if differ(&ours.config_sha256, &theirs.config_sha256) {
        lines.push("config: the two were made with different config.json".to_string());
    }
    let changed = |(name, digest): &(&String, &String)| {
        theirs.weights.get(*name).is_some_and(|theirs| theirs != *digest)
    };
    match ours.weights.iter().filter(changed).count() {
        0 => {}
        num => lines.push(format!("weights: {} are not the same in both", counted(num, "tensor"))),
    }
    if !ours.prompt_ids.is_empty() && !theirs.prompt_ids.is_empty() && ours.prompt_ids != theirs.prompt_ids {
        lines.push("prompt: the two were made with different ids".to_string());
    }
    if differ(&ours.dtype, &theirs.dtype) {
        lines.push(format!("dtype: {} against {}", ours.dtype, theirs.dtype));
    }
    lines
}

/// What a manifest says of one thing; nothing if it does not.
type Fact = fn(&Manifest) -> String;

const FACTS: [(&str, Fact); 11] = [
    ("producer", |manifest| manifest.producer.clone()),
    ("versions", |manifest| {
        let versions = manifest.versions.iter().map(|(name, version)| format!("{name} {version}"));
        versions.collect::<Vec<_>>().join(", ")
    }),
    ("model", |manifest| manifest.model.clone()),
    ("family", |manifest| manifest.family.clone()),
    ("config.json", |manifest| manifest.config_sha256.chars().take(16).collect()),
    ("dtype", |manifest| manifest.dtype.clone()),
    ("device", |manifest| manifest.device.clone()),
    ("attention", |manifest| manifest.attention.clone()),
    ("prompt", |manifest| {
        let (ids, images) = (manifest.prompt_ids.len(), manifest.images.len());
        format!("{}, {}", counted(ids, "token"), counted(images, "image"))
    }),
    ("decode steps", |manifest| manifest.steps.to_string()),
    ("noise", |manifest| manifest.noise.as_ref().map_or(String::new(), |noise| noise.other.clone())),
];

/// Where the numbers come from, a column for each dump.
fn facts(page: &mut String, manifests: &[(&str, &Manifest)]) -> fmt::Result {
    writeln!(page, "<details class=\"facts\"><summary>Where the numbers come from</summary>")?;
    writeln!(
        page,
        "<div class=\"box\" tabindex=\"0\" role=\"region\" aria-label=\"Where the numbers come from\"><table><tr><td></td>"
    )?;
    manifests.iter().try_for_each(|(name, _)| write!(page, "<th scope=\"col\">{name}</th>"))?;
    for (name, fact) in FACTS {
        write!(page, "</tr>\n<tr><th scope=\"row\">{name}</th>")?;
        for (_, manifest) in manifests {
            let text = fact(manifest);
            write!(page, "<td>{}</td>", Text(if text.is_empty() { "not said" } else { &text }))?;
        }
    }
    writeln!(page, "</tr></table></div></details>")
}
