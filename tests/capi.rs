//! libpyrex from C: the programs in tests/c, each as it is and under sanitizers.
//!
//! With the feature `c-tools`, which scripts/test-c.sh turns on, valgrind and clang look at them too.

#[path = "support/arguments.rs"]
mod arguments;
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
        let folder = c::folder().join(format!("scratch-{name}-{}", how as usize));
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
        How::Valgrind | How::ThreadSanitized => 20,
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

/// Writes the program that calls every function, and runs it.
fn check_arguments(how: How) {
    let read = |path| std::fs::read_to_string(pyrex_tests::repository().join(path)).unwrap();
    let program = arguments::program(&read("include/pyrex.h"), &read("tests/c/fixtures.h"));
    let source = c::folder().join(format!("arguments-{}.c", how as usize));
    std::fs::write(&source, program.unwrap_or_else(|missing| panic!("{missing}"))).unwrap();
    c::check(&source, how, &arguments("arguments", how));
}

#[test]
fn every_function_takes_every_argument() {
    check_arguments(Plain);
}

#[test]
fn every_function_takes_every_argument_under_sanitizers() {
    check_arguments(Sanitized);
}

#[cfg(feature = "c-tools")]
#[test]
fn every_function_takes_every_argument_under_valgrind() {
    check_arguments(How::Valgrind);
}

#[test]
fn a_function_without_fixtures_is_missed() {
    let header = "extern \"C\" {\n/** A; comment. */\npyrex_status_t pyrex_new(const char *const *a, size_t num_a);\n#ifdef";
    let missing = arguments::program(header, "#define VALID_a NULL").unwrap_err();
    assert_eq!(missing, "pyrex_new takes a size_t num_a: tests/c/fixtures.h has none");
}

#[test]
fn the_library_exports_what_the_header_declares() {
    let header = std::fs::read_to_string(pyrex_tests::repository().join("include/pyrex.h")).unwrap();
    let mut declared: Vec<String> = arguments::functions(&header).into_iter().map(|it| it.name).collect();
    declared.sort();
    assert_eq!(c::exports(), declared);
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
fn header_and_programs_are_c_to_clang() {
    c::check_header(["clang", "clang++"]);
    PROGRAMS.iter().for_each(|name| c::check_with_clang(&c::source(name)));
}

/// What the programs themselves share between threads. The library is not looked at: it is built without the thread
/// sanitizer, which knows pthread's locks but not the futexes of Rust's; without tests/c/tsan.supp `threads` gives 145 reports
/// for 160 requests, each where the library frees or copies what one of its locks guards. scripts/test-tsan.sh sees
/// these too: it builds the library and Rust's own with the sanitizer, by nightly Rust.
#[cfg(feature = "c-tools")]
mod under_the_thread_sanitizer {
    #[test]
    fn threads() {
        super::check("threads", super::How::ThreadSanitized);
    }

    #[test]
    fn eventfd() {
        super::check("eventfd", super::How::ThreadSanitized);
    }

    #[test]
    fn notify() {
        super::check("notify", super::How::ThreadSanitized);
    }
}
