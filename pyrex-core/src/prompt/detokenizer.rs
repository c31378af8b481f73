//! Ids to text, one at a time, never half a character.
//!
//! The pieces put together always equal the reference's decoding of all ids at once, special tokens skipped.
//! With byte fallback that means holding a run of byte tokens back until its end is known: if all of the run is
//! valid UTF-8 it is that text, otherwise every byte of it is one U+FFFD.

use crate::error::{Error, Result};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Above every model's: a tokenizer may claim the id 2³² − 1, and a list of what each id says ends before that.
const MAX_IDS: u32 = 1 << 20;
const REPLACEMENT: &str = "\u{fffd}";

/// A stream from ids to text. A clone taken before the first [`push`](Self::push) is a fresh stream.
#[derive(Clone)]
pub struct Detokenizer {
    vocabulary: Vocabulary,
    run: ByteRun,
}

#[derive(Clone)]
enum Vocabulary {
    Tokenizer(Arc<tokenizers::Tokenizer>),
    Pieces(Arc<[String]>),
}

/// What a token says as bytes; `None` if it says nothing, as special tokens do.
pub type TokenBytes = Option<Box<[u8]>>;

/// What a token says.
enum Piece {
    Text(String),
    Byte(u8),
    Nothing,
}

/// The byte tokens since the last text token.
#[derive(Clone, Default)]
enum ByteRun {
    #[default]
    Empty,
    /// Valid so far, perhaps in the middle of a character; nothing of it was given out.
    Held(Vec<u8>),
    /// Not valid whatever follows; each of its bytes was given out as U+FFFD.
    Broken,
}

impl Detokenizer {
    /// A stream over the vocabulary of `tokenizer`.
    ///
    /// # Errors
    /// `Unsupported` if the tokenizer's decoder is not made of `Replace`, `ByteFallback` and `Fuse`.
    pub fn new(tokenizer: Arc<tokenizers::Tokenizer>) -> Result<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder())
            .map_err(|e| Error::invalid_model(format_args!("tokenizer.json: decoder: {e}")))?;
        let kinds = decoder_kinds(&decoder);
        let known = |kind: &&str| matches!(*kind, "Replace" | "ByteFallback" | "Fuse");
        if !kinds.iter().all(known) || !kinds.contains(&"ByteFallback") {
            return Err(Error::unsupported(format_args!(
                "tokenizer.json: the decoder is {kinds:?}, expected Replace, ByteFallback and Fuse"
            )));
        }
        Ok(Self { vocabulary: Vocabulary::Tokenizer(tokenizer), run: ByteRun::Empty })
    }

    /// A stream over a plain list: id `i` is `pieces[i]`, where `<0xNN>` is a byte and an empty
    /// piece says nothing. For models without a tokenizer file.
    pub fn from_pieces(pieces: Arc<[String]>) -> Self {
        Self { vocabulary: Vocabulary::Pieces(pieces), run: ByteRun::Empty }
    }

    /// Takes the next id and returns the text that is now certain, possibly none.
    pub fn push(&mut self, id: u32) -> String {
        match self.vocabulary.piece(id) {
            Piece::Nothing => String::new(),
            Piece::Byte(byte) => self.run.push(byte),
            Piece::Text(text) => self.finish() + &text,
        }
    }

    /// What every id says, by id: its bytes, or nothing for special tokens and ids that the vocabulary does not have.
    pub fn vocabulary(&self) -> Vec<TokenBytes> {
        (0..self.vocabulary.num_ids()).map(|id| self.vocabulary.piece(id).into_bytes()).collect()
    }

    /// What one id says, wherever it stands.
    pub fn token_bytes(&self, id: u32) -> TokenBytes {
        self.vocabulary.piece(id).into_bytes()
    }

    /// Whether an id says nothing, as special tokens do.
    pub fn is_silent(&self, id: u32) -> bool {
        matches!(self.vocabulary.piece(id), Piece::Nothing)
    }

    /// The text that was held back when the stream ends.
    pub fn finish(&mut self) -> String {
        match std::mem::take(&mut self.run) {
            ByteRun::Empty | ByteRun::Broken => String::new(),
            ByteRun::Held(bytes) => {
                let num_bytes = bytes.len();
                String::from_utf8(bytes).unwrap_or_else(|_| REPLACEMENT.repeat(num_bytes))
            }
        }
    }
}

