//! What STYLE asks of every source file and a test can count. Each check has a test that it can fail.

mod source;

use source::{Source, closing, crates, words};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 60;
const MAX_PARAMETERS: usize = 6;

/// Runs `check` over all sources and reports everything it finds.
fn all(check: fn(&Source) -> Vec<String>) {
    let sources = crates();
    assert!(sources.len() > 20, "found {} sources", sources.len());
    let found: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Asserts that `check` has something to say about `text` as a file of the core, but nothing about `good`.
fn can_fail(check: fn(&Source) -> Vec<String>, path: &str, bad: &str, good: &str) {
    assert!(!check(&Source::new(path, bad)).is_empty(), "nothing found in {bad}");
    assert_eq!(check(&Source::new(path, good)), Vec::<String>::new());
}

fn at(source: &Source, offset: usize, what: &str) -> String {
    format!("{}:{}: {what}", source.path, source.line_of(offset))
}

fn long_files(source: &Source) -> Vec<String> {
    // A file of tests has no code; elsewhere tests stand at the foot.
    let end = match source.code.trim().is_empty() {
        true => 0,
        false => source.text.find("#[cfg(test)]\nmod").unwrap_or(source.text.len()),
    };
    let num_lines = source.text[..end].lines().count();
    let what = format!("{}: {num_lines} lines without tests, expected at most {MAX_FILE_LINES}", source.path);
    if num_lines > MAX_FILE_LINES { vec![what] } else { Vec::new() }
}

fn undocumented_modules(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    let documented = source.path.ends_with("/tests.rs") || first.is_some_and(|line| line.starts_with("//! "));
    if documented { Vec::new() } else { vec![format!("{}: no //! at the top", source.path)] }
}

/// Every function with a body: its offset, its parameters, and where its body ends.
fn functions(code: &str) -> impl Iterator<Item = (usize, &str, usize)> {
    words(code, "fn").filter_map(move |start| {
        let open = start + parameters_open(&code[start..])?;
        let close = closing(code, open);
        let body = close + code[close..].find(['{', ';'])?;
        code[body..].starts_with('{').then(|| (start, &code[open + 1..close - 1], closing(code, body)))
    })
}

/// Where the parameters of `fn name<…>(…)` begin; nothing for a type such as `fn(u8)`.
fn parameters_open(function: &str) -> Option<usize> {
    let name = function["fn".len()..].trim_start();
    let name_start = function.len() - name.len();
    let name_len = name.find(|c: char| !c.is_alphanumeric() && c != '_').filter(|len| *len > 0)?;
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, c) in name[name_len..].char_indices() {
        match c {
            '(' if depth == 0 => return Some(name_start + name_len + at),
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = c;
    }
    None
}

fn num_parameters(parameters: &str) -> usize {
    let (mut depth, mut count, mut pending) = (0usize, 0, false);
    let mut before = ' ';
    for c in parameters.chars() {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '>' if before != '-' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                count += usize::from(pending);
                pending = false;
            }
            _ => {}
        }
        pending |= c != ',' && !c.is_whitespace();
        before = c;
    }
    let takes_self = parameters.split(',').next().is_some_and(|first| words(first, "self").next().is_some());
    count + usize::from(pending) - usize::from(takes_self)
}

fn long_functions(source: &Source) -> Vec<String> {
    let length = |(start, _, end): (usize, &str, usize)| {
        let num_lines = 1 + source.line_of(end) - source.line_of(start);
        let what = format!("a function of {num_lines} lines, expected at most {MAX_FUNCTION_LINES}");
        (num_lines > MAX_FUNCTION_LINES).then(|| at(source, start, &what))
    };
    functions(&source.code).filter_map(length).collect()
}

fn wide_functions(source: &Source) -> Vec<String> {
    // CUDA's own functions have the parameters that they have.
    if source.path.starts_with("pyrex-emulator/driver/src/abi/") {
        return Vec::new();
    }
    let width = |(start, parameters, _): (usize, &str, usize)| {
        let count = num_parameters(parameters);
        let what = format!("{count} parameters, expected at most {MAX_PARAMETERS}");
        (count > MAX_PARAMETERS).then(|| at(source, start, &what))
    };
    functions(&source.code).filter_map(width).collect()
}

fn stray_unsafe(source: &Source) -> Vec<String> {
    const FENCED: [&str; 8] = [
        "pyrex-core/src/weights/mmap.rs",
        "pyrex-core/src/ops/cuda/",
        "pyrex-core/src/ops/simd/",
        "pyrex-kernels/",
        "pyrex-emulator/src/host.rs",
        "pyrex-emulator/driver/",
        "pyrex-capi/",
        "pyrex-nif/src/bytes.rs",
    ];
    if FENCED.iter().any(|fenced| source.path.starts_with(fenced)) {
        return Vec::new();
    }
    words(&source.code, "unsafe").map(|offset| at(source, offset, "unsafe outside its fence")).collect()
}

