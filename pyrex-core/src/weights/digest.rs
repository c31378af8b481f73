//! SHA-256 as hexadecimal digits: which tensors of two checkpoints are the same.

use super::files::Files;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

/// The digest of the bytes of every tensor, as its file has them, by name.
pub fn of_tensors(files: &Files) -> BTreeMap<String, String> {
    let names: Vec<&str> = files.names().collect();
    let digest = |name: &&str| (name.to_string(), sha256(files.bytes(name).unwrap_or_default()));
    names.par_iter().map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_standard_ones() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