impl ByteRun {
    fn push(&mut self, byte: u8) -> String {
        let mut bytes = match std::mem::take(self) {
            Self::Broken => {
                *self = Self::Broken;
                return REPLACEMENT.to_owned();
            }
            Self::Held(bytes) => bytes,
            Self::Empty => Vec::new(),
        };
        bytes.push(byte);
        // A character has at most four bytes, and all but the last three were checked when they came.
        let tail = bytes.len().saturating_sub(4);
        let start = (tail..bytes.len()).find(|&i| bytes[i] & 0xc0 != 0x80).unwrap_or(tail);
        match std::str::from_utf8(&bytes[start..]) {
            Err(error) if error.error_len().is_some() => {
                *self = Self::Broken;
                REPLACEMENT.repeat(bytes.len())
            }
            _ => {
                *self = Self::Held(bytes);
                String::new()
            }
        }
    }
}

impl Piece {
    fn into_bytes(self) -> TokenBytes {
        match self {
            Self::Text(text) => Some(text.into_bytes().into()),
            Self::Byte(byte) => Some([byte].into()),
            Self::Nothing => None,
        }
    }
}

impl Vocabulary {
    /// One more than the highest id.
    fn num_ids(&self) -> u32 {
        match self {
            Self::Pieces(pieces) => pieces.len() as u32,
            Self::Tokenizer(tokenizer) => {
                let ids = tokenizer.get_vocab(true).into_values().filter(|id| *id < MAX_IDS);
                ids.max().map_or(0, |id| id + 1)
            }
        }
    }

    fn piece(&self, id: u32) -> Piece {
        match self {
            Self::Pieces(pieces) => match pieces.get(id as usize) {
                Some(piece) if piece.is_empty() => Piece::Nothing,
                None => Piece::Nothing,
                Some(piece) => byte_token(piece).map_or_else(|| Piece::Text(piece.clone()), Piece::Byte),
            },
            Self::Tokenizer(tokenizer) => {
                let added = tokenizer.get_added_vocabulary();
                let token = added.simple_id_to_token(id).or_else(|| tokenizer.id_to_token(id));
                match token {
                    Some(token) if !added.is_special_token(&token) => match byte_token(&token) {
                        Some(byte) => Piece::Byte(byte),
                        None => Piece::Text(tokenizer.decode(&[id], true).unwrap_or_default()),
                    },
                    _ => Piece::Nothing,
                }
            }
        }
    }
}

fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if token.len() == 6 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn decoder_kinds(decoder: &Value) -> Vec<&str> {
    match decoder["decoders"].as_array() {
        Some(decoders) => decoders.iter().flat_map(decoder_kinds).collect(),
        None => decoder["type"].as_str().into_iter().collect(),
    }
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match &self.run {
            ByteRun::Empty | ByteRun::Broken => 0,
            ByteRun::Held(bytes) => bytes.len(),
        };
        f.debug_struct("Detokenizer").field("held_bytes", &held).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(ids: &[u32]) -> Vec<String> {
        let pieces: Vec<String> =
            (0..256).map(|byte| format!("<0x{byte:02X}>")).chain(["a".into(), " b".into()]).collect();
        let mut detokenizer = Detokenizer::from_pieces(pieces.into());
        let mut parts: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
        parts.push(detokenizer.finish());
        parts
    }

    #[test]
    fn the_vocabulary_is_what_every_id_says() {
        let pieces = ["<0xC3>", "a", "", " b"].map(String::from);
        let vocabulary = Detokenizer::from_pieces(pieces.into()).vocabulary();
        let says = |text: &[u8]| Some(Box::from(text));
        assert_eq!(vocabulary, [says(b"\xc3"), says(b"a"), None, says(b" b")]);
    }

    #[test]
    fn a_character_comes_whole_when_its_run_ends() {
        assert_eq!(stream(&[0xc3, 0xa9, 256]), ["", "", "éa", ""]);
        assert_eq!(stream(&[0xf0, 0x9f, 0x98, 0x80]), ["", "", "", "", "😀"]);
        assert_eq!(stream(&[256, 999, 257]), ["a", "", " b", ""]);
    }

    #[test]
    fn a_broken_run_is_one_replacement_per_byte() {
        assert_eq!(stream(&[0xc3, 0xa9, 0xff]).concat(), "\u{fffd}".repeat(3));
        assert_eq!(stream(&[0xc3, 256]).concat(), "\u{fffd}a");
        assert_eq!(stream(&[0x80, 0x41, 256, 0x41]), ["\u{fffd}", "\u{fffd}", "a", "", "A"]);
        assert_eq!(stream(&[0xe2, 0x82, 0x41, 0x42]).concat(), "\u{fffd}".repeat(4));
    }
}
