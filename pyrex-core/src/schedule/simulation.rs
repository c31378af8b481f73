//! What tests know of the cache: a device that holds one number per slot, and the checks that must hold after every step.
//!
//! A slot's number stands for its token and everything before it, so that it is right in one prefix only.

use super::cache::{BlockCache, BlockCopy};
use super::prefix::{Digest, Digests};
use super::scheduler::{Plan, PlannedChunk, Scheduler, StepLimits};
use super::sequence::{ImageSpan, Sequence, SequenceId};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// For each group its window and its number of blocks.
pub(super) type Groups<'a> = &'a [(Option<usize>, usize)];

pub(super) fn digests() -> Digests {
    Digests::new([7; 32])
}

pub(super) fn id(priority: i8, request: u64, index: u32) -> SequenceId {
    SequenceId { priority: Reverse(priority), request, index }
}

/// A sequence without images under a common root.
pub(super) fn sequence(id: SequenceId, token_ids: Vec<u32>) -> Sequence {
    Sequence::new(id, token_ids, Vec::new(), Digest(0))
}

/// The positions before `next` that a query there sees.
pub(super) fn seen(window: Option<usize>, next: usize) -> Range<usize> {
    (0..next).find(|position| window.is_none_or(|window| next - position < window)).unwrap_or(next)..next
}

/// What the slot of each position must hold.
fn contents(sequence: &Sequence) -> Vec<u64> {
    let mut before = sequence.root.0 as u64;
    let content = |(position, token_id): (usize, &u32)| {
        let inside = |image: &&ImageSpan| image.tokens.contains(&position);
        let image = sequence.images.iter().find(inside).map(|image| (image.digest, image.tokens.start));
        let mut hasher = DefaultHasher::new();
        (before, token_id, image).hash(&mut hasher);
        before = hasher.finish();
        before
    };
    sequence.token_ids.iter().enumerate().map(content).collect()
}

/// The slots of all groups.
pub(super) struct Storage {
    groups: Vec<(Option<usize>, Vec<u64>)>,
    block_size: usize,
}

impl Storage {
    pub(super) fn new(groups: Groups<'_>, block_size: usize) -> Self {
        let slots =
            |&(window, num_blocks): &(Option<usize>, usize)| (window, vec![0; num_blocks * block_size]);
        Self { groups: groups.iter().map(slots).collect(), block_size }
    }

    /// A step, as a device does it: all copies, then all writes, then all reads.
    pub(super) fn run(&mut self, chunks: &[(&Sequence, Range<usize>, &[BlockCopy])]) {
        for copy in chunks.iter().flat_map(|(_, _, copies)| *copies) {
            let from = copy.from as usize * self.block_size;
            let to = copy.to as usize * self.block_size;
            self.groups[copy.group].1.copy_within(from..from + self.block_size, to);
        }
        let mut written = HashSet::new();
        for (sequence, positions, _) in chunks {
            let contents = contents(sequence);
            for (group, table) in sequence.block_tables().into_iter().enumerate() {
                for position in positions.clone() {
                    let slot = self.slot(table, position);
                    assert!(
                        written.insert((group, slot)),
                        "two of one step write slot {slot} of group {group}"
                    );
                    self.groups[group].1[slot] = contents[position];
                }
            }
        }
        for (sequence, positions, _) in chunks {
            self.check_reads(sequence, positions.start, positions.end);
        }
    }

    /// Asserts that a query at `query` finds what it sees, and the positions up to `end` as well.
    pub(super) fn check_reads(&self, sequence: &Sequence, query: usize, end: usize) {
        let contents = contents(sequence);
        for ((window, slots), table) in self.groups.iter().zip(sequence.block_tables()) {
            for position in seen(*window, query).start..end {
                let found = slots[self.slot(table, position)];
                assert_eq!(
                    found, contents[position],
                    "{:?} reads position {position} for {query}",
                    sequence.id
                );
            }
        }
    }

    fn slot(&self, table: &[u32], position: usize) -> usize {
        table[position / self.block_size] as usize * self.block_size + position % self.block_size
    }
}

/// Asserts that each block has as many holders as leases on it, and is free if it has none.
pub(super) fn check_holders<'a>(cache: &BlockCache, sequences: impl IntoIterator<Item = &'a Sequence>) {
    let counts = cache.counts();
    let mut expected: Vec<Vec<u32>> = counts.iter().map(|counts| vec![0; counts.num_blocks]).collect();
    for sequence in sequences {
        for (group, blocks) in sequence.lease.held().enumerate() {
            blocks.iter().for_each(|block| expected[group][*block as usize] += 1);
        }
    }
    for (group, (expected, counts)) in expected.iter().zip(counts).enumerate() {
        assert_eq!(&cache.holders(group), expected, "holders of group {group}");
        let num_free = expected.iter().filter(|holders| **holders == 0).count();
        assert_eq!(counts.num_free, num_free, "free blocks of group {group}");
    }
}

/// A scheduler with its device.
pub(super) struct Simulation {
    pub(super) scheduler: Scheduler,
    storage: Storage,
    limits: StepLimits,
}

impl Simulation {
    pub(super) fn new(
        (max_batch_tokens, max_sequences): (usize, usize),
        groups: Groups<'_>,
        block_size: usize,
        remembers: bool,
    ) -> Self {
        let limits = StepLimits { max_batch_tokens, max_sequences };
        let cache = BlockCache::new(groups, block_size, digests(), remembers);
        Self { scheduler: Scheduler::new(limits, cache), storage: Storage::new(groups, block_size), limits }
    }

