//! The story of `docs/bisecting.md`, told by the tool itself: three faults in the bundled model, what it says with each, and
//! where `bisect` points. Rewrites the blocks of the page. `make story` runs it; it needs a dump of the reference.

use candle_core::DType;
use pyrex_core::fault::{Fault, Faults};
use pyrex_core::models::LoadedModel;
use pyrex_core::{
    Bisection, Chat, DumpFile, LoadFormat, LoadOptions, Message, ModelSource, Part, Prompt, bisect, html,
    load,
};
use pyrex_tests::{greedy, load_options, model_dir, repository};
use std::fs;
use std::path::PathBuf;

const DTYPE: DType = DType::F32;

/// Where `scripts/story.sh` leaves the dump, and this the pages.
fn cache() -> PathBuf {
    repository().join(".cache/story")
}

fn loaded(source: &ModelSource, faults: Faults) -> LoadedModel {
    let options = load_options(source.clone(), DTYPE, LoadFormat::Safetensors);
    load(&LoadOptions { faults, ..options }).unwrap()
}

/// The question of the story.
fn question() -> Prompt {
    let image = fs::read(model_dir("shapes").join("examples/red_circle.png")).unwrap();
    let parts = vec![Part::Image(image.into()), Part::Text("Describe this image.".to_string())];
    Prompt::Chat(Chat::new(vec![Message::parts("user", parts)]))
}

/// What the model answers.
fn answer(loaded: &LoadedModel) -> String {
    let encoded = loaded.processor.encode(&question()).unwrap();
    let ids = greedy(loaded, &encoded, 64, &loaded.model.spec().stop_ids);
    let mut detokenizer = loaded.processor.detokenizer();
    let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text + &detokenizer.finish()
}

/// Puts `text` into the block of `page` that follows the marker `<!-- story: name -->`.
fn rewrite(page: &str, name: &str, text: &str) -> String {
    let marker = format!("<!-- story: {name} -->\n```text\n");
    let start = page.find(&marker).unwrap_or_else(|| panic!("no marker {name}")) + marker.len();
    let end = start + page[start..].find("```").unwrap();
    format!("{}{}\n{}", &page[..start], text.trim_end(), &page[end..])
}

#[test]
fn the_story_is_what_the_tool_says() {
    let source = ModelSource::Path(model_dir("shapes"));
    let reference = DumpFile::open(&cache().join("red_circle.safetensors")).unwrap();
    let path = repository().join("docs/bisecting.md");
    let mut page = fs::read_to_string(&path).unwrap();
    for (name, fault) in [
        ("healthy", None),
        ("norm_offset", Some(Fault::NormOffset)),
        ("bf16_rounding", Some(Fault::Bf16Rounding)),
        ("context_before_images", Some(Fault::ContextBeforeImages)),
    ] {
        let loaded = loaded(&source, fault.map_or_else(Faults::default, Faults::planted));
        let found: Bisection = bisect(&loaded, &source, &reference, Some(&question())).unwrap();
        assert_eq!(found.is_clean(), fault.is_none());
        page = rewrite(&page, name, &found.to_string());
        let report = html::of_bisection(&found, &reference).unwrap();
        fs::write(cache().join(format!("{name}.html")), report).unwrap();
        page = rewrite(&page, &format!("{name} says"), &answer(&loaded));
    }
    fs::write(&path, page).unwrap();
}
