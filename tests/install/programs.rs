//! The examples and the C++ programs, with what comes with gcc and nothing else.

use crate::{folder, installed, run};
use pyrex_tests::repository;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const ANSWER: &str = "This is a simple image of a solid red circle on a white background.";

pub(crate) const WARNINGS: [&str; 6] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"];

const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// A program that hangs is ended after so many seconds.
const TIMEOUT: &str = "600";

/// What pyrex.pc says, as pkg-config would: the values of some of its fields, with its variables put in.
fn package(name: &str, fields: &[&str]) -> Vec<String> {
    let folder = installed("lib/pkgconfig");
    let text = fs::read_to_string(folder.join(name).with_extension("pc")).unwrap();
    let mut variables = vec![("pcfiledir".to_owned(), folder.to_str().unwrap().to_owned())];
    let resolved = |text: &str, variables: &[(String, String)]| {
        let put =
            |text: String, (name, value): &(String, String)| text.replace(&format!("${{{name}}}"), value);
        // The folder has a space in its name, and so has what separates one flag from the next.
        text.split(' ').map(|word| variables.iter().fold(word.to_owned(), put)).collect::<Vec<_>>()
    };
    let mut flags = Vec::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once('=') {
            variables.push((name.to_owned(), resolved(value, &variables).concat()));
        } else if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| fields.contains(name)) {
            flags.extend(resolved(value, &variables));
        }
    }
    flags
}

/// Flags for the shared library, and for the static one.
fn flags() -> [(&'static str, Vec<String>); 2] {
    let fields = ["Cflags", "Libs"];
    [("shared", package("pyrex", &fields)), ("static", package("pyrex-static", &fields))]
}

pub(crate) fn example(path: &str) -> PathBuf {
    repository().join("examples").join(path)
}

pub(crate) fn cpp(name: &str) -> PathBuf {
    repository().join("tests/cpp").join(name)
}

/// A compiler that is strict.
pub(crate) fn compiler(name: &str, standard: &str) -> Command {
    let mut command = Command::new(name);
    command.arg(format!("-std={standard}")).args(WARNINGS);
    command
}

/// Builds a program, whose name says how it was built.
pub(crate) fn build(mut compiler: Command, sources: &[PathBuf], flags: &[String], name: &str) -> PathBuf {
    let program = folder().join(name);
    run(compiler.args(sources).args(flags).arg("-o").arg(&program));
    program
}

/// A command that runs a program, and finds the shared library.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", TIMEOUT]).arg(path);
    command.current_dir(repository()).env("LD_LIBRARY_PATH", installed("lib"));
    command
}

/// Runs a program with the bundled model and picture.
pub(crate) fn run_with_model(path: &Path) -> String {
    run(program(path).args(["models/shapes", "models/shapes/examples/red_circle.png"]))
}

pub(crate) fn check_describe(path: &Path) {
    // The bundled model and picture are what it takes if it is given none.
    assert_eq!(run(&mut program(path)), format!("{ANSWER}\n"));
    for (arguments, expected) in [
        (["no such folder", "x"], "invalid_model: no such folder"),
        (["models/shapes", "no such picture"], "io: no such picture"),
        (["models/shapes", "models/shapes/config.json"], "invalid_request: image"),
    ] {
        let output = program(path).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}, expected {expected}");
    }
}

/// Requests are answered, one that is cancelled at once ends, and a line that is no text is refused alone.
pub(crate) fn check_server_loop(path: &Path) {
    let mut command = program(path);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = b"What is a circle?\nDescribe a square.\nTell a long story.\ncancel 3\ncancel 99\n\n\xff\nDescribe a square.";
    // It is closed behind that, and the server ends when all is answered.
    server.stdin.take().unwrap().write_all(lines).unwrap();
    let output = server.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let text = |number: usize| -> String {
        let prefix = format!("{number}: ");
        said.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
    };
    let ended = |number: usize| said.lines().find(|line| line.starts_with(&format!("{number} "))).unwrap();
    assert_eq!(text(1), "A circle is a round shape with no corners.");
    assert_eq!(text(2), "A square is a shape with four equal sides and four corners.");
    assert_eq!((text(5), &ended(5)[1..]), (text(2), &ended(2)[1..]));
    assert_eq!(ended(1), "1 finished: 11 tokens");
    assert_eq!(ended(3), "3 failed: cancelled");
    assert_eq!(ended(4), "4 failed: invalid_request");
}

