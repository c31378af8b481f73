//! [`BlockCache`]: what of the paged cache each sequence holds, and which prefixes it still remembers.
//!
//! Layers that forget alike form a group with blocks of its own (see [`kv`](crate::kv)). All that a sequence holds is one
//! [`Lease`], a block table per group. Full blocks can be found again by their content, while somebody holds them and
//! afterwards, until they are taken for something else.

use super::blocks::{BlockAllocator, Reuse};
use super::prefix::{Digests, PrefixIndex, Sealed};
use super::sequence::Sequence;

/// All that a sequence holds of the cache.
#[derive(Debug, Default)]
pub struct Lease {
    tables: Vec<BlockTable>,
}

/// The blocks of one group, in the order of the sequence's positions.
#[derive(Clone, Debug, Default)]
struct BlockTable {
    blocks: Vec<u32>,
    /// How many blocks at the beginning the window has passed: they are given back, and stand as zeros.
    num_passed: usize,
    /// How many blocks at the beginning are full, and known to the index as far as it wanted to.
    num_sealed: usize,
}

impl Lease {
    /// The block ids of each group, as a batch wants them.
    pub fn block_tables(&self) -> Vec<&[u32]> {
        self.tables.iter().map(|table| table.blocks.as_slice()).collect()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The blocks held in each group.
    #[cfg(test)]
    pub(super) fn held(&self) -> impl Iterator<Item = &[u32]> {
        self.tables.iter().map(|table| &table.blocks[table.num_passed..])
    }
}

/// A block whose content must be copied before a step writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// The group of layers.
    pub group: usize,
    /// Where the content is.
    pub from: u32,
    /// Where it is written on.
    pub to: u32,
}

/// The blocks of one group of layers.
#[derive(Debug)]
struct Group {
    window: Option<usize>,
    blocks: BlockAllocator,
    index: PrefixIndex,
}

/// How the blocks of one group stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Blocks in all.
    pub num_blocks: usize,
    /// Blocks nobody holds, those with a remembered prefix included.
    pub num_free: usize,
    /// Blocks, held or not, whose content a new prompt could find.
    pub num_cached: usize,
}

/// The accounting of the paged cache.
pub struct BlockCache {
    groups: Vec<Group>,
    block_size: usize,
    digests: Digests,
    remembers: bool,
}

impl BlockCache {
    /// An empty cache: for each group its window and its number of blocks. `remembers`: whether prefixes are shared.
    pub fn new(
        groups: &[(Option<usize>, usize)],
        block_size: usize,
        digests: Digests,
        remembers: bool,
    ) -> Self {
        let group = |&(window, num_blocks): &(Option<usize>, usize)| Group {
            window,
            blocks: BlockAllocator::new(num_blocks),
            index: PrefixIndex::default(),
        };
        Self { groups: groups.iter().map(group).collect(), block_size, digests, remembers }
    }

    /// How the blocks of each group stand.
    pub fn counts(&self) -> Vec<BlockCounts> {
        let counts = |group: &Group| BlockCounts {
            num_blocks: group.blocks.num_blocks(),
            num_free: group.blocks.num_free(),
            num_cached: group.index.len(),
        };
        self.groups.iter().map(counts).collect()
    }

    /// Whether all that `sequence` has still to compute, at most `chunk` tokens at a time, has room, and `spare` more blocks
    /// in each group.
    pub fn has_room(&self, sequence: &Sequence, chunk: usize, spare: usize) -> bool {
        self.groups.iter().zip(&sequence.lease.tables).all(|(group, table)| {
            let most = most_blocks(group.window, sequence.token_ids.len(), chunk, self.block_size);
            let held = table.blocks.len() - table.num_passed;
            most.saturating_sub(held) + spare <= group.blocks.num_free()
        })
    }

    /// Begins a sequence that holds nothing: lends it the longest prefix of its tokens that is remembered, all but its last token at
    /// most. Returns how many tokens that is.
    pub fn adopt(&mut self, sequence: &mut Sequence) -> usize {
        debug_assert!(sequence.lease.is_empty(), "a sequence adopts a prefix before it computes anything");
        let num_blocks = if self.remembers { self.longest_prefix(sequence) } else { 0 };
        let sealed = &sequence.sealed[..num_blocks];
        let adopt = |group: &mut Group| {
            let num_passed = group.num_passed(num_blocks * self.block_size, self.block_size);
            let mut table = BlockTable { blocks: vec![0; num_passed], num_passed, num_sealed: num_blocks };
            for sealed in &sealed[num_passed..] {
                let Some(block) = group.index.find(sealed) else { break };
                group.blocks.share(block);
                table.blocks.push(block);
            }
            table
        };
        sequence.lease.tables = self.groups.iter_mut().map(adopt).collect();
        sequence.num_computed_tokens = num_blocks * self.block_size;
        sequence.num_computed_tokens
    }

