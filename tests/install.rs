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

use pyrex_tests::repository;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, id};
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
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_left_over(all);
        let folder = all.join(format!("install-{}", id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    });
    &FOLDER
}

/// Folders of test processes that are gone.
fn remove_left_over(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.strip_prefix("install-")?.parse::<u32>().ok());
        if of.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
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
