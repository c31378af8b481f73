//! [`Scheduler`]: who runs next, and how much of it.
//!
//! There is one kind of work: the tokens of a sequence that the cache does not hold yet. A decode step is one such token; a
//! long prompt is cut into chunks by the token budget of a step. Sequences are served in the order of their ids, decodes
//! before prompts, so that a long prompt never holds up a stream.
//!
//! When blocks run out, whoever comes later gives way: it returns all it holds and computes it again when there is room, in
//! its old place. Paused sequences give way first. To begin, a sequence takes blocks only from lower priorities and from those
//! that could not run anyway; so a sequence that comes back does not push out its equals.

use super::cache::{BlockCache, BlockCopy, BlockCounts};
use super::sequence::{Sequence, SequenceId};
use std::collections::BTreeMap;
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
    /// Whether they are its last, so that the next token can be chosen.
    pub samples: bool,
    /// Blocks that must be copied before.
    pub copies: Vec<BlockCopy>,
}

/// How much one step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// The most tokens, of all sequences together.
    pub max_batch_tokens: usize,
    /// The most sequences.
    pub max_sequences: usize,
}

/// What has happened since the scheduler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerCounts {
    /// Tokens of sequences that began, the computed part of preempted ones included.
    pub prefix_tokens: u64,
    /// How many of them a remembered prefix held.
    pub prefix_hit_tokens: u64,
    /// Sequences that gave way.
    pub preemptions: u64,
}

/// The sequences of one engine, and the cache blocks they share.
pub struct Scheduler {
    limits: StepLimits,
    sequences: BTreeMap<SequenceId, Sequence>,
    cache: BlockCache,
    counts: SchedulerCounts,
}

impl Plan {
    /// How many tokens it computes.
    pub fn num_tokens(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.positions.len()).sum()
    }

    fn withdraw(&mut self, id: SequenceId) {
        self.chunks.retain(|chunk| chunk.sequence_id != id);
    }
}

impl Scheduler {
    /// An empty scheduler. Both limits count as one at least.
    pub fn new(limits: StepLimits, cache: BlockCache) -> Self {
        let StepLimits { max_batch_tokens, max_sequences } = limits;
        let limits =
            StepLimits { max_batch_tokens: max_batch_tokens.max(1), max_sequences: max_sequences.max(1) };
        Self { limits, sequences: BTreeMap::new(), cache, counts: SchedulerCounts::default() }
    }

    /// Puts a sequence in its place, instead of one of the same name.
    pub fn add(&mut self, sequence: Sequence) {
        self.remove(sequence.id);
        self.sequences.insert(sequence.id, sequence);
    }

    /// Chooses the next step's work and reserves the cache slots for it; empty if nobody can go on.
    pub fn plan(&mut self) -> Plan {
        let served =
            self.sequences.values().filter(|sequence| sequence.is_ready()).take(self.limits.max_sequences);
        let ids: Vec<SequenceId> = served.map(|sequence| sequence.id).collect();
        let mut plan = Plan::default();
        let Some(last) = ids.last().copied() else { return plan };
        for id in &ids {
            if self.is_decoding(*id) {
                self.schedule(*id, &mut plan);
            }
        }
        let mut may_begin = true;
        // Who gave way to a decode is no longer decoding, and waits here in its place.
        for id in ids {
            if self.is_decoding(id) {
                continue;
            }
            let is_ready = self.get(id).is_some_and(Sequence::is_ready);
            if self.is_running(id) || is_ready && may_begin && self.begin(id, last, &mut plan) {
                self.schedule(id, &mut plan);
            } else {
                // Nobody begins before one that came earlier.
                may_begin = false;
            }
        }
        plan
    }

    /// As [`plan`](Self::plan), for one sequence only.
    pub fn plan_alone(&mut self, id: SequenceId) -> Plan {
        let mut plan = Plan::default();
        let waits = self.sequences.get(&id).is_some_and(Sequence::is_ready);
        if waits && (self.is_running(id) || self.begin(id, id, &mut plan)) {
            self.schedule(id, &mut plan);
        }
        plan
    }

    /// Gives a sequence that holds nothing what is remembered of it, if all of it has room beside what runs. `last` is the last
    /// that is served in this step.
    fn begin(&mut self, id: SequenceId, last: SequenceId, plan: &mut Plan) -> bool {
        if plan.num_tokens() >= self.limits.max_batch_tokens {
            return false;
        }
        let Some(sequence) = self.sequences.get_mut(&id) else { return false };
        let (num_tokens, num_remembered) = (sequence.token_ids.len(), self.cache.adopt(sequence));
        let lower = |other: &Sequence| other.id.priority > id.priority || other.paused || other.id > last;
        while !self.has_room(id) {
            let Some(victim) = self.victim(id, lower) else {
                self.reclaim(id);
                return false;
            };
            self.preempt(victim, plan);
        }
        self.counts.prefix_tokens += num_tokens as u64;
        self.counts.prefix_hit_tokens += num_remembered as u64;
        true
    }