    /// The most full blocks at the beginning of `sequence` that every group still needs and remembers.
    fn longest_prefix(&self, sequence: &mut Sequence) -> usize {
        self.seal(sequence);
        let usable = sequence.token_ids.len().saturating_sub(1) / self.block_size;
        let sealed = &sequence.sealed[..usable];
        // For each group and length, how many of the last blocks before it are remembered without a gap.
        let runs = |group: &Group| {
            let next = |run: &mut usize, sealed: &Sealed| {
                *run = if group.index.find(sealed).is_some() { *run + 1 } else { 0 };
                Some(*run)
            };
            sealed.iter().scan(0, next).collect::<Vec<usize>>()
        };
        let runs: Vec<_> = self.groups.iter().map(|group| (group, runs(group))).collect();
        let remembered = |&len: &usize| {
            runs.iter().all(|(group, run)| {
                run[len - 1] >= len - group.num_passed(len * self.block_size, self.block_size)
            })
        };
        (1..=usable).rev().find(remembered).unwrap_or(0)
    }

    fn seal(&self, sequence: &mut Sequence) {
        let Sequence { sealed, root, token_ids, images, .. } = sequence;
        self.digests.seal(sealed, *root, token_ids, images, self.block_size);
    }

    /// Makes room for the tokens of a `sequence` that has begun, up to `end`, in blocks that nobody else reads; what must be
    /// copied first is added to `copies`. Takes all it needs and returns true, or nothing and false.
    pub fn reserve(&mut self, sequence: &mut Sequence, end: usize, copies: &mut Vec<BlockCopy>) -> bool {
        let (first, num_blocks) = (sequence.num_computed_tokens, end.div_ceil(self.block_size));
        let open = first / self.block_size;
        let pairs = || self.groups.iter().zip(&sequence.lease.tables);
        let fits = pairs().all(|(group, table)| {
            let copied = usize::from(group.is_shared(table, open));
            num_blocks.saturating_sub(table.blocks.len()) + copied <= group.blocks.num_free()
        });
        if !fits {
            return false;
        }
        for (idx, (group, table)) in self.groups.iter_mut().zip(&mut sequence.lease.tables).enumerate() {
            if group.is_shared(table, open)
                && let Some(to) = group.take()
            {
                let from = std::mem::replace(&mut table.blocks[open], to);
                group.release(from);
                copies.push(BlockCopy { group: idx, from, to });
            }
            let missing = num_blocks.saturating_sub(table.blocks.len());
            table.blocks.extend(std::iter::from_fn(|| group.take()).take(missing));
        }
        true
    }

    /// Notes that `sequence` is computed as far as it says: full blocks can be found from now on, and what the windows have
    /// passed is given back.
    pub fn commit(&mut self, sequence: &mut Sequence) {
        if self.remembers {
            self.seal(sequence);
        }
        let num_full = (sequence.num_computed_tokens / self.block_size).min(sequence.sealed.len());
        for (group, table) in self.groups.iter_mut().zip(&mut sequence.lease.tables) {
            for idx in table.num_sealed..num_full {
                group.index.insert(&sequence.sealed[idx], table.blocks[idx]);
            }
            table.num_sealed = table.num_sealed.max(num_full);
            let num_passed = group.num_passed(sequence.num_computed_tokens, self.block_size);
            for block in &mut table.blocks[table.num_passed.min(num_passed)..num_passed] {
                group.release(std::mem::take(block));
            }
            table.num_passed = num_passed;
        }
    }

    /// Takes back all that `sequence` holds; nothing of it counts as computed any more.
    pub fn release(&mut self, sequence: &mut Sequence) {
        let lease = std::mem::take(&mut sequence.lease);
        sequence.num_computed_tokens = 0;
        for (group, table) in self.groups.iter_mut().zip(lease.tables) {
            // The end first: a prefix is of use without it, it is of none without the prefix.
            table.blocks[table.num_passed..].iter().rev().for_each(|block| group.release(*block));
        }
    }

    /// A second lease on all that is computed of `sequence`. What is only reserved stays its own: both would write there.
    pub fn share(&mut self, sequence: &Sequence) -> Lease {
        let num_blocks = sequence.num_computed_tokens.div_ceil(self.block_size);
        let share = |(group, table): (&mut Group, &BlockTable)| {
            let blocks = table.blocks[..num_blocks].to_vec();
            blocks[table.num_passed..].iter().for_each(|block| group.blocks.share(*block));
            BlockTable { blocks, ..*table }
        };
        Lease { tables: self.groups.iter_mut().zip(&sequence.lease.tables).map(share).collect() }
    }
}

impl Group {
    /// How many blocks the window has passed when the next token is number `position`.
    fn num_passed(&self, position: usize, block_size: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window) / block_size)
    }

    fn is_shared(&self, table: &BlockTable, idx: usize) -> bool {
        table.blocks.get(idx).is_some_and(|block| self.blocks.num_holders(*block) > 1)
    }

    fn take(&mut self) -> Option<u32> {
        let block = self.blocks.take()?;
        self.index.forget(block);
        Some(block)
    }

    fn release(&mut self, block: u32) {
        let reuse = if self.index.knows(block) { Reuse::Last } else { Reuse::First };
        self.blocks.release(block, reuse);
    }
}

/// The most blocks that one sequence of `num_tokens` tokens holds at once in a group with this window, when at most `chunk`
/// tokens are computed in a step.
pub fn most_blocks(window: Option<usize>, num_tokens: usize, chunk: usize, block_size: usize) -> usize {
    let seen = window.map_or(num_tokens, |window| num_tokens.min(window.saturating_add(chunk)));
    // A span that begins inside a block reaches into one more.
    let partial = usize::from(seen < num_tokens);
    (seen.div_ceil(block_size) + partial).min(num_tokens.div_ceil(block_size))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
