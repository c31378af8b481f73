//! [`BlockAllocator`]: which cache blocks are free, and how many hold each of the others.
//!
//! Free blocks wait in a queue. A block whose content may be wanted again joins at its end, any other at its front:
//! what is taken next is first what is worth nothing, then what has gone unused the longest.

/// Nobody's block, and the end of the queue.
const NONE: u32 = u32::MAX;

/// How soon a block that becomes free may be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Before all others: nothing in it is worth keeping.
    First,
    /// After all others: its content may be wanted again.
    Last,
}

/// The blocks of one group of layers, with a count of holders for each.
#[derive(Debug)]
pub struct BlockAllocator {
    blocks: Vec<Block>,
    front: u32,
    back: u32,
    num_free: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    holders: u32,
    /// Neighbours in the queue of free blocks.
    previous: u32,
    next: u32,
}

impl BlockAllocator {
    /// All blocks free.
    pub fn new(num_blocks: usize) -> Self {
        let block = Block { holders: 0, previous: NONE, next: NONE };
        let mut allocator = Self { blocks: vec![block; num_blocks], front: NONE, back: NONE, num_free: 0 };
        (0..num_blocks as u32).for_each(|block| allocator.enqueue(block, Reuse::Last));
        allocator
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks nobody holds.
    pub fn num_free(&self) -> usize {
        self.num_free
    }

    /// How many hold `block`.
    pub fn num_holders(&self, block: u32) -> u32 {
        self.blocks[block as usize].holders
    }

    /// The next free block, for one holder.
    pub fn take(&mut self) -> Option<u32> {
        let block = self.front;
        if block == NONE {
            return None;
        }
        self.dequeue(block);
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// One more holder for `block`, which may be free.
    pub fn share(&mut self, block: u32) {
        if self.num_holders(block) == 0 {
            self.dequeue(block);
        }
        self.blocks[block as usize].holders += 1;
    }

    /// One holder less for `block`; the last one makes it free.
    pub fn release(&mut self, block: u32, reuse: Reuse) {
        let holders = &mut self.blocks[block as usize].holders;
        debug_assert!(*holders > 0, "block {block} is released by somebody who does not hold it");
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            self.enqueue(block, reuse);
        }
    }

    fn enqueue(&mut self, block: u32, reuse: Reuse) {
        let (previous, next) = match reuse {
            Reuse::First => (NONE, self.front),
            Reuse::Last => (self.back, NONE),
        };
        let entry = &mut self.blocks[block as usize];
        (entry.previous, entry.next) = (previous, next);
        self.link(previous, next, (block, block));
        self.num_free += 1;
    }

    fn dequeue(&mut self, block: u32) {
        let Block { previous, next, .. } = self.blocks[block as usize];
        self.link(previous, next, (next, previous));
        self.num_free -= 1;
    }

    /// Makes `forward` follow `previous`, and `backward` come before `next`.
    fn link(&mut self, previous: u32, next: u32, (forward, backward): (u32, u32)) {
        match self.blocks.get_mut(previous as usize) {
            Some(block) => block.next = forward,
            None => self.front = forward,
        }
        match self.blocks.get_mut(next as usize) {
            Some(block) => block.previous = backward,
            None => self.back = backward,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(blocks: &mut BlockAllocator) -> Vec<u32> {
        std::iter::from_fn(|| blocks.take()).collect()
    }

    #[test]
    fn each_block_is_taken_once() {
        let mut blocks = BlockAllocator::new(4);
        assert_eq!(take_all(&mut blocks), [0, 1, 2, 3]);
        assert_eq!((blocks.num_free(), blocks.take()), (0, None));
    }

    #[test]
    fn worthless_blocks_go_first_and_the_longest_unused_next() {
        let mut blocks = BlockAllocator::new(5);
        let all = take_all(&mut blocks);
        for (block, reuse) in
            all.into_iter().zip([Reuse::Last, Reuse::First, Reuse::Last, Reuse::First, Reuse::Last])
        {
            blocks.release(block, reuse);
        }
        assert_eq!(take_all(&mut blocks), [3, 1, 0, 2, 4]);
    }

    #[test]
    fn a_shared_block_is_free_when_its_last_holder_lets_go() {
        let mut blocks = BlockAllocator::new(2);
        let block = blocks.take().expect("a block is free");
        blocks.share(block);
        blocks.release(block, Reuse::Last);
        assert_eq!((blocks.num_holders(block), blocks.num_free()), (1, 1));
        blocks.release(block, Reuse::Last);
        assert_eq!((blocks.num_holders(block), blocks.num_free()), (0, 2));
    }

    #[test]
    fn a_free_block_can_be_shared_from_anywhere_in_the_queue() {
        for wanted in 0..4 {
            let mut blocks = BlockAllocator::new(4);
            blocks.share(wanted);
            assert_eq!(blocks.num_free(), 3);
            let rest = take_all(&mut blocks);
            assert_eq!(rest, (0..4).filter(|block| *block != wanted).collect::<Vec<_>>());
        }
    }
}
