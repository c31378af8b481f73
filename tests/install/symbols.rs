//! What is in the installed libraries: their names, what can be seen, how large they are.

use crate::{installed, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const SHARED: &str = "lib/libpyrex.so";
const STATIC: &str = "lib/libpyrex.a";

/// Built for release they have 17 and 23 MB, 105 and 286 before they are stripped; without optimization 84 and 116.
const MAX_SHARED_BYTES: u64 = if cfg!(debug_assertions) { 110_000_000 } else { 25_000_000 };
const MAX_STATIC_BYTES: u64 = if cfg!(debug_assertions) { 150_000_000 } else { 35_000_000 };

/// Every function of the header: what stands before the bracket where a line of it begins a declaration.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(installed("include/pyrex.h")).unwrap();
    let declarations = header.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let names = declarations.filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("pyrex_")).map(str::to_owned).collect()
}

/// The names that `nm` finds.
fn defined(options: &[&str], library: &Path) -> BTreeSet<String> {
    let table = run(Command::new("nm").args(options).arg("--defined-only").arg(library));
    table.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

#[test]
fn the_libraries_show_what_the_header_declares_and_nothing_else() {
    let declared = declared();
    assert!(declared.len() > 40 && declared.contains("pyrex_engine_open"), "{declared:?}");
    assert_eq!(defined(&["--dynamic"], &installed(SHARED)), declared);
    assert_eq!(defined(&["--extern-only"], &installed(STATIC)), declared);
}

#[test]
fn the_name_of_the_shared_library_has_the_version_of_the_interface() {
    let header = fs::read_to_string(installed("include/pyrex.h")).unwrap();
    let version = header.split("#define PYREX_ABI_VERSION ").nth(1).unwrap().lines().next().unwrap();
    let name = format!("libpyrex.so.{version}");
    let dynamic = run(Command::new("readelf").arg("--dynamic").arg(installed(SHARED)));
    assert!(dynamic.contains(&format!("Library soname: [{name}]")), "{dynamic}");
    assert_eq!(fs::read_link(installed(SHARED)).unwrap(), Path::new(&name));
}

#[test]
fn the_libraries_are_small_and_can_still_name_their_functions() {
    for (library, max_bytes) in [(SHARED, MAX_SHARED_BYTES), (STATIC, MAX_STATIC_BYTES)] {
        let path = installed(library);
        let sections = run(Command::new("readelf").args(["--sections", "--wide"]).arg(&path));
        assert!(!sections.contains(".debug") && !sections.contains(".llvmbc"), "{library}: {sections}");
        assert!(sections.contains(".eh_frame") && sections.contains(".gcc_except_table"), "{sections}");
        assert!(sections.contains(".symtab"), "{library}: {sections}");
        let num_bytes = fs::metadata(path).unwrap().len();
        println!("{library}: {num_bytes} bytes, at most {max_bytes}");
        assert!(num_bytes <= max_bytes, "{library} has {num_bytes} bytes, expected at most {max_bytes}");
    }
}