fn mute_panics(source: &Source) -> Vec<String> {
    let unwraps = source.code.match_indices(".unwrap()").map(|(at, _)| at);
    let expects = source.uncommented.match_indices(".expect(").map(|(at, _)| at);
    let mute = expects.filter(|at| {
        let message = source.uncommented[at + ".expect(".len()..].trim_start();
        message.starts_with(')') || message.starts_with("\"\"")
    });
    unwraps.chain(mute).map(|offset| at(source, offset, "a panic without a reason")).collect()
}

fn stray_cuda(source: &Source) -> Vec<String> {
    if source.path.starts_with("pyrex-core/src/ops/") || source.path.starts_with("pyrex-kernels/") {
        return Vec::new();
    }
    let packed: String = source.uncommented.split(' ').collect();
    match packed.contains("feature=\"cuda\"") {
        true => vec![format!("{}: cfg(feature = \"cuda\") outside ops/", source.path)],
        false => Vec::new(),
    }
}

fn environment(source: &Source) -> Vec<String> {
    // What Cargo tells a build script comes in no other way, nor does what is told to a library in place of NVIDIA's.
    let is_told = source.path == DRIVER || source.path.ends_with("/build.rs");
    if source.path.starts_with("pyrex-cli/") || is_told {
        return Vec::new();
    }
    let what = "the environment is read below the command line";
    let reads = ["std::env", "env::var", "env::args"].into_iter().flat_map(|word| words(&source.code, word));
    reads.map(|offset| at(source, offset, what)).collect()
}

fn globals(source: &Source) -> Vec<String> {
    // A C function has one result; what went wrong in the last call on a thread is kept as errno is, and is read by nobody else.
    // CUDA has one driver of a process, and a current context of a thread. What a recording takes again is known to the call that
    // records and, under it, to each op, which has only its tensors to be told by.
    if ["pyrex-capi/src/status.rs", "pyrex-core/src/ops/cuda/memory.rs", DRIVER]
        .contains(&source.path.as_str())
    {
        return Vec::new();
    }
    let found = ["static mut", "thread_local!"].into_iter().flat_map(|word| source.code.match_indices(word));
    found.map(|(offset, _)| at(source, offset, "a mutable global")).collect()
}

const CORE: &str = "pyrex-core/src/x.rs";
const DRIVER: &str = "pyrex-emulator/driver/src/abi/mod.rs";

#[test]
fn files_have_at_most_500_lines() {
    let tests = "#[cfg(test)]\nmod tests {\n    \n}\n".replace("    \n", &"    // x\n".repeat(600));
    can_fail(long_files, CORE, &"fn f() {}\n".repeat(501), &("fn f() {}\n".repeat(400) + &tests));
    all(long_files);
}

#[test]
fn every_module_says_what_it_is_for() {
    can_fail(undocumented_modules, CORE, "use std::fs;\n", "//! Files.\n\nuse std::fs;\n");
    all(undocumented_modules);
}

#[test]
fn functions_have_at_most_60_lines() {
    let of =
        |num_lines: usize| format!("fn f<F: Fn() -> u8>() {{\n{}}}\n", "    g();\n".repeat(num_lines - 2));
    can_fail(long_functions, CORE, &of(61), &of(60));
    all(long_functions);
}

#[test]
fn functions_have_at_most_6_parameters() {
    let bad = "fn f<T>(a: u8, b: (u8, u8), c: F<A, B>, d: u8, e: u8, f: u8, g: u8) {}";
    let good = "fn f(&self, a: (u8, u8), b: F<A, B>, c: impl Fn(u8, u8) -> u8, d: u8, e: u8, f: &[u8],) {}";
    can_fail(wide_functions, CORE, bad, good);
    all(wide_functions);
}

#[test]
fn unsafe_stays_behind_its_fences() {
    can_fail(stray_unsafe, CORE, "fn f() { unsafe { g() } }", "#![deny(unsafe_code)] // unsafe\n");
    assert!(stray_unsafe(&Source::new("pyrex-core/src/ops/simd/avx.rs", "unsafe fn f() {}")).is_empty());
    all(stray_unsafe);
}

#[test]
fn every_panic_has_a_reason() {
    let good = "f().expect(\"why\"); // .unwrap()\n#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }";
    can_fail(mute_panics, CORE, "f().unwrap();", good);
    can_fail(mute_panics, CORE, "f().expect(\"\");", good);
    all(mute_panics);
}

#[test]
fn cuda_is_asked_for_in_ops_alone() {
    can_fail(
        stray_cuda,
        CORE,
        "#[cfg(feature = \"cuda\")] fn f() {}",
        "#[cfg(feature = \"test-util\")] fn f() {}",
    );
    assert!(
        stray_cuda(&Source::new("pyrex-core/src/ops/x.rs", "#[cfg(feature = \"cuda\")] fn f() {}"))
            .is_empty()
    );
    all(stray_cuda);
}

#[test]
fn the_environment_is_the_command_lines() {
    can_fail(environment, CORE, "let x = std::env::var(\"X\");", "let x = env!(\"CARGO_PKG_VERSION\");");
    all(environment);
}

#[test]
fn nothing_global_changes() {
    can_fail(globals, CORE, "static mut X: u8 = 0;", "static X: u8 = 0;");
    can_fail(globals, CORE, "thread_local! {}", "// thread_local! {}");
    all(globals);
}