#[test]
fn describe_is_built_from_the_prefix_and_describes() {
    for (how, flags) in flags() {
        let name = format!("describe-{how}");
        check_describe(&build(compiler("gcc", "c99"), &[example("c/describe.c")], &flags, &name));
        let name = format!("describe-cpp-{how}");
        check_describe(&build(compiler("g++", "c++17"), &[example("cpp/describe.cpp")], &flags, &name));
    }
}

#[test]
fn server_loop_is_built_from_the_prefix_and_serves() {
    for (how, flags) in flags() {
        let name = format!("server-loop-{how}");
        check_server_loop(&build(compiler("gcc", "c99"), &[example("c/server_loop.c")], &flags, &name));
    }
}

#[test]
fn the_static_library_asks_for_what_rust_says_it_needs() {
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=staticlib", "--print=native-static-libs", "-o"]);
    let output = rustc.arg(folder().join("libnone.a")).arg(cpp("neighbour.rs")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let named = said.split("native-static-libs: ").nth(1).unwrap().lines().next().unwrap();
    // Compilers add these two by themselves, and -static needs another one than the first.
    let needed: Vec<&str> = named.split(' ').filter(|name| !["-lgcc_s", "-lc"].contains(name)).collect();
    assert_eq!(package("pyrex", &["Libs.private"]), needed);
    assert!(package("pyrex-static", &["Libs"]).ends_with(&package("pyrex", &["Libs.private"])));
}

/// Builds and runs the C++ programs.
pub(crate) fn check_classes(compiler_name: &str, flags: &[String]) {
    let sources = [cpp("objects.cpp"), cpp("header.cpp")];
    for sanitizers in [&[][..], &SANITIZERS] {
        let how = if sanitizers.is_empty() { "plain" } else { "sanitized" };
        let mut compiler = compiler(compiler_name, "c++17");
        compiler.args(sanitizers).args(["-g", "-pthread"]);
        run_with_model(&build(compiler, &sources, flags, &format!("objects-{compiler_name}-{how}")));
        let mut compiler = self::compiler(compiler_name, "c++20");
        compiler.args(sanitizers).args(["-g", "-fno-exceptions"]);
        let name = format!("no-exceptions-{compiler_name}-{how}");
        run_with_model(&build(compiler, &[cpp("no_exceptions.cpp")], flags, &name));
    }
}

/// Compiles what uses the classes in every way that they are meant for.
pub(crate) fn check_warnings(compiler_name: &str) {
    let cflags = package("pyrex", &["Cflags"]);
    for standard in ["c++17", "c++20"] {
        for (options, source) in [
            (&[][..], "objects.cpp"),
            (&["-fno-rtti"], "objects.cpp"),
            (&["-fno-exceptions"], "no_exceptions.cpp"),
            (&["-fno-exceptions", "-fno-rtti"], "no_exceptions.cpp"),
            (&["-DPYREX_NO_EXCEPTIONS"], "header.cpp"),
        ] {
            let mut compiler = compiler(compiler_name, standard);
            run(compiler.arg("-fsyntax-only").args(options).args(&cflags).arg(cpp(source)));
        }
    }
}

#[test]
fn the_classes_do_what_they_say() {
    check_classes("g++", &flags()[0].1);
}

#[test]
fn the_classes_compile_without_warnings_in_every_mode() {
    check_warnings("g++");
}

#[test]
fn a_panic_is_caught_in_both_libraries() {
    for (how, flags) in flags() {
        let name = format!("panic-{how}");
        run_with_model(&build(compiler("g++", "c++17"), &[cpp("panic.cpp")], &flags, &name));
    }
}

#[test]
fn another_rust_library_may_be_in_the_program() {
    let neighbour = folder().join("libneighbour.a");
    let mut rustc = Command::new("rustc");
    run(rustc
        .args(["--edition=2024", "--crate-type=staticlib", "-o"])
        .arg(&neighbour)
        .arg(cpp("neighbour.rs")));
    for (how, flags) in flags() {
        let sources = [cpp("neighbour.cpp"), neighbour.clone()];
        // In this order the neighbour's standard library is the one that is found first.
        let name = format!("neighbour-{how}");
        run_with_model(&build(compiler("g++", "c++17"), &sources, &flags, &name));
    }
}
