//! Random operations on the allocator, the cache and the scheduler, each against a model that is too simple to be wrong.

use super::blocks::{BlockAllocator, Reuse};
use super::cache::{BlockCache, most_blocks};
use super::prefix::Digest;
use super::scheduler::Plan;
use super::sequence::{ImageSpan, Sequence, SequenceId};
use super::simulation::{Simulation, Storage, check_holders, digests, id, seen};
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

const BLOCK: usize = 4;

/// More cases than usual, as they are short. What fails becomes a named test: no file of seeds.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: 4 * default.cases, failure_persistence: None, ..default }
}

// The allocator: a list of counts, and a queue.

#[derive(Clone, Debug)]
enum BlockOp {
    Take,
    Share(u32),
    Release(usize, Reuse),
}

fn block_op() -> impl Strategy<Value = BlockOp> {
    let reuse = prop_oneof![Just(Reuse::First), Just(Reuse::Last)];
    prop_oneof![
        2 => Just(BlockOp::Take),
        1 => (0..12u32).prop_map(BlockOp::Share),
        2 => (any::<usize>(), reuse).prop_map(|(pick, reuse)| BlockOp::Release(pick, reuse)),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn blocks_are_taken_in_the_order_of_a_plain_queue(
        num_blocks in 1..12usize,
        ops in prop::collection::vec(block_op(), 0..200),
    ) {
        let mut blocks = BlockAllocator::new(num_blocks);
        let mut free: VecDeque<u32> = (0..num_blocks as u32).collect();
        let mut holds: Vec<u32> = Vec::new();
        for op in ops {
            match op {
                BlockOp::Take => {
                    let block = free.pop_front();
                    prop_assert_eq!(blocks.take(), block);
                    holds.extend(block);
                }
                BlockOp::Share(block) => {
                    let block = block % num_blocks as u32;
                    free.retain(|other| *other != block);
                    blocks.share(block);
                    holds.push(block);
                }
                BlockOp::Release(..) if holds.is_empty() => {}
                BlockOp::Release(pick, reuse) => {
                    let block = holds.swap_remove(pick % holds.len());
                    blocks.release(block, reuse);
                    match reuse {
                        _ if holds.contains(&block) => {}
                        Reuse::First => free.push_front(block),
                        Reuse::Last => free.push_back(block),
                    }
                }
            }
            prop_assert_eq!(blocks.num_free(), free.len());
            for block in 0..num_blocks as u32 {
                let num_holders = holds.iter().filter(|held| **held == block).count();
                prop_assert_eq!(blocks.num_holders(block) as usize, num_holders);
            }
        }
    }
}

// Prompts that share beginnings.

#[derive(Clone, Debug)]
struct Prompt {
    root: u8,
    stem: u8,
    stem_len: usize,
    tail_len: usize,
    image: Option<(u8, usize)>,
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let image = prop::option::weighted(0.2, (0..2u8, 0..12usize));
    let root = prop_oneof![6 => Just(0u8), 1 => Just(1u8)];
    (root, 0..2u8, 0..24usize, 0..8usize, image).prop_map(|(root, stem, stem_len, tail_len, image)| Prompt {
        root,
        stem,
        stem_len,
        tail_len,
        image,
    })
}

impl Prompt {
    fn len(&self) -> usize {
        self.stem_len + self.tail_len + 1
    }

    /// Two stems that differ from their sixth token on; the tails are those of `request`.
    fn sequence(&self, id: SequenceId) -> Sequence {
        let stem = (0..self.stem_len as u32)
            .map(|position| position + if position > 5 { u32::from(self.stem) * 100 } else { 0 });
        let tail = (0..self.tail_len as u32).map(|position| 1000 + 100 * (id.request % 2) as u32 + position);
        let mut token_ids: Vec<u32> = stem.chain(tail).collect();
        token_ids.push(0);
        let image = |(digest, start): (u8, usize)| ImageSpan {
            tokens: start..start + 5,
            digest: Digest(digest.into()),
        };
        let images =
            self.image.map(image).into_iter().filter(|image| image.tokens.end <= token_ids.len()).collect();
        Sequence::new(id, token_ids, images, Digest(self.root.into()))
    }
}

fn windows() -> impl Strategy<Value = Vec<Option<usize>>> {
    let window = prop_oneof![1 => Just(None), 2 => (1..14usize).prop_map(Some)];
    prop::collection::vec(window, 1..4)
}

// The cache: what it remembers, as a list of prefixes per block.

#[derive(Clone, Debug)]
enum CacheOp {
    Begin(Prompt),
    Compute { pick: usize, num_tokens: usize, fails: bool },
    Append(usize, u32),
    Fork(usize),
    Release(usize),
}

fn cache_op() -> impl Strategy<Value = CacheOp> {
    let compute = (any::<usize>(), 1..20usize, prop::bool::weighted(0.1))
        .prop_map(|(pick, num_tokens, fails)| CacheOp::Compute { pick, num_tokens, fails });
    prop_oneof![
        2 => prompt().prop_map(CacheOp::Begin),
        6 => compute,
        3 => (any::<usize>(), 0..2u32).prop_map(|(pick, token_id)| CacheOp::Append(pick, token_id)),
        1 => any::<usize>().prop_map(CacheOp::Fork),
        1 => any::<usize>().prop_map(CacheOp::Release),
    ]
}

/// All that stands before the end of a block: the root, the tokens, and the images that begin in it.
type Prefix = (Digest, Vec<u32>, Vec<(Digest, usize)>);

fn prefix(sequence: &Sequence, num_blocks: usize) -> Prefix {
    let end = num_blocks * BLOCK;
    let images = sequence.images.iter().filter(|image| image.tokens.start < end);
    let images = images.map(|image| (image.digest, image.tokens.start)).collect();
    (sequence.root, sequence.token_ids[..end].to_vec(), images)
}

struct CacheModel {
    cache: BlockCache,
    windows: Vec<Option<usize>>,
    storage: Storage,
    sequences: Vec<Sequence>,
    /// Which block of each group holds which prefix's end.
    remembered: Vec<HashMap<Prefix, u32>>,
}

impl CacheModel {
    fn new(windows: Vec<Option<usize>>, num_blocks: usize) -> Self {
        let groups: Vec<_> = windows.iter().map(|window| (*window, num_blocks)).collect();
        let cache = BlockCache::new(&groups, BLOCK, digests(), true);
        let remembered = vec![HashMap::new(); windows.len()];
        Self { cache, windows, storage: Storage::new(&groups, BLOCK), sequences: Vec::new(), remembered }
    }

    fn apply(&mut self, op: CacheOp, request: u64) {
        let len = self.sequences.len();
        match op {
            CacheOp::Begin(prompt) => self.begin(prompt.sequence(id(0, request, 0))),
            _ if len == 0 => {}
            CacheOp::Compute { pick, num_tokens, fails } => self.compute(pick % len, num_tokens, fails),
            CacheOp::Append(pick, token_id) => self.sequences[pick % len].token_ids.push(token_id),
            CacheOp::Fork(pick) => {
                let parent = &self.sequences[pick % len];
                let child = parent.fork(id(0, request, 0), self.cache.share(parent));
                self.sequences.push(child);
            }
            CacheOp::Release(pick) => {
                let mut sequence = self.sequences.swap_remove(pick % len);
                self.cache.release(&mut sequence);
            }
        }
        self.check();
    }

    fn begin(&mut self, mut sequence: Sequence) {
        let longest = (sequence.token_ids.len() - 1) / BLOCK;
        let is_remembered = |num_blocks: &usize| {
            self.windows.iter().zip(&self.remembered).all(|(window, remembered)| {
                let first = seen(*window, num_blocks * BLOCK).start / BLOCK;
                (first..*num_blocks).all(|idx| remembered.contains_key(&prefix(&sequence, idx + 1)))
            })
        };
        let expected = (0..=longest).rev().find(is_remembered).expect("nothing is always remembered");
        assert_eq!(self.cache.adopt(&mut sequence), expected * BLOCK);
        self.sequences.push(sequence);
    }

    fn compute(&mut self, idx: usize, num_tokens: usize, fails: bool) {
        let sequence = &mut self.sequences[idx];
        let start = sequence.num_computed_tokens;
        let end = (start + num_tokens).min(sequence.token_ids.len());
        let before: Vec<Vec<u32>> = sequence.block_tables().iter().map(|table| table.to_vec()).collect();
        let (counts, mut copies) = (self.cache.counts(), Vec::new());
        if start == end || !self.cache.reserve(sequence, end, &mut copies) {
            assert_eq!((copies.len(), self.cache.counts()), (0, counts), "all or nothing");
            assert_eq!(sequence.block_tables(), before, "all or nothing");
            return;
        }
        for ((before, after), remembered) in
            before.iter().zip(sequence.block_tables()).zip(&mut self.remembered)
        {
            let taken: Vec<u32> = after
                .iter()
                .enumerate()
                .filter(|(idx, block)| before.get(*idx) != Some(block))
                .map(|(_, block)| *block)
                .collect();
            remembered.retain(|_, block| !taken.contains(block));
        }
        self.storage.run(&[(&*sequence, start..end, &copies)]);
        if fails {
            if !copies.is_empty() {
                self.cache.release(sequence);
                let sequence = self.sequences.swap_remove(idx);
                self.begin(sequence);
            }
            return;
        }
        for idx in start / BLOCK..end / BLOCK {
            let prefix = prefix(sequence, idx + 1);
            for (remembered, table) in self.remembered.iter_mut().zip(sequence.block_tables()) {
                remembered.entry(prefix.clone()).or_insert(table[idx]);
            }
        }
        sequence.num_computed_tokens = end;
        self.cache.commit(sequence);
    }

    fn check(&self) {
        check_holders(&self.cache, &self.sequences);
        for (counts, remembered) in self.cache.counts().iter().zip(&self.remembered) {
            assert_eq!(counts.num_cached, remembered.len());
        }
        for sequence in &self.sequences {
            let (num_computed, held) = (sequence.num_computed_tokens, sequence.lease.held());
            self.storage.check_reads(sequence, num_computed, num_computed);
            for ((held, table), window) in held.zip(sequence.block_tables()).zip(&self.windows) {
                let first = seen(*window, num_computed).start / BLOCK;
                assert_eq!(held, &table[first..], "what is seen by nobody is given back");
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_cache_never_shows_a_sequence_a_wrong_token_and_remembers_what_it_can(
        windows in windows(),
        num_blocks in 1..24usize,
        ops in prop::collection::vec(cache_op(), 0..60),
    ) {
        let mut model = CacheModel::new(windows, num_blocks);
        ops.into_iter().zip(0..).for_each(|(op, request)| model.apply(op, request));
        for mut sequence in std::mem::take(&mut model.sequences) {
            model.cache.release(&mut sequence);
        }
        model.check();
    }
}

// The scheduler.

#[derive(Clone, Debug)]
enum Op {
    Add(i8, Prompt),
    Step { fails: bool, silent: usize },
    Alone { pick: usize, fails: bool },
    Append(usize),
    Fork(usize),
    Pause(usize, bool),
    Reclaim(usize),
    Remove(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let step = (prop::bool::weighted(0.1), 0..8usize).prop_map(|(fails, silent)| Op::Step { fails, silent });
    prop_oneof![
        4 => (0..3i8, prompt()).prop_map(|(priority, prompt)| Op::Add(priority, prompt)),
        14 => step,
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, fails)| Op::Alone { pick, fails }),
        1 => any::<usize>().prop_map(Op::Append),
        2 => any::<usize>().prop_map(Op::Fork),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, paused)| Op::Pause(pick, paused)),
        1 => any::<usize>().prop_map(Op::Reclaim),
        1 => any::<usize>().prop_map(Op::Remove),
    ]
}

/// As much as a sequence of the property tests may grow to.
const MAX_TOKENS: usize = 48;

struct World {
    simulation: Simulation,
    num_added: u64,
    next_index: u32,
    /// Whether one sequence of `MAX_TOKENS` has room.
    is_large: bool,
}

impl World {
    fn pick(&self, pick: usize) -> Option<SequenceId> {
        let ids: Vec<SequenceId> =
            self.simulation.scheduler.sequences().map(|sequence| sequence.id).collect();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }

    fn apply(&mut self, op: Op) {
        if let Op::Add(priority, prompt) = op {
            self.num_added += 1;
            return self.simulation.scheduler.add(prompt.sequence(id(priority, self.num_added, 0)));
        }
        if let Op::Step { fails, silent } = op {
            let plan = self.simulation.plan();
            let able = self.simulation.scheduler.sequences().filter(|sequence| !sequence.paused);
            let pending: Vec<usize> = able.map(Sequence::num_pending_tokens).collect();
            let can_go_on = self.is_large && !pending.is_empty() && !pending.contains(&0);
            assert!(!(can_go_on && plan.chunks.is_empty()), "nobody goes on, though all could");
            return self.finish(&plan, fails, silent);
        }
        let (Op::Alone { pick, .. }
        | Op::Append(pick)
        | Op::Fork(pick)
        | Op::Pause(pick, _)
        | Op::Reclaim(pick)
        | Op::Remove(pick)) = op
        else {
            return;
        };
        let Some(id) = self.pick(pick) else { return };
        let scheduler = &mut self.simulation.scheduler;
        match op {
            Op::Alone { fails, .. } => {
                let plan = self.simulation.plan_alone(id);
                self.finish(&plan, fails, 7);
            }
            Op::Append(_) => self.append(id),
            Op::Fork(_) => {
                self.next_index += 1;
                scheduler.fork(id, self.next_index);
            }
            Op::Pause(_, paused) => scheduler.pause(id, paused),
            Op::Reclaim(_) => scheduler.reclaim(id),
            _ => scheduler.remove(id),
        }
        self.simulation.check();
    }

    /// Runs a plan. Of those that come to their end, number `silent` gets no token.
    fn finish(&mut self, plan: &Plan, fails: bool, silent: usize) {
        self.simulation.run(plan);
        if fails {
            return self.simulation.roll_back(plan);
        }
        self.simulation.commit(plan);
        for (idx, chunk) in plan.chunks.iter().filter(|chunk| chunk.samples).enumerate() {
            if idx != silent {
                self.append(chunk.sequence_id);
            }
        }
    }

    fn append(&mut self, id: SequenceId) {
        let len = self.simulation.scheduler.get(id).map_or(0, |sequence| sequence.token_ids.len());
        match len < MAX_TOKENS {
            true => self.simulation.scheduler.append(id, 2000 + id.index),
            false => self.simulation.scheduler.remove(id),
        }
    }
}

fn most(windows: &[Option<usize>], chunk: usize, spare: usize) -> Vec<(Option<usize>, usize)> {
    let group = |window: &Option<usize>| (*window, most_blocks(*window, MAX_TOKENS, chunk, BLOCK) + spare);
    windows.iter().map(group).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_to_a_scheduler_nobody_reads_a_wrong_token_and_no_block_is_lost(
        windows in windows(),
        limits in (1..24usize, 1..6usize),
        // Less than one sequence needs, or enough for one, or for some.
        blocks in prop_oneof![(1..8usize).prop_map(Err), (0..16usize).prop_map(Ok)],
        remembers in prop::bool::weighted(0.8),
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let groups = match blocks {
            Err(few) => windows.iter().map(|window| (*window, few)).collect(),
            Ok(spare) => most(&windows, limits.0, spare),
        };
        let simulation = Simulation::new(limits, &groups, BLOCK, remembers);
        let mut world = World { simulation, num_added: 0, next_index: 0, is_large: blocks.is_ok() };
        ops.into_iter().for_each(|op| world.apply(op));
        while let Some(id) = world.pick(0) {
            world.simulation.scheduler.remove(id);
        }
        world.simulation.check();
    }

    #[test]
    fn whoever_is_stepped_on_and_on_comes_to_an_end(
        windows in windows(),
        limits in (1..24usize, 1..6usize),
        spare in 0..12usize,
        remembers in any::<bool>(),
        // Priority, prompt, completions, tokens of each, and the step before which it comes.
        requests in prop::collection::vec((0..3i8, prompt(), 1..4u32, 1..17usize, 0..30usize), 1..8),
    ) {
        let mut simulation = Simulation::new(limits, &most(&windows, limits.0, spare), BLOCK, remembers);
        let ends: Vec<usize> =
            requests.iter().map(|(_, prompt, _, num_tokens, _)| prompt.len() + num_tokens).collect();
        let total: usize = requests.iter().zip(&ends).map(|((_, _, n, ..), end)| *n as usize * end).sum();
        let most_steps = 30 + total * requests.len();
        for step in 0.. {
            prop_assert!(step < most_steps, "{most_steps} steps are not enough for {total} tokens");
            for ((priority, prompt, .., arrival), request) in requests.iter().zip(0..) {
                if *arrival == step {
                    simulation.scheduler.add(prompt.sequence(id(*priority, request, 0)));
                }
            }
            if simulation.scheduler.sequences().next().is_none() {
                if step > 30 {
                    break;
                }
                continue;
            }
            let plan = simulation.step();
            prop_assert!(!plan.chunks.is_empty(), "nobody goes on");
            for chunk in plan.chunks.iter().filter(|chunk| chunk.samples) {
                let (id, len) = (chunk.sequence_id, chunk.positions.end);
                let (_, prompt, num_completions, ..) = &requests[id.request as usize];
                if len == prompt.len() {
                    (1..*num_completions).for_each(|index| simulation.scheduler.fork(id, index));
                    (1..*num_completions).for_each(|index| {
                        simulation.scheduler.append(SequenceId { index, ..id }, 3000 + index);
                    });
                }
                match len < ends[id.request as usize] {
                    true => simulation.scheduler.append(id, 3000),
                    false => simulation.scheduler.remove(id),
                }
            }
            simulation.check();
        }
    }
}
