//! Ids to text, one at a time, never half a character.

/// A stream from ids to text.
#[derive(Clone, Debug)]
pub struct Detokenizer {}

impl Detokenizer {
    /// Takes the next id and returns the text that is now certain, possibly none.
    pub fn push(&mut self, _id: u32) -> String {
        String::new()
    }

    /// The text that was held back when the stream ends.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
