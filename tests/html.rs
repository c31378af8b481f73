//! The pages of the report as text: one document each, that needs no other and in which whatever a file says stays text.
//! How they look is for `browser.rs`.

use pyrex_tests::pages::{PAGES, Page};
use std::collections::HashSet;

/// The largest page, of a model as large as those that are published.
const MAX_BYTES: usize = 3 << 20;
const SECTIONS: [&str; 6] = ["stages", "layers", "tensors", "errors", "images", "tokens"];
/// All that a page is made of.
const ELEMENTS: &str = "!doctype html head meta title style script body main header footer nav section article div span p \
    h1 h2 ul li details summary table thead tbody tr td th a b i small wbr fieldset legend label button input figure \
    figcaption svg path text g circle rect";
/// Elements without an end.
const VOID: [&str; 3] = ["meta", "input", "wbr"];

/// The tags of a page: name, attributes, whether it closes itself. What lies in scripts and styles is none.
fn tags(html: &str) -> Vec<(&str, &str, bool)> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (tag, after) = rest[start + 1..].split_once('>').expect("a tag ends");
        let (name, attributes) = tag.split_once([' ', '\n']).unwrap_or((tag, ""));
        tags.push((name, attributes, tag.ends_with('/')));
        let raw = ["script", "style"].contains(&name);
        rest = if raw { &after[after.find(&format!("</{name}>")).expect("it ends")..] } else { after };
    }
    tags
}

fn check_balance(page: &Page) {
    let mut open = Vec::new();
    for (name, _, closed) in tags(&page.html) {
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{}", page.name),
            None if closed || VOID.contains(&name) || name == "!doctype" => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{}: {open:?}", page.name);
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = attributes.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[test]
fn a_page_is_one_document_that_needs_nothing_else() {
    for page in PAGES.iter() {
        println!("{}: {} bytes", page.name, page.html.len());
        assert!(page.html.starts_with("<!doctype html>\n<html") && page.html.ends_with("</html>\n"));
        assert_eq!(page.html.matches("<html").count() + page.html.matches("</html>").count(), 2);
        assert!(page.html.len() < MAX_BYTES, "{}: {} bytes", page.name, page.html.len());
        check_balance(page);
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link", "<img", "//example"] {
            // In the hostile dumps such words are names.
            assert!(page.name == "hostile" || !page.html.contains(outside), "{}: {outside}", page.name);
        }
        let mut ids = HashSet::new();
        let mut links = Vec::new();
        for (name, attributes, _) in tags(&page.html) {
            if let Some(id) = attribute(attributes, " id").or(attributes.strip_prefix("id=\"")) {
                assert!(ids.insert(id.split('"').next().unwrap()), "{}: {id} twice", page.name);
            }
            if name == "a" {
                links.push(attribute(attributes, "href").unwrap().strip_prefix('#').expect("a link inside"));
            }
        }
        assert!(links.iter().all(|link| ids.contains(link)), "{}: {links:?} in {ids:?}", page.name);
        let has_images = page.name != "healthy_text" && page.name != "one_layer";
        for section in SECTIONS {
            assert_eq!(ids.contains(section), section != "images" || has_images, "{}: {section}", page.name);
        }
    }
}

#[test]
fn a_page_says_what_the_text_says() {
    for page in PAGES.iter().filter(|page| page.is_bisection) {
        match &page.finger {
            None => assert!(
                page.html.contains("No divergence") && !page.html.contains("-finger"),
                "{}",
                page.name
            ),
            Some(place) => {
                let sentence = escaped(&format!("It first goes wrong in {place}."));
                assert!(page.html.contains(&format!("<h1>{sentence}</h1>")), "{}: {sentence}", page.name);
                assert!(page.html.contains("so the fault is inside"), "{}", page.name);
                assert!(
                    page.html.contains("id=\"i-finger\"") && page.html.contains("id=\"c-finger\""),
                    "{}",
                    page.name
                );
            }
        }
    }
}

#[test]
fn whatever_a_file_says_stays_text() {
    let page = PAGES.iter().find(|page| page.name == "hostile").unwrap();
    let elements: HashSet<&str> = ELEMENTS.split_whitespace().collect();
    for (name, attributes, _) in tags(&page.html) {
        assert!(elements.contains(name.trim_start_matches('/')), "<{name} {attributes}>");
        assert!(!attributes.contains("onerror=") || attributes.contains("&quot;"), "<{name} {attributes}>");
        assert_eq!(attributes.matches('"').count() % 2, 0, "<{name} {attributes}>");
    }
    assert_eq!(page.html.matches("<script").count(), 1);
    assert!(page.html.contains("&lt;script&gt;document"));
    assert!(page.html.contains("not finite") && page.html.contains("only ours") && page.html.contains("∞"));
    assert!(!page.html.contains("NaN%") && !page.html.contains("=\"NaN") && !page.html.contains("=\"inf"));
}
