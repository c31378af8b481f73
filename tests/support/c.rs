//! C programs against libpyrex: compiled, linked and run, with all they said if they fail.

use pyrex_tests::{process_folder, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// As strict as C99 gets; `_GNU_SOURCE` is for what the programs use beside Pyrex: threads, epoll, clocks.
const FLAGS: [&str; 8] =
    ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-D_GNU_SOURCE", "-g"];

/// Of the compiler's own code, which every program that links the static library needs; what
/// `cargo rustc --package pyrex-capi --crate-type staticlib -- --print native-static-libs` says.
const NATIVE_LIBRARIES: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

/// A program that hangs is ended after so long: several times what the slowest takes under the slowest tool.
const TIMEOUT: &str = "600";

/// How a program is built and run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Against the shared library.
    Plain,
    /// Against the static library.
    Static,
    /// With gcc's address and undefined behaviour sanitizers, which look for leaks at the end too. The library is not
    /// instrumented, but takes its memory from the same allocator.
    Sanitized,
    /// Under valgrind's memcheck, which sees into the library as well.
    #[cfg(feature = "c-tools")]
    Valgrind,
    /// With gcc's thread sanitizer in the program, but not in the library: see tests/c/tsan.supp.
    #[cfg(feature = "c-tools")]
    ThreadSanitized,
}

/// Where programs are put and the libraries are found under the names that a linker and a loader look for.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = process_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "c");
    for name in ["libpyrex.so", "libpyrex.so.1"] {
        std::os::unix::fs::symlink(libraries().join("libpyrex.so"), folder.join(name)).unwrap();
    }
    folder
});

/// Cargo puts the libraries of a dependency beside the test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A folder of this test process, for what programs write.
pub(crate) fn folder() -> &'static Path {
    &FOLDER
}

/// The source of a program.
pub(crate) fn source(name: &str) -> PathBuf {
    repository().join(format!("tests/c/{name}.c"))
}

/// The names that the shared library exports, in order.
pub(crate) fn exports() -> Vec<String> {
    let mut command = Command::new("nm");
    command.args(["--dynamic", "--defined-only", "--format=just-symbols"]);
    let output = run(command.arg(FOLDER.join("libpyrex.so")));
    let mut names: Vec<String> = output.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Builds a program and runs it.
pub(crate) fn check(source: &Path, how: How, arguments: &[String]) {
    let program = compile(source, how);
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", TIMEOUT]);
    // Cargo names its own folders there, and what lies in them may be of another build.
    command.env("LD_LIBRARY_PATH", folder());
    match how {
        How::Plain | How::Static => {}
        How::Sanitized => {
            // As malloc() does without a sanitizer, what is too large is refused and not a crash.
            command.env("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1");
            command.env("UBSAN_OPTIONS", "print_stacktrace=1");
        }
        #[cfg(feature = "c-tools")]
        How::ThreadSanitized => {
            let suppressions = repository().join("tests/c/tsan.supp");
            command.env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()));
        }
        #[cfg(feature = "c-tools")]
        How::Valgrind => {
            command.args(["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"]);
            command.args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
            // One thread at a time runs; without this one that waits for another by asking again and again starves it.
            command.args(["--fair-sched=yes", "--num-callers=30"]);
            if !cfg!(debug_assertions) {
                // Optimized code looks at an option's value before its tag, and then does not use what it saw: valgrind calls
                // that a jump on what is undefined, in safe Rust. What is read or written out of bounds and leaks are seen.
                command.arg("--undef-value-errors=no");
            }
        }
    }
    run(command.arg(program).args(arguments));
}

/// What a command writes; it must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; is it installed?"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8_lossy(&stdout).into_owned()
}

fn compile(source: &Path, how: How) -> PathBuf {
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let name = match how {
        How::Plain => stem.to_owned(),
        How::Static => format!("{stem}-static"),
        How::Sanitized => format!("{stem}-sanitized"),
        #[cfg(feature = "c-tools")]
        How::Valgrind => format!("{stem}-valgrind"),
        #[cfg(feature = "c-tools")]
        How::ThreadSanitized => format!("{stem}-thread-sanitized"),
    };
    let program = FOLDER.join(name);
    let mut command = compiler("gcc");
    command.args(FLAGS).arg(source).arg("-o").arg(&program);
    if how == How::Sanitized {
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    #[cfg(feature = "c-tools")]
    if how == How::ThreadSanitized {
        command.arg("-fsanitize=thread");
    }
    if how == How::Static {
        command.arg(libraries().join("libpyrex.a")).args(NATIVE_LIBRARIES);
    } else {
        command.arg(format!("-L{}", FOLDER.display())).arg("-lpyrex");
        command.arg(format!("-Wl,-rpath,{}", FOLDER.display()));
    }
    run(command.arg("-lm"));
    program
}

/// Whether clang has nothing to say about a source.
#[cfg(feature = "c-tools")]
pub(crate) fn check_with_clang(source: &Path) {
    run(compiler("clang").args(FLAGS).arg("-fsyntax-only").arg(source));
}

/// A compiler that finds the header and what the programs share.
pub(crate) fn compiler(name: &str) -> Command {
    let mut command = Command::new(name);
    for folder in ["include", "tests/c"] {
        command.arg("-I").arg(repository().join(folder));
    }
    command
}

/// The header alone, as every standard that it is meant for.
pub(crate) fn check_header(compilers: [&str; 2]) {
    let [c, cpp] = compilers;
    let file = FOLDER.join(format!("header-{c}.c"));
    fs::write(&file, "#include \"pyrex.h\"\nint main(void) { return PYREX_OK; }\n").unwrap();
    for (name, language, standard) in [
        (c, "c", "c99"),
        (c, "c", "c11"),
        (c, "c", "c17"),
        (c, "c", "c2x"),
        (cpp, "c++", "c++11"),
        (cpp, "c++", "c++17"),
        (cpp, "c++", "c++20"),
    ] {
        let mut command = compiler(name);
        command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", language]);
        run(command.arg(format!("-std={standard}")).arg(&file));
    }
}
