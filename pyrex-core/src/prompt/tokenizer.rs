//! Text to ids: the checkpoint's `tokenizer.json`, read by the `tokenizers` crate.
//!
//! Special tokens written in the text become their ids, as in the reference; nothing is ever added to it.
//! Who starts a sequence with which token is the family's business. Ids to text: [`detokenizer`](super::detokenizer).

use crate::error::{Error, Result};
use crate::prompt::detokenizer::Detokenizer;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How many bytes of normalized text one byte of text may become: published tokenizers make three of a space.
const MAX_GROWTH: usize = 64;

/// A tokenizer, cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    detokenizer: Detokenizer,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// `InvalidModel` if they are not a tokenizer; `Unsupported` if its decoder is not one that [`Detokenizer`] knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        // The crate indexes and unwraps its way through some malformed files, hence the guard.
        let read = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)));
        let mut inner = match read {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => return Err(Error::invalid_model(format_args!("tokenizer.json: {error}"))),
            Err(_) => {
                return Err(Error::invalid_model(
                    "tokenizer.json: the tokenizer it describes is inconsistent",
                ));
            }
        };
        // A file may carry the padding and truncation of whoever saved it; the reference resets both.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::invalid_model(format_args!("tokenizer.json: {e}")))?;
        let normalizer = serde_json::to_value(inner.get_normalizer()).unwrap_or_default();
        let growth = growth(&normalizer);
        if growth > MAX_GROWTH {
            return Err(Error::invalid_model(format_args!(
                "tokenizer.json: its normalizer may make a text {growth} times as long, expected at most {MAX_GROWTH}"
            )));
        }
        let inner = Arc::new(inner);
        let detokenizer = Detokenizer::new(Arc::clone(&inner))?;
        Ok(Self { inner, detokenizer })
    }

    /// The ids of `text`, with nothing added before or after.
    ///
    /// # Errors
    /// `InvalidRequest` if the text holds a character that the vocabulary has no way to write.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match catch_unwind(AssertUnwindSafe(|| self.inner.encode_fast(text, false))) {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(error)) => {
                Err(Error::invalid_request(format_args!("the text cannot be tokenized: {error}")))
            }
            Err(_) => Err(Error::invalid_model("tokenizer.json: its merges and vocabulary disagree")),
        }
    }

    /// The text of all of `ids` at once, special tokens left out.
    ///
    /// # Errors
    /// `InvalidModel` if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| Error::invalid_model(format_args!("tokenizer.json: {e}")))
    }

    /// The id of a token by its exact text.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text of one token as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A fresh stream from ids to text.
    pub fn detokenizer(&self) -> Detokenizer {
        self.detokenizer.clone()
    }
}

/// By how much replacements, one after another, may lengthen a text.
fn growth(normalizer: &Value) -> usize {
    if let Some(parts) = normalizer["normalizers"].as_array() {
        return parts.iter().map(growth).fold(1, usize::saturating_mul);
    }
    // A regular expression may match nothing, between any two bytes.
    let pattern_len = normalizer["pattern"]["String"].as_str().map_or(0, str::len);
    match normalizer["content"].as_str() {
        Some(content) if pattern_len > 0 => content.len().div_ceil(pattern_len).max(1),
        Some(content) => content.len().saturating_add(1),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn garbage_is_an_invalid_model() {
        let cases: [&[u8]; 7] = [
            b"",
            b"{}",
            b"null",
            b"\xff\xfe\x00",
            br#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
            br#"{"version":"9.9","model":{"type":"BPE","vocab":{},"merges":[]}}"#,
            br#"{"version":"1.0","added_tokens":[{"id":7}],"model":{"type":"BPE","vocab":{},"merges":[]}}"#,
        ];
        for bytes in cases {
            let error = Tokenizer::from_bytes(bytes).err().expect("garbage must not load");
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        }
        let nested = "[".repeat(1 << 20);
        assert_eq!(
            Tokenizer::from_bytes(nested.as_bytes()).err().map(|e| e.kind()),
            Some(ErrorKind::InvalidModel)
        );
    }
}
