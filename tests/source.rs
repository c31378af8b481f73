//! Reading Rust sources as a test does: which files there are, and their code without comments, literals and tests.
//!
//! A few hundred lines of lexer instead of a parser: enough for the checks in `layering.rs` and `tidy.rs`.

#![allow(dead_code, reason = "each of the two tests uses its own half")]

use std::fs;
use std::path::{Path, PathBuf};

/// One source file, as it is and in the shapes that checks want. All three texts have the same lines and offsets.
pub(crate) struct Source {
    /// Its path from the root of the repository.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without tests and comments.
    pub(crate) uncommented: String,
    /// Without tests, comments and what stands in literals.
    pub(crate) code: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The sources of every crate whose folder begins with `pyrex-`.
pub(crate) fn crates() -> Vec<Source> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root()).expect("the repository is readable").flatten() {
        if entry.file_name().to_string_lossy().starts_with("pyrex-") {
            collect(&entry.path().join("src"), &mut paths);
            collect(&entry.path().join("driver/src"), &mut paths);
        }
    }
    paths.sort();
    paths.iter().map(|path| Source::read(path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("sources are UTF-8");
        let path = path.strip_prefix(root()).expect("the path begins with the root");
        Self::new(&path.to_string_lossy(), &text)
    }

    pub(crate) fn new(path: &str, text: &str) -> Self {
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let uncommented = blank(text, Blank::Comments);
        let code = blank(text, Blank::CommentsAndLiterals);
        let spans = match is_test {
            true => std::iter::once(0..text.len()).collect(),
            false => test_spans(&code),
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            uncommented: erase(&uncommented, &spans),
            code: erase(&code, &spans),
        }
    }

    /// The line, counted from one, that holds byte `offset`.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        1 + self.text[..offset].matches('\n').count()
    }
}

/// Every place where `word` stands for itself and not within a longer name.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(in_name) && !code[at + word.len()..].starts_with(in_name))
}

/// The offset just behind the bracket that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

#[derive(Clone, Copy, PartialEq)]
enum Blank {
    Comments,
    CommentsAndLiterals,
}

/// Replaces what is asked for by spaces, byte for byte; line ends stay.
fn blank(text: &str, what: Blank) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while at < text.len() {
        let (kind, end) = token(text, at);
        let erased = match kind {
            Token::Comment => true,
            Token::Literal => what == Blank::CommentsAndLiterals,
            Token::Code => false,
        };
        if erased {
            erase_bytes(&mut out[at..end]);
        }
        at = end;
    }
    String::from_utf8(out).expect("whole tokens are erased")
}

fn erase(code: &str, spans: &[std::ops::Range<usize>]) -> String {
    let mut out = code.as_bytes().to_vec();
    spans.iter().for_each(|span| erase_bytes(&mut out[span.clone()]));
    String::from_utf8(out).expect("whole items are erased")
}

fn erase_bytes(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

enum Token {
    Code,
    Comment,
    Literal,
}

/// What begins at `at`, and where it ends.
fn token(text: &str, at: usize) -> (Token, usize) {
    let rest = &text[at..];
    let first = rest.chars().next().expect("at is before the end");
    if rest.starts_with("//") {
        return (Token::Comment, at + rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Token::Comment, at + rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    let in_name = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let len = match first {
        '"' => Some(string_len(rest)),
        'r' if !in_name || text[..at].ends_with('b') => raw_string_len(rest),
        '\'' => char_len(rest),
        _ => None,
    };
    match len {
        Some(len) => (Token::Literal, at + len),
        None => (Token::Code, at + first.len_utf8()),
    }
}

fn string_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#`, if that is what it is.
fn raw_string_len(rest: &str) -> Option<usize> {
    let num_hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
    let inside = rest[1 + num_hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(num_hashes));
    let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
    Some(2 + num_hashes + end)
}

/// A character, if it is not the name of a lifetime.
fn char_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, c) = chars.next()?;
    if c == '\\' {
        chars.next();
        return rest[3..].find('\'').map(|end| end + 4);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

/// Where `#[cfg(test)]` items lie.
fn test_spans(code: &str) -> Vec<std::ops::Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let item_end = |start: usize| {
        let body = code[start..].find(['{', ';']).map_or(code.len(), |at| start + at);
        if code[body..].starts_with('{') { closing(code, body) } else { (body + 1).min(code.len()) }
    };
    code.match_indices(MARK).map(|(start, _)| start..item_end(start + MARK.len())).collect()
}

#[test]
fn literals_and_comments_are_told_from_code() {
    let check = |text: &str, expected: &str| {
        let code = Source::new("pyrex-x/src/x.rs", text).code;
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
    };
    check("a(\"//\\\" b\"); // c\nd", "a( ); d");
    check("a(r#\"b\"c\"#, 'x', '\\'', '\\u{1f}', br\"d\")", "a( , , , , b )");
    check("fn f<'a>(x: &'a str) {} /* g */ h", "fn f<'a>(x: &'a str) {} h");
    check("a;\n#[cfg(test)]\nmod tests { fn f() { \"}\" } }\nb", "a; b");
    check("a;\n#[cfg(test)]\nmod tests;\nb", "a; b");
}
