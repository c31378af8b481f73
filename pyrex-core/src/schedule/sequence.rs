//! [`Sequence`]: one completion on its way, as the scheduler sees it.

use super::cache::Lease;
use super::prefix::{Digest, Sealed};
use std::cmp::Reverse;
use std::ops::Range;

/// Names a sequence for as long as its engine lives. Their order is the order of service: the higher priority first, then
/// first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    /// The request's priority, higher first.
    pub priority: Reverse<i8>,
    /// The request, numbered as they came.
    pub request: u64,
    /// Which of the request's completions.
    pub index: u32,
}

/// An image in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpan {
    /// Where its placeholders lie.
    pub tokens: Range<usize>,
    /// What it shows, and how it was prepared.
    pub digest: Digest,
}

/// A prompt and what was generated after it, and how much of both the cache holds.
#[derive(Debug)]
pub struct Sequence {
    /// Its name and its place.
    pub id: SequenceId,
    /// The prompt's tokens, then the generated ones.
    pub token_ids: Vec<u32>,
    /// The images of the prompt, in order.
    pub images: Vec<ImageSpan>,
    /// How many of the tokens the cache holds.
    pub num_computed_tokens: usize,
    /// Nobody reads its tokens: it is not planned.
    pub paused: bool,
    /// Its last token was drawn and is not known yet; something else stands in its place.
    pub(super) awaits_token: bool,
    /// All that it holds of the cache; nothing while it waits.
    pub(super) lease: Lease,
    /// Digests of its full blocks, from the first on.
    pub(super) sealed: Vec<Sealed>,
    /// What every digest begins with.
    pub(super) root: Digest,
}

impl Sequence {
    /// A sequence of which nothing is computed. Only sequences of the same `root` share blocks.
    pub fn new(id: SequenceId, prompt: Vec<u32>, images: Vec<ImageSpan>, root: Digest) -> Self {
        Self {
            id,
            token_ids: prompt,
            images,
            num_computed_tokens: 0,
            paused: false,
            awaits_token: false,
            lease: Lease::default(),
            sealed: Vec::new(),
            root,
        }
    }

    /// How many tokens wait to be computed.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_computed_tokens
    }

    /// The cache blocks it holds in each group of layers, as a batch wants them.
    pub fn block_tables(&self) -> Vec<&[u32]> {
        self.lease.block_tables()
    }

    /// Whether it holds any of the cache.
    pub fn is_running(&self) -> bool {
        !self.lease.is_empty()
    }

    /// Whether its last token was drawn and is not known yet.
    pub fn awaits_token(&self) -> bool {
        self.awaits_token
    }

    /// Whether it can be planned: somebody reads it, and to begin it knows all of its tokens.
    pub(super) fn is_ready(&self) -> bool {
        !self.paused && (self.is_running() || !self.awaits_token)
    }

    /// Whether all but its last token is computed.
    pub(super) fn is_decoding(&self) -> bool {
        self.is_running() && self.num_pending_tokens() == 1
    }

    /// The same tokens and images under another name, holding `lease`.
    pub(super) fn fork(&self, id: SequenceId, lease: Lease) -> Self {
        Self {
            id,
            token_ids: self.token_ids.clone(),
            images: self.images.clone(),
            num_computed_tokens: self.num_computed_tokens,
            paused: self.paused,
            awaits_token: self.awaits_token,
            lease,
            sealed: self.sealed.clone(),
            root: self.root,
        }
    }
}
