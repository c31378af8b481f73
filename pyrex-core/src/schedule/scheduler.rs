//! [`Scheduler`]: who runs next, and how much of it. First come, first served, one at a time.
//!
//! There is one kind of work: the tokens of a sequence that the cache does not hold yet. A long prompt is cut into
//! chunks of at most `max_batch_tokens`; a decode step is the chunk of one token that sampling has just added.

use super::blocks::BlockAllocator;
use super::sequence::{Sequence, SequenceId};
use std::collections::VecDeque;
use std::ops::Range;

/// What one step runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One per sequence that takes part, in the order of the batch.
    pub chunks: Vec<PlannedChunk>,
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChunk {
    /// Whose.
    pub sequence_id: SequenceId,
    /// Which of its tokens.
    pub positions: Range<usize>,
    /// Which of its images must be encoded first, by index.
    pub images: Range<usize>,
    /// Whether they are its last, so that the next token can be chosen.
    pub samples: bool,
}

/// The sequences of one engine, and the cache blocks they share.
#[derive(Debug)]
pub struct Scheduler {
    max_batch_tokens: usize,
    waiting: VecDeque<Sequence>,
    running: Option<Sequence>,
    blocks: BlockAllocator,
}

impl Scheduler {
    /// An empty scheduler. `max_batch_tokens` is at least one.
    pub fn new(max_batch_tokens: usize, blocks: BlockAllocator) -> Self {
        Self { max_batch_tokens: max_batch_tokens.max(1), waiting: VecDeque::new(), running: None, blocks }
    }

    /// Puts a sequence at the end of the queue.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Chooses the next step's work and reserves the cache slots for it; empty if there is nothing to do.
    pub fn plan(&mut self) -> Plan {
        if self.running.is_none() {
            self.running = self.waiting.pop_front();
        }
        let Some(sequence) = &mut self.running else { return Plan::default() };
        let start = sequence.num_computed_tokens;
        let end = start + sequence.num_pending_tokens().min(self.max_batch_tokens);
        if start == end || !self.blocks.grow(&mut sequence.block_table, end) {
            return Plan::default();
        }
        let images = if start == 0 { 0..sequence.images.len() } else { 0..0 };
        let samples = end == sequence.token_ids.len();
        Plan {
            chunks: vec![PlannedChunk { sequence_id: sequence.id, positions: start..end, images, samples }],
        }
    }

    /// Notes that the work of `plan` is in the cache.
    pub fn commit(&mut self, plan: &Plan) {
        for chunk in &plan.chunks {
            if let Some(sequence) = self.running.as_mut().filter(|sequence| sequence.id == chunk.sequence_id)
            {
                sequence.num_computed_tokens = chunk.positions.end;
            }
        }
    }

    /// Adds a sampled token to a running sequence.
    pub fn append(&mut self, id: SequenceId, token_id: u32) {
        if let Some(sequence) = self.running.as_mut().filter(|sequence| sequence.id == id) {
            sequence.token_ids.push(token_id);
        }
    }

    /// Forgets a sequence in whatever state it is, and frees its blocks.
    pub fn remove(&mut self, id: SequenceId) {
        if let Some(sequence) = self.running.take_if(|sequence| sequence.id == id) {
            self.blocks.release(sequence.block_table);
        }
        self.waiting.retain(|sequence| sequence.id != id);
    }

    /// A running sequence.
    pub fn running(&self, id: SequenceId) -> Option<&Sequence> {
        self.running.as_ref().filter(|sequence| sequence.id == id)
    }

    /// How many sequences wait, and how many run.
    pub fn num_sequences(&self) -> (usize, usize) {
        (self.waiting.len(), usize::from(self.running.is_some()))
    }

    /// The cache's accounting.
    pub fn blocks(&self) -> &BlockAllocator {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(max_batch_tokens: usize, num_blocks: usize) -> Scheduler {
        Scheduler::new(max_batch_tokens, BlockAllocator::new(num_blocks, 16))
    }

    fn sequence(id: u64, num_tokens: usize) -> Sequence {
        Sequence::new(SequenceId(id), vec![7; num_tokens], Vec::new())
    }

    #[test]
    fn chunks_cover_each_position_once_in_order_whatever_their_size() {
        for max_batch_tokens in 1..40 {
            let mut scheduler = scheduler(max_batch_tokens, 8);
            scheduler.add(sequence(1, 33));
            let mut next = 0;
            loop {
                let plan = scheduler.plan();
                let [chunk] = plan.chunks.as_slice() else { panic!("expected one chunk") };
                assert_eq!(chunk.positions.start, next);
                assert!(chunk.positions.len() <= max_batch_tokens);
                next = chunk.positions.end;
                assert_eq!(chunk.samples, next == 33);
                let samples = chunk.samples;
                scheduler.commit(&plan);
                if samples {
                    break;
                }
            }
            assert_eq!(scheduler.plan(), Plan::default(), "nothing is left until a token is sampled");
            scheduler.append(SequenceId(1), 9);
            assert_eq!(scheduler.plan().chunks[0].positions, 33..34);
        }
    }

    #[test]
    fn images_are_asked_for_with_the_first_chunk_only() {
        let mut scheduler = scheduler(4, 8);
        scheduler.add(Sequence::new(SequenceId(1), vec![7; 12], vec![1..3, 5..9]));
        let first = scheduler.plan();
        assert_eq!(first.chunks[0].images, 0..2);
        scheduler.commit(&first);
        assert!(scheduler.plan().chunks[0].images.is_empty());
    }

    #[test]
    fn first_come_is_first_served_and_blocks_come_back() {
        let mut scheduler = scheduler(64, 2);
        for id in [1, 2, 3] {
            scheduler.add(sequence(id, 20));
        }
        for id in [1, 2, 3] {
            assert_eq!(scheduler.plan().chunks[0].sequence_id, SequenceId(id));
            assert_eq!(scheduler.blocks().num_free(), 0);
            scheduler.remove(SequenceId(id));
            assert_eq!(scheduler.blocks().num_free(), 2);
        }
        assert_eq!(scheduler.num_sequences(), (0, 0));
    }

    #[test]
    fn a_waiting_sequence_can_be_removed() {
        let mut scheduler = scheduler(64, 4);
        scheduler.add(sequence(1, 5));
        scheduler.add(sequence(2, 5));
        scheduler.plan();
        scheduler.remove(SequenceId(2));
        assert_eq!(scheduler.num_sequences(), (0, 1));
    }
}
