//! What is committed beside every kernel's source: its launcher, and PTX that is of this very source.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files in `src/` with this extension, by name.
fn sources(extension: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).expect("the crate has sources");
    let files = folder.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}

/// Adds to `found` a file and the headers that it includes, and that they do.
fn add_with_headers(file: &Path, found: &mut BTreeSet<PathBuf>) {
    let text = fs::read_to_string(file).expect("a source");
    let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    for header in included {
        add_with_headers(&file.with_file_name(header), found);
    }
    found.insert(file.to_owned());
}

/// The first line of the PTX that scripts/kernels.sh makes of `source` now.
fn first_line(source: &Path) -> String {
    let mut files = BTreeSet::new();
    add_with_headers(source, &mut files);
    let mut digest = Sha256::new();
    for file in files {
        digest.update(fs::read(file).expect("a source"));
    }
    let name = source.file_name().expect("a file").to_string_lossy();
    format!("// {name} and its headers: {:x}", digest.finalize())
}

#[test]
fn ptx_is_of_these_sources() {
    let kernels = sources("cu");
    assert!(!kernels.is_empty());
    for source in kernels {
        let ptx = fs::read_to_string(source.with_extension("ptx")).unwrap_or_default();
        let name = source.file_stem().expect("a name").to_string_lossy();
        let found = ptx.lines().next();
        assert_eq!(
            found,
            Some(&*first_line(&source)),
            "older than its source: run scripts/kernels.sh {name}"
        );
    }
}

#[test]
fn every_kernel_has_a_launcher_and_all_ptx_has_a_source() {
    let without = |extension: &str| -> Vec<PathBuf> {
        let files = sources("cu").into_iter().chain(sources("ptx"));
        files.map(|file| file.with_extension(extension)).filter(|file| !file.exists()).collect()
    };
    for extension in ["rs", "ptx", "cu"] {
        assert_eq!(without(extension), Vec::<PathBuf>::new());
    }
}
