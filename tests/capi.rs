//! libpyrex from C: the programs in tests/c, each as it is and under sanitizers.
//!
//! With the feature `c-tools`, which scripts/test-c.sh turns on, valgrind and clang look at them too.

#[path = "support/c.rs"]
mod c;

use c::How::{self, Plain, Sanitized, Static};
use pyrex_tests::model_dir;

/// What a program is given.
fn arguments(name: &str, how: How) -> Vec<String> {
    let text_only = || model_dir("text-only").display().to_string();
    let shapes = || model_dir("shapes").display().to_string();
    let picture = |name: &str| format!("{}/examples/{name}.png", shapes());
    let scratch = || {
        let folder = c::folder().join(format!("{name}-{}", how as usize));
        std::fs::create_dir_all(&folder).unwrap();
        folder.display().to_string()
    };
    match name {
        "image" | "json" | "text" => vec![shapes(), picture("red_circle")],
        "cancel" => vec![shapes(), picture("pink_cross"), picture("pink_square")],
        "smoke" | "files" => vec![shapes()],
        "two_engines" => vec![shapes(), text_only()],
        "diag" | "growth" | "arguments" => vec![text_only(), scratch()],
        "threads" => vec![text_only(), num_requests(200, how)],
        "eventfd" => vec![text_only(), num_requests(100, how)],
        "notify" => vec![text_only(), num_requests(60, how)],
        _ => vec![text_only()],
    }
}

/// How many requests a program makes that makes many; fewer where each takes long.
fn num_requests(most: usize, how: How) -> String {
    let fewer = match how {
        #[cfg(feature = "c-tools")]
        How::Valgrind => 20,
        _ if cfg!(debug_assertions) => 10,
        _ => 1,
    };
    (most / fewer).to_string()
}

fn check(name: &str, how: How) {
    c::check(&c::source(name), how, &arguments(name, how));
}

/// A test for each program, and one that knows all of their names.
macro_rules! programs {
    ($($name:ident)*) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];

        mod as_it_is {
            $(#[test]
            fn $name() {
                super::check(stringify!($name), super::Plain);
            })*
        }

        mod under_sanitizers {
            $(#[test]
            fn $name() {
                super::check(stringify!($name), super::Sanitized);
            })*
        }

        #[cfg(feature = "c-tools")]
        mod under_valgrind {
            $(#[test]
            fn $name() {
                super::check(stringify!($name), super::How::Valgrind);
            })*
        }
    };
}

programs! {
    cancel deadline diag drain eventfd files fork frees growth image json last_error log notify overload
    progress smoke stats stream text threads two_engines values
}

#[test]
fn every_program_is_run() {
    let folder = pyrex_tests::repository().join("tests/c");
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".c")?.to_owned())).collect();
    names.sort();
    assert_eq!(names, PROGRAMS);
}

#[test]
fn the_static_library_does_as_well() {
    check("smoke", Static);
}

#[test]
fn the_header_is_c_and_cpp_to_gcc() {
    c::check_header(["gcc", "g++"]);
}

#[cfg(feature = "c-tools")]
#[test]
fn the_header_is_c_and_cpp_to_clang() {
    c::check_header(["clang", "clang++"]);
}