    pub(super) fn add(&mut self, id: SequenceId, token_ids: impl IntoIterator<Item = u32>) {
        self.scheduler.add(sequence(id, token_ids.into_iter().collect()));
    }

    /// Plans, runs and commits a step.
    pub(super) fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.run(&plan);
        self.commit(&plan);
        plan
    }

    /// Steps, and adds a token to whoever comes to its end: the number of tokens before it.
    pub(super) fn step_and_sample(&mut self) -> Plan {
        let plan = self.step();
        for chunk in plan.chunks.iter().filter(|chunk| chunk.samples) {
            self.scheduler.append(chunk.sequence_id, chunk.positions.end as u32);
        }
        plan
    }

    pub(super) fn plan(&mut self) -> Plan {
        let ran: HashSet<SequenceId> = self.running().collect();
        let plan = self.scheduler.plan();
        self.check_order(&ran);
        self.check_plan(&plan);
        plan
    }

    pub(super) fn plan_alone(&mut self, id: SequenceId) -> Plan {
        let plan = self.scheduler.plan_alone(id);
        assert!(plan.chunks.iter().all(|chunk| chunk.sequence_id == id), "{plan:?}");
        self.check_plan(&plan);
        plan
    }

    pub(super) fn run(&mut self, plan: &Plan) {
        let scheduler = &self.scheduler;
        let mut parts = Vec::new();
        for PlannedChunk { sequence_id, positions, copies, .. } in &plan.chunks {
            let sequence = scheduler.get(*sequence_id).expect("only known sequences are planned");
            parts.push((sequence, positions.clone(), copies.as_slice()));
        }
        self.storage.run(&parts);
    }

    pub(super) fn commit(&mut self, plan: &Plan) {
        self.scheduler.commit(plan);
        self.check();
    }

    pub(super) fn roll_back(&mut self, plan: &Plan) {
        self.scheduler.roll_back(plan);
        self.check();
    }

    pub(super) fn running(&self) -> impl Iterator<Item = SequenceId> {
        self.scheduler.sequences().filter(|sequence| sequence.is_running()).map(|sequence| sequence.id)
    }

    /// Asserts what holds between two steps.
    pub(super) fn check(&self) {
        check_holders(self.scheduler.cache(), self.scheduler.sequences());
        for sequence in self.scheduler.sequences() {
            let num_computed = sequence.num_computed_tokens;
            assert!(num_computed <= sequence.token_ids.len());
            assert!(sequence.is_running() || num_computed == 0, "{:?} holds nothing", sequence.id);
            self.storage.check_reads(sequence, num_computed, num_computed);
        }
    }

    /// The first that can be planned does not give way, and nobody that can be planned waits while a later one begins.
    fn check_order(&self, ran: &HashSet<SequenceId>) {
        let able: Vec<_> = self.scheduler.sequences().filter(|sequence| !sequence.paused).collect();
        let kept = able.first().is_none_or(|first| first.is_running() || !ran.contains(&first.id));
        assert!(kept, "{:?} gives way, though nobody comes before it", able[0].id);
        let waiting = able.iter().find(|sequence| !sequence.is_running());
        let began = able.iter().rfind(|sequence| sequence.is_running() && !ran.contains(&sequence.id));
        if let (Some(waiting), Some(began)) = (waiting, began) {
            assert!(began.id < waiting.id, "{:?} begins before {:?}", began.id, waiting.id);
        }
    }

    fn check_plan(&self, plan: &Plan) {
        check_holders(self.scheduler.cache(), self.scheduler.sequences());
        assert!(plan.num_tokens() <= self.limits.max_batch_tokens, "{plan:?}");
        assert!(plan.chunks.len() <= self.limits.max_sequences, "{plan:?}");
        let ids: HashSet<SequenceId> = plan.chunks.iter().map(|chunk| chunk.sequence_id).collect();
        assert_eq!(ids.len(), plan.chunks.len(), "each takes part once: {plan:?}");
        for chunk in &plan.chunks {
            let sequence = self.scheduler.get(chunk.sequence_id).expect("only known sequences are planned");
            assert!(!sequence.paused && sequence.is_running(), "{plan:?}");
            assert!(!chunk.positions.is_empty(), "{plan:?}");
            assert_eq!(chunk.positions.start, sequence.num_computed_tokens);
            assert_eq!(chunk.samples, chunk.positions.end == sequence.token_ids.len());
            self.check_written_blocks(sequence, &chunk.positions);
        }
    }

    /// Whoever is planned has blocks up to its end, and nobody else holds those it writes.
    fn check_written_blocks(&self, sequence: &Sequence, positions: &Range<usize>) {
        let block_size = self.storage.block_size;
        let written = positions.start / block_size..positions.end.div_ceil(block_size);
        for (group, table) in sequence.block_tables().into_iter().enumerate() {
            let holders = self.scheduler.cache().holders(group);
            assert!(table.len() >= written.end, "{:?} is planned beyond its blocks", sequence.id);
            let alone = table[written.clone()].iter().all(|block| holders[*block as usize] == 1);
            assert!(alone, "{:?} writes what another holds", sequence.id);
        }
    }
}
