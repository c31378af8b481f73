//! [`Keys`]: the file of API keys.
//!
//! One key per line, `name:key`, or `name:sha256:` and the 64 hexadecimal digits of its SHA-256. Empty lines and those that
//! begin with `#` say nothing. A file that holds keys themselves must not be readable for everybody. Memory holds digests
//! only, and a key is compared with all of them in constant time.

use crate::config::unlike_a_name;
use pyrex_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::path::Path;
use subtle::{Choice, ConstantTimeEq};

/// The shortest key: 16 random letters can not be guessed over a network.
const MIN_KEY_CHARS: usize = 16;

type KeyDigest = [u8; 32];

/// The names of keys, and what they are compared by.
#[derive(Default)]
pub(crate) struct Keys {
    known: Vec<(String, KeyDigest)>,
}

impl Keys {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || {
            let text = std::fs::read_to_string(path).map_err(Error::io)?;
            let (keys, holds_secrets) = Self::parse(&text)?;
            if holds_secrets {
                refuse_open_file(path)?
            }
            Ok(keys)
        };
        read().map_err(|error: Error| error.context(path.display()))
    }

    /// Reads the lines; also whether one of them holds a key itself.
    fn parse(text: &str) -> Result<(Self, bool)> {
        let (mut keys, mut holds_secrets) = (Self::default(), false);
        for (line_idx, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong =
                |what: &dyn Display| Error::invalid_request(format_args!("line {}: {what}", line_idx + 1));
            let (name, key) = line.split_once(':').ok_or_else(|| wrong(&"no `:`, expected `name:key`"))?;
            if let Some(what) = unlike_a_name(name) {
                return Err(wrong(&format_args!("what stands before the `:` {what}")));
            }
            let hashed = key.strip_prefix("sha256:");
            let digest =
                hashed.map_or_else(|| digest_of_key(key), digest_of_hex).map_err(|what| wrong(&what))?;
            if let Some((other, _)) = keys.known.iter().find(|(other, held)| other == name || *held == digest)
            {
                return Err(wrong(&format_args!("the name or the key of `{other}` again, expected another")));
            }
            holds_secrets |= hashed.is_none();
            keys.known.push((name.to_owned(), digest));
        }
        Ok((keys, holds_secrets))
    }

    /// The name of a key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&str> {
        let digest = KeyDigest::from(Sha256::digest(key));
        let mut found = None;
        for (name, known) in &self.known {
            let same: Choice = known.ct_eq(&digest);
            if same.into() {
                found = Some(name.as_str());
            }
        }
        found
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.known.iter().any(|(known, _)| known == name)
    }
}

/// Without any word of the key in what is wrong with it.
fn digest_of_key(key: &str) -> Result<KeyDigest, &'static str> {
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key with other than visible ASCII, expected one that fits into a header");
    }
    if key.len() < MIN_KEY_CHARS {
        return Err("a key that could be guessed, expected at least 16 characters");
    }
    Ok(Sha256::digest(key).into())
}

fn digest_of_hex(hex: &str) -> Result<KeyDigest, &'static str> {
    let wrong = "no digest behind `sha256:`, expected 64 hexadecimal digits";
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Vec<u8> =
        digits.ok_or(wrong)?.chunks(2).map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d)).collect();
    match hex.len() {
        64 => bytes.try_into().map_err(|_| wrong),
        _ => Err(wrong),
    }
}

#[cfg(unix)]
fn refuse_open_file(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = std::fs::metadata(path).map_err(Error::io)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(Error::invalid_request(format_args!(
            "holds keys and has mode {mode:03o}, expected one that keeps others out, such as 640, or keys as `name:sha256:hex`"
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_open_file(_path: &Path) -> Result<()> {
    Ok(())
}
