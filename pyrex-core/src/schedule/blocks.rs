//! [`BlockAllocator`]: which cache blocks are free, and [`BlockTable`]: which ones a sequence holds.

/// The blocks one sequence holds, in the order of its positions.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<u32>,
}

impl BlockTable {
    /// The block ids, as a batch wants them.
    pub fn as_slice(&self) -> &[u32] {
        &self.blocks
    }
}

/// A free list over `num_blocks` blocks of `block_size` slots each.
#[derive(Debug)]
pub struct BlockAllocator {
    free: Vec<u32>,
    num_blocks: usize,
    block_size: usize,
}

impl BlockAllocator {
    /// All blocks free.
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        Self { free: (0..num_blocks as u32).rev().collect(), num_blocks, block_size }
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Blocks nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Adds blocks to `table` until it holds `num_tokens` tokens. Takes all it needs and returns true, or nothing and false.
    pub fn grow(&mut self, table: &mut BlockTable, num_tokens: usize) -> bool {
        let missing = num_tokens.div_ceil(self.block_size).saturating_sub(table.blocks.len());
        if missing > self.free.len() {
            return false;
        }
        let taken = self.free.drain(self.free.len() - missing..);
        table.blocks.extend(taken.rev());
        true
    }

    /// Takes back every block of `table`.
    pub fn release(&mut self, table: BlockTable) {
        self.free.extend(table.blocks.into_iter().rev());
        debug_assert!(self.free.len() <= self.num_blocks, "a block was released twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_table_grows_by_whole_blocks_and_only_when_needed() {
        let mut blocks = BlockAllocator::new(4, 16);
        let mut table = BlockTable::default();
        for (num_tokens, expected) in [(0, 0), (1, 1), (16, 1), (17, 2), (5, 2), (64, 4)] {
            assert!(blocks.grow(&mut table, num_tokens));
            assert_eq!(table.as_slice().len(), expected, "{num_tokens} tokens");
        }
        assert_eq!(blocks.num_free(), 0);
    }

    #[test]
    fn a_table_that_does_not_fit_takes_nothing() {
        let mut blocks = BlockAllocator::new(3, 16);
        let (mut one, mut other) = (BlockTable::default(), BlockTable::default());
        assert!(blocks.grow(&mut one, 20));
        assert!(!blocks.grow(&mut other, 17));
        assert_eq!((blocks.num_free(), other.as_slice().len()), (1, 0));
    }

    #[test]
    fn no_block_has_two_holders_and_all_come_back() {
        let mut blocks = BlockAllocator::new(64, 16);
        let mut tables: Vec<BlockTable> = Vec::new();
        let mut state = 7u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let draw = (state >> 33) as usize;
            if draw.is_multiple_of(3) && !tables.is_empty() {
                blocks.release(tables.swap_remove(draw % tables.len()));
            } else {
                let mut table = BlockTable::default();
                blocks.grow(&mut table, draw % 100);
                tables.push(table);
            }
            let held: Vec<u32> = tables.iter().flat_map(|table| table.as_slice()).copied().collect();
            assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), held.len());
            assert_eq!(held.len() + blocks.num_free(), blocks.num_blocks());
        }
    }
}
