//! What the README shows is what a test runs.

use pyrex_tests::repository;
use std::fs;

/// The code blocks of the README marked as `language`.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let opening = format!("```{language}\n");
    readme.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

#[test]
fn the_rust_example_is_the_example_file() {
    let file = fs::read_to_string(repository().join("pyrex-core/examples/image.rs")).unwrap();
    let blocks = blocks("rust");
    assert_eq!(blocks.len(), 1);
    assert!(file.contains(&blocks[0]), "README.md's Rust block is not in pyrex-core/examples/image.rs");
}

#[test]
fn the_c_example_is_the_example_file() {
    let file = fs::read_to_string(repository().join("examples/c/describe.c")).unwrap();
    let blocks = blocks("c");
    assert_eq!(blocks.len(), 1);
    assert!(file.contains(&blocks[0]), "README.md's C block is not in examples/c/describe.c");
}

#[test]
fn the_elixir_example_is_the_example_file() {
    let file = fs::read_to_string(repository().join("elixir/examples/describe.exs")).unwrap();
    let blocks = blocks("elixir");
    assert_eq!(blocks.len(), 1);
    assert!(file.contains(&blocks[0]), "README.md's Elixir block is not in elixir/examples/describe.exs");
}

#[test]
fn the_two_commands_are_the_makefiles() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    let shell = blocks("sh").concat();
    let demo = shell.lines().find(|line| line.starts_with("cargo run")).unwrap();
    assert!(makefile.contains(demo));
    assert!(shell.contains("make test"));
}