    /// Whether all of a sequence has room, and one more block for each of the others that run.
    fn has_room(&self, id: SequenceId) -> bool {
        let others = self.sequences.values().filter(|other| other.is_running() && other.id != id).count();
        let has_room = |sequence| self.cache.has_room(sequence, self.limits.max_batch_tokens, others);
        others == 0 || self.get(id).is_some_and(has_room)
    }

    /// Plans as many of the pending tokens as the budget leaves.
    fn schedule(&mut self, id: SequenceId, plan: &mut Plan) {
        let budget = self.limits.max_batch_tokens - plan.num_tokens().min(self.limits.max_batch_tokens);
        let Some((start, pending)) = self.get(id).map(|s| (s.num_computed_tokens, s.num_pending_tokens()))
        else {
            return;
        };
        let end = start + pending.min(budget);
        let mut copies = Vec::new();
        if start == end || !self.make_room(id, end, &mut copies, plan) {
            return;
        }
        let samples = end == start + pending;
        plan.chunks.push(PlannedChunk { sequence_id: id, positions: start..end, samples, copies });
    }

    /// Reserves the slots up to `end`, at the cost of those that come later.
    fn make_room(
        &mut self,
        id: SequenceId,
        end: usize,
        copies: &mut Vec<BlockCopy>,
        plan: &mut Plan,
    ) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            if self.cache.reserve(sequence, end, copies) {
                return true;
            }
            match self.victim(id, |_| true) {
                Some(victim) => self.preempt(victim, plan),
                None => return false,
            }
        }
    }

    /// Who gives way to `id`: the last of the paused, or else the last of those behind it, that holds anything and that `may` allow.
    fn victim(&self, id: SequenceId, may: impl Fn(&Sequence) -> bool) -> Option<SequenceId> {
        let holds = |sequence: &&Sequence| sequence.is_running() && sequence.id != id && may(sequence);
        let paused = self.sequences.values().rev().filter(holds).find(|sequence| sequence.paused);
        let later = self.sequences.range(id..).rev().map(|(_, sequence)| sequence).find(holds);
        paused.or(later).map(|sequence| sequence.id)
    }

    fn preempt(&mut self, id: SequenceId, plan: &mut Plan) {
        plan.withdraw(id);
        self.counts.preemptions += 1;
        self.reclaim(id);
    }

    /// Takes back all that a sequence holds; it stays in its place.
    pub fn reclaim(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            self.cache.release(sequence);
        }
    }

    /// Notes that the work of `plan` is in the cache.
    pub fn commit(&mut self, plan: &Plan) {
        for chunk in &plan.chunks {
            if let Some(sequence) = self.sequences.get_mut(&chunk.sequence_id) {
                sequence.num_computed_tokens = chunk.positions.end;
                self.cache.commit(sequence);
            }
        }
    }

    /// Notes that the work of `plan` was not done. Whose blocks were to be copied begins again: the originals may be gone.
    pub fn roll_back(&mut self, plan: &Plan) {
        for chunk in plan.chunks.iter().filter(|chunk| !chunk.copies.is_empty()) {
            self.reclaim(chunk.sequence_id);
        }
    }

    /// Adds a sampled token to a sequence, in its place if it was expected.
    pub fn append(&mut self, id: SequenceId, token_id: u32) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        match sequence.token_ids.last_mut() {
            Some(last) if sequence.awaits_token => *last = token_id,
            _ => sequence.token_ids.push(token_id),
        }
        sequence.awaits_token = false;
    }

    /// Makes room for a token that was drawn and is not known yet, so that the step after it can be planned.
    pub fn expect(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.token_ids.push(0);
            sequence.awaits_token = true;
        }
    }

    /// Adds a sequence that begins as `id` stands, and reads the same blocks.
    pub fn fork(&mut self, id: SequenceId, index: u32) {
        if let Some(sequence) = self.sequences.get(&id) {
            let lease = self.cache.share(sequence);
            self.add(sequence.fork(SequenceId { index, ..id }, lease));
        }
    }

    /// Stops planning a sequence, or goes on with it.
    pub fn pause(&mut self, id: SequenceId, paused: bool) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.paused = paused;
        }
    }

    /// Forgets a sequence in whatever state it is, and takes back all it holds.
    pub fn remove(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.cache.release(&mut sequence);
        }
    }

    /// A sequence.
    pub fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// All sequences, in the order of service.
    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.values()
    }

    /// How the cache's blocks stand, group by group.
    pub fn blocks(&self) -> Vec<BlockCounts> {
        self.cache.counts()
    }

    /// What has happened so far.
    pub fn counts(&self) -> SchedulerCounts {
        self.counts
    }

    fn is_decoding(&self, id: SequenceId) -> bool {
        self.get(id).is_some_and(Sequence::is_decoding)
    }

    fn is_running(&self, id: SequenceId) -> bool {
        self.get(id).is_some_and(Sequence::is_running)
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
