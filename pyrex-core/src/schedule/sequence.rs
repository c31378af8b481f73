//! [`Sequence`]: one request on its way, as the scheduler sees it.

use super::blocks::BlockTable;
use std::ops::Range;

/// Names a sequence for as long as its engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// A prompt and what was generated after it, and how much of both the cache holds.
#[derive(Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// The prompt's tokens, then the generated ones.
    pub token_ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub num_prompt_tokens: usize,
    /// How many of them the cache holds.
    pub num_computed_tokens: usize,
    /// Where each image's placeholders lie in the prompt, in order.
    pub images: Vec<Range<usize>>,
    /// Its cache blocks; empty while it waits.
    pub block_table: BlockTable,
}

impl Sequence {
    /// A sequence of which nothing is computed.
    pub fn new(id: SequenceId, prompt: Vec<u32>, images: Vec<Range<usize>>) -> Self {
        Self {
            id,
            num_prompt_tokens: prompt.len(),
            token_ids: prompt,
            num_computed_tokens: 0,
            images,
            block_table: BlockTable::default(),
        }
    }

    /// How many tokens wait to be computed.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_computed_tokens
    }
}
