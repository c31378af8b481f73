//! What the README shows is what a test runs.

use pyrex_tests::repository;
use std::fs;

/// The code blocks of the README marked as `language`.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let opening = format!("```{language}\n");
    readme.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

/// The one block of the README in `language` is in the example at `path`.
fn check_example(language: &str, path: &str) {
    let file = fs::read_to_string(repository().join(path)).unwrap();
    let blocks = blocks(language);
    assert_eq!(blocks.len(), 1, "{language}");
    assert!(file.contains(&blocks[0]), "README.md's {language} block is not in {path}");
}

#[test]
fn the_examples_are_the_example_files() {
    check_example("rust", "pyrex-core/examples/image.rs");
    check_example("c", "examples/c/describe.c");
    check_example("elixir", "elixir/examples/describe.exs");
    check_example("bash", "examples/http/describe.sh");
}

#[test]
fn the_two_commands_are_the_makefiles() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    let shell = blocks("sh").concat();
    let demo = shell.lines().find(|line| line.starts_with("cargo run")).unwrap();
    assert!(makefile.contains(demo));
    assert!(shell.contains("make test"));
}
