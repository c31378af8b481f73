//! The layer table of ARCHITECTURE.md against the sources: a module may use only the rows below its own.

mod source;

use source::{Source, crates, root, words};
use std::collections::BTreeMap;
use std::fs;

/// Crates that a row must not know, beyond what the table's arrows say.
const FORBIDDEN_CRATES: [(&str, &[&str]); 3] =
    [("prompt", &["candle_core"]), ("schedule", &["candle_core", "serde_json"]), ("engine", &["serde_json"])];

type Levels = BTreeMap<String, usize>;

/// Modules and crates by level, from the table's rows `| level | modules | must never know |`.
fn levels(architecture: &str) -> Levels {
    let section = architecture.split("\n## ").find(|section| section.contains("Layers")).unwrap_or_default();
    let mut levels = Levels::new();
    for row in section.lines().filter(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (Some(Ok(level)), Some(modules)) = (cells.next().map(str::parse), cells.next()) else { continue };
        // What stands in brackets is a remark.
        let modules = modules.split('(').next().unwrap_or_default();
        let names = modules.split('`').skip(1).step_by(2);
        levels.extend(names.map(|name| (name.to_owned(), level)));
    }
    levels
}

/// Every path behind `prefix::`, with groups taken apart: `crate::{a, b::{c, d}}` gives `a`, `b::c` and `b::d`.
fn paths(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, prefix) {
        if let Some(rest) = code[at + prefix.len()..].trim_start().strip_prefix("::") {
            expand(rest, "", &mut |path| found.push((at, path)));
        }
    }
    found
}

fn expand(code: &str, base: &str, found: &mut dyn FnMut(String)) -> usize {
    let rest = code.trim_start();
    let skipped = code.len() - rest.len();
    if let Some(group) = rest.strip_prefix('{') {
        let mut at = 0;
        while !group[at..].trim_start().starts_with('}') && at < group.len() {
            at += expand(&group[at..], base, found);
            let gap = &group[at..];
            at += gap.len() - gap.trim_start().trim_start_matches(',').len();
        }
        let end = group[at..].find('}').map_or(group.len(), |end| at + end + 1);
        return skipped + 1 + end;
    }
    let name_len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let path = format!("{base}{}", &rest[..name_len]);
    match rest[name_len..].strip_prefix("::") {
        Some(tail) if !tail.starts_with('<') => {
            skipped + name_len + 2 + expand(tail, &format!("{path}::"), found)
        }
        // A star, or an alias behind `as`, adds nothing that matters here.
        _ => {
            found(path);
            let tail = &rest[name_len..];
            let end = tail
                .find([',', '}', ';', ')', '(', '\n'])
                .unwrap_or(tail.len())
                .max(usize::from(name_len == 0));
            skipped + name_len + end
        }
    }
}

/// Names that the core's `lib.rs` re-exports, and the module each comes from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (at, _) in lib.match_indices("pub use ") {
        expand(&lib[at + "pub use ".len()..], "", &mut |path| {
            if let (Some((module, _)), Some((_, name))) = (path.split_once("::"), path.rsplit_once("::")) {
                names.insert(name.to_owned(), module.to_owned());
            }
        });
    }
    names
}

