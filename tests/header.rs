//! include/pyrex.h is what the sources of pyrex-capi say.

use cbindgen::{Builder, Config};
use pyrex_tests::repository;
use std::fs;

/// In the order in which their functions stand in the header.
const SOURCES: [&str; 15] = [
    "version", "status", "log", "options", "files", "engine", "stats", "prompt", "sampling", "signal",
    "event", "request", "text", "abi", "diag",
];

#[test]
fn the_header_is_what_the_sources_say() {
    let capi = repository().join("pyrex-capi");
    let config = Config::from_file(capi.join("cbindgen.toml")).unwrap();
    let sources = SOURCES.iter().map(|name| capi.join(format!("src/{name}.rs")));
    let builder = sources.fold(Builder::new().with_config(config), Builder::with_src);
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let made = concat!(env!("CARGO_TARGET_TMPDIR"), "/pyrex.h");
    fs::write(made, &header).unwrap();
    let committed = fs::read(repository().join("include/pyrex.h")).unwrap_or_default();
    assert!(
        header == committed,
        "include/pyrex.h is not what the sources say: `make header` copies {made} there"
    );
}
