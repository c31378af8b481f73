//! What `make install` puts under a prefix is all that a stranger needs: programs in C and C++ are built from it alone and run.
//!
//! The prefix is moved after the installation, so every test here says that it may be.

#[path = "install/programs.rs"]
mod programs;
#[path = "install/symbols.rs"]
mod symbols;
#[cfg(feature = "c-tools")]
#[path = "install/tools.rs"]
mod tools;

use pyrex_tests::{process_folder, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// Where it is all installed.
static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let made = folder().join("made-here");
    let moved = folder().join("moved there");
    // Cargo puts the libraries of a dependency beside the test.
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut install = Command::new(repository().join("scripts/install.sh"));
    run(install.arg("--libraries").arg(libraries).arg(&made));
    fs::rename(made, &moved).unwrap();
    moved
});

/// A folder of this test process.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> =
        LazyLock::new(|| process_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "install"));
    &FOLDER
}

/// A file below the prefix.
fn installed(path: &str) -> PathBuf {
    PREFIX.join(path)
}

/// Runs a command, which must succeed, and gives what it wrote.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; is it installed?"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}