fn module_of(path: &str) -> &str {
    let inside = path.split("/src/").nth(1).unwrap_or_default();
    inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// What is wrong with the arrows of one file of the core.
fn wrong_arrows(source: &Source, levels: &Levels, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let module = module_of(&source.path);
    let Some(level) = levels.get(module) else {
        return vec![format!("{}: the module {module} is not in the table", source.path)];
    };
    let mut wrong = Vec::new();
    let mut note =
        |at: usize, what: String| wrong.push(format!("{}:{}: {what}", source.path, source.line_of(at)));
    for (at, path) in paths(&source.code, "crate") {
        let first = path.split("::").next().unwrap_or_default();
        let target = if levels.contains_key(first) {
            first
        } else {
            reexports.get(first).map_or(first, String::as_str)
        };
        match levels.get(target) {
            Some(_) if target == module => {}
            Some(below) if below < level => {}
            Some(other) => note(at, format!("{module} (level {level}) uses {target} (level {other})")),
            None => note(at, format!("crate::{first} is neither in the table nor re-exported")),
        }
    }
    let depth = source
        .path
        .split("/src/")
        .nth(1)
        .unwrap_or_default()
        .trim_end_matches("/mod.rs")
        .matches('/')
        .count()
        + 1;
    for at in words(&source.code, "super") {
        let climbs = source.code[at..].split("::").take_while(|step| step.trim() == "super").count();
        if climbs >= depth && !source.code[..at].ends_with("super::") && !in_visibility(&source.code, at) {
            note(at, "super reaches the root of the crate: write crate:: instead".to_owned());
        }
    }
    let forbidden =
        FORBIDDEN_CRATES.iter().filter(|(name, _)| *name == module).flat_map(|(_, crates)| *crates);
    for name in forbidden {
        for at in words(&source.code, name) {
            note(at, format!("{module} must not know {name}"));
        }
    }
    wrong
}

/// `pub(super)` only says who sees an item.
fn in_visibility(code: &str, at: usize) -> bool {
    code[..at].ends_with("pub(") || code[..at].ends_with("pub(in ")
}

/// What is wrong with the names of the core that another crate uses: they must be re-exported at its root.
fn wrong_names(source: &Source, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let used = paths(&source.code, "pyrex_core").into_iter();
    let wrong = used.filter(|(_, path)| !reexports.contains_key(path.split("::").next().unwrap_or_default()));
    wrong
        .map(|(at, path)| {
            format!("{}:{}: pyrex_core::{path} is no root name", source.path, source.line_of(at))
        })
        .collect()
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the repository has an ARCHITECTURE.md")
}

fn core_reexports(sources: &[Source]) -> BTreeMap<String, String> {
    let lib =
        sources.iter().find(|source| source.path == "pyrex-core/src/lib.rs").expect("the core has a lib.rs");
    reexports(&lib.code)
}

#[test]
fn modules_use_only_the_rows_below_their_own() {
    let (sources, levels) = (crates(), levels(&architecture()));
    let reexports = core_reexports(&sources);
    let core =
        sources.iter().filter(|s| s.path.starts_with("pyrex-core/src/") && !s.path.ends_with("/lib.rs"));
    let wrong: Vec<String> = core.flat_map(|source| wrong_arrows(source, &levels, &reexports)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn other_crates_use_only_the_names_at_the_root_of_the_core() {
    let sources = crates();
    let reexports = core_reexports(&sources);
    let others = sources
        .iter()
        .filter(|s| !s.path.starts_with("pyrex-core/") && !s.path.starts_with("pyrex-kernels/"));
    let wrong: Vec<String> = others.flat_map(|source| wrong_names(source, &reexports)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_table_has_every_level() {
    let levels = levels(&architecture());
    for (name, level) in
        [("pyrex-cli", 9), ("pyrex-openai", 7), ("engine", 6), ("models", 5), ("schedule", 1), ("error", 0)]
    {
        assert_eq!(levels.get(name), Some(&level), "{name}");
    }
    assert!((0..=9).all(|level| levels.values().any(|found| *found == level)), "{levels:?}");
}

const TABLE: &str = "\n## 2. Layers\n| level | modules | must never know |\n|---|---|---|\n\
    | 2 | `engine`, `diag` (with `remarks`) | JSON |\n| 1 | `kv` | |\n| 0 | `error`, `schedule` | |\n";

fn check(path: &str, code: &str, num_wrong: usize) {
    let names = reexports("pub use error::{Error, Result as R};\npub use engine::Engine;");
    let wrong = wrong_arrows(&Source::new(path, code), &levels(TABLE), &names);
    assert_eq!(wrong.len(), num_wrong, "{code}: {wrong:?}");
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let kv = "pyrex-core/src/kv/pool.rs";
    check(kv, "use crate::error::Error;\nuse crate::kv::View;\nuse super::View;", 0);
    check(kv, "use crate::engine::Engine;", 1);
    check(kv, "use crate::{error::{Error, Result}, engine};", 1);
    check(kv, "use crate::{\n    engine::core::{a, b},\n    diag::c,\n};", 3);
    check(kv, "fn f() -> crate::engine::Engine {}", 1);
    check(kv, "fn f() -> crate::Engine {}", 1);
    check(kv, "fn f() -> crate::Error {}", 0);
    check(kv, "use crate::unheard_of::X;", 1);
    check(kv, "use super::super::engine::Engine;", 1);
    check("pyrex-core/src/kv/mod.rs", "use super::engine::Engine;", 1);
    check("pyrex-core/src/kv.rs", "pub(super) fn f() {}", 0);
    check("pyrex-core/src/engine/mod.rs", "use crate::diag::Dump;", 1);
    check("pyrex-core/src/remarks.rs", "", 1);
}

#[test]
fn comments_and_tests_may_name_anything() {
    check(
        "pyrex-core/src/kv/mod.rs",
        "//! See crate::engine.\n#[cfg(test)]\nmod tests { use crate::engine::Engine; }",
        0,
    );
    check("pyrex-core/src/kv/tests.rs", "use crate::engine::Engine;", 0);
}

#[test]
fn a_forbidden_crate_is_found() {
    check("pyrex-core/src/schedule/mod.rs", "use candle_core::Tensor;", 1);
    check("pyrex-core/src/engine/mod.rs", "use candle_core::Tensor;", 0);
}

#[test]
fn a_name_that_is_not_at_the_root_is_found() {
    let names = reexports("pub use engine::{Engine, Event};\npub use models::load;");
    let wrong = |code| wrong_names(&Source::new("pyrex-cli/src/main.rs", code), &names).len();
    assert_eq!(wrong("use pyrex_core::{Engine, load};"), 0);
    assert_eq!(wrong("use pyrex_core::engine::Engine;"), 1);
    assert_eq!(wrong("fn f() -> pyrex_core::kv::KvPool {}"), 1);
}
