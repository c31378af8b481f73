//! [`Warp`]: 32 threads, in strands of those that are at the same instruction.
//!
//! The strand that is furthest behind runs first, so that others are caught up with and go on together. A strand waits at an
//! instruction for lanes until all that it names have come, as on devices since Volta.

use crate::block::{Arrival, Barriers};
use crate::exec::{Copies, Env};
use crate::fault::Trouble;
use crate::kernel::{Barrier, Guard, Op, Pred, Slot, Step, Together};
use crate::lanes::{Lanes, Mask, lanes_of};

/// After how many steps a strand that waits for nobody has its turn, though it is not furthest behind: lanes that spin until
/// another one has done something must let it.
const PATIENCE: u32 = 512;

/// 32 threads.
pub(crate) struct Warp {
    /// Its number in the block.
    pub(crate) number: usize,
    pub(crate) registers: Vec<Lanes>,
    pub(crate) preds: Vec<Mask>,
    /// The lanes that have not ended.
    pub(crate) alive: Mask,
    /// Local memory: all of lane 0 first.
    pub(crate) local: Vec<u8>,
    pub(crate) copies: Copies,
    /// What stands at which instruction.
    pub(crate) strands: Vec<Strand>,
    /// How many steps were made while there was more than one strand, since another than the one furthest behind had its turn.
    overtaken: u32,
    /// How often another one had.
    turns: usize,
}

/// Lanes that are at the same instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strand {
    pub(crate) lanes: Mask,
    /// The step that comes next.
    pub(crate) at: u32,
    pub(crate) state: State,
}

/// Whether lanes can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// They wait for other lanes of the warp at this step.
    ForLanes,
    /// They wait at a barrier of the block.
    AtBarrier(usize),
}

/// What was wrong, and at which step.
pub(crate) type Wrong = (u32, Trouble);

/// Whether the current strand goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// With the step that it is at now.
    Same,
    /// The strands are not what they were.
    Choose,
}

impl Warp {
    /// A warp of which no lane runs yet.
    pub(crate) fn new(number: usize, registers: Vec<Lanes>, num_preds: usize, local_bytes: usize) -> Self {
        Self {
            number,
            registers,
            preds: vec![0; num_preds],
            alive: 0,
            local: vec![0; local_bytes * 32],
            copies: Copies::default(),
            strands: Vec::new(),
            overtaken: 0,
            turns: 0,
        }
    }

    /// Puts the lanes `alive` at the first step. Registers keep what they had; nobody may read that.
    pub(crate) fn begin(&mut self, alive: Mask) {
        self.preds.fill(0);
        self.preds[0] = !0;
        self.alive = alive;
        // What nobody wrote there reads as a pattern that no number looks like.
        self.local.fill(0xa5);
        self.copies = Copies::default();
        self.strands.clear();
        self.strands.push(Strand { lanes: alive, at: 0, state: State::Ready });
        self.overtaken = 0;
        self.turns = 0;
    }

    /// The lanes that a guard lets pass.
    pub(crate) fn guard(&self, guard: Guard) -> Mask {
        self.preds[guard.pred as usize] ^ guard.invert
    }

    /// Whether a strand can go on.
    pub(crate) fn is_ready(&self) -> bool {
        self.strands.iter().any(|strand| strand.state == State::Ready)
    }

    /// Runs until no strand can go on, or for `budget` steps.
    pub(crate) fn run(
        &mut self,
        env: &mut Env<'_>,
        barriers: &mut Barriers,
        budget: u32,
    ) -> Result<(), Wrong> {
        let mut left = budget;
        while let Some(current) = self.choose() {
            let stop = self.next_behind(current);
            loop {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                let at = self.strands[current].at;
                let next = self.step(current, env, barriers).map_err(|trouble| (at, trouble))?;
                if self.strands.len() > 1 {
                    self.overtaken += 1;
                }
                if next == Next::Choose || self.strands[current].at >= stop || self.overtaken >= PATIENCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Joins strands that are at the same step, and takes the one furthest behind, or in turn another one.
    fn choose(&mut self) -> Option<usize> {
        if let [strand] = self.strands[..] {
            return (strand.state == State::Ready).then_some(0);
        }
        self.strands.retain(|strand| strand.lanes != 0);
        self.strands.sort_by_key(|strand| (strand.state != State::Ready, strand.at));
        self.strands.dedup_by(|next, strand| {
            let joins = next.state == State::Ready && strand.state == State::Ready && next.at == strand.at;
            strand.lanes |= if joins { next.lanes } else { 0 };
            joins
        });
        let num_ready = self.strands.iter().filter(|strand| strand.state == State::Ready).count();
        if num_ready == 0 {
            return None;
        }
        if self.overtaken < PATIENCE || num_ready == 1 {
            return Some(0);
        }
        self.overtaken = 0;
        self.turns += 1;
        Some(1 + self.turns % (num_ready - 1))
    }

    /// The nearest step behind that of `current` at which another strand is ready.
    fn next_behind(&self, current: usize) -> u32 {
        let at = self.strands[current].at;
        let others = self.strands.iter().filter(|other| other.state == State::Ready && other.at > at);
        others.map(|other| other.at).min().unwrap_or(u32::MAX)
    }

    fn step(&mut self, current: usize, env: &mut Env<'_>, barriers: &mut Barriers) -> Result<Next, Trouble> {
        let Strand { lanes, at, .. } = self.strands[current];
        let kernel = env.kernel;
        let step: &Step = &kernel.steps[at as usize];
        let active = lanes & self.guard(step.guard);
        env.report.instructions += 1;
        match &step.op {
            Op::Branch(target) => Ok(self.branch(current, active, *target)),
            Op::Switch { index, targets } => self.switch(current, active, *index, targets),
            Op::Exit => Ok(self.exit(current, active)),
            Op::Together { .. } | Op::Aligned(_) | Op::Barrier(_) if active == 0 => {
                self.strands[current].at += 1;
                Ok(Next::Same)
            }
            Op::Together { what, members } => {
                self.separate(current, active);
                self.meet(current, what, *members, env)
            }
            Op::Aligned(what) => {
                self.separate(current, active);
                if !self.is_whole(current) {
                    return Ok(Next::Choose);
                }
                self.aligned(what, env)?;
                Ok(self.go_on(current))
            }
            Op::Barrier(barrier) => {
                self.separate(current, active);
                self.arrive(current, barrier, env, barriers)
            }
            op => {
                if active != 0 {
                    self.execute(op, active, env)?;
                }
                self.strands[current].at += 1;
                Ok(Next::Same)
            }
        }
    }

    /// Goes to the next step; others may be there.
    fn go_on(&mut self, current: usize) -> Next {
        self.strands[current].at += 1;
        if self.strands.len() == 1 { Next::Same } else { Next::Choose }
    }

    fn branch(&mut self, current: usize, active: Mask, target: u32) -> Next {
        let strand = &mut self.strands[current];
        if active == 0 {
            strand.at += 1;
            return Next::Same;
        }
        if active == strand.lanes {
            strand.at = target;
        } else {
            strand.lanes &= !active;
            strand.at += 1;
            self.strands.push(Strand { lanes: active, at: target, state: State::Ready });
        }
        if self.strands.len() == 1 { Next::Same } else { Next::Choose }
    }

    fn switch(
        &mut self,
        current: usize,
        active: Mask,
        index: Slot,
        targets: &[u32],
    ) -> Result<Next, Trouble> {
        let targets = self.lanes_of_switch(active, index, targets)?;
        let strand = &mut self.strands[current];
        strand.lanes &= !active;
        strand.at += 1;
        for (lane, at) in targets {
            self.strands.push(Strand { lanes: 1 << lane, at, state: State::Ready });
        }
        Ok(Next::Choose)
    }

    fn lanes_of_switch(
        &self,
        active: Mask,
        index: Slot,
        targets: &[u32],
    ) -> Result<Vec<(usize, u32)>, Trouble> {
        let target = |lane: usize| {
            let index = self.registers[index as usize][lane];
            let target = targets.get(index as usize).copied();
            target.map(|target| (lane, target)).ok_or_else(|| {
                Trouble::lane(lane, format_args!("it goes to target {index} of {}", targets.len()))
            })
        };
        lanes_of(active).map(target).collect()
    }

    fn exit(&mut self, current: usize, active: Mask) -> Next {
        self.alive &= !active;
        self.strands[current].lanes &= !active;
        self.strands[current].at += 1;
        self.strands.retain(|strand| strand.lanes != 0);
        // Whoever waits for those that ended waits no more.
        self.wake();
        Next::Choose
    }

    fn wake(&mut self) {
        for strand in &mut self.strands {
            if strand.state == State::ForLanes {
                strand.state = State::Ready;
            }
        }
    }

    /// Lanes of a strand that do not take part in its step go on without it; those that wait there join it.
    fn separate(&mut self, current: usize, active: Mask) {
        let Strand { lanes, at, .. } = self.strands[current];
        if active != lanes {
            self.strands[current].lanes = active;
            self.strands.push(Strand { lanes: lanes & !active, at: at + 1, state: State::Ready });
        }
        for other in 0..self.strands.len() {
            let strand = &mut self.strands[other];
            if other != current && strand.at == at && strand.state == State::ForLanes {
                let lanes = std::mem::take(&mut strand.lanes);
                strand.state = State::Ready;
                self.strands[current].lanes |= lanes;
            }
        }
        // Empty ones are dropped when strands are chosen next; here numbers must stay.
    }

    /// Whether all lanes that are alive have come; if not, those that have wait.
    fn is_whole(&mut self, current: usize) -> bool {
        let whole = self.strands[current].lanes == self.alive;
        if !whole {
            self.strands[current].state = State::ForLanes;
        }
        whole
    }

    fn meet(
        &mut self,
        current: usize,
        what: &Together,
        members: Slot,
        env: &mut Env<'_>,
    ) -> Result<Next, Trouble> {
        let Strand { lanes, at, .. } = self.strands[current];
        let members = self.registers[members as usize];
        let first = members[lanes.trailing_zeros() as usize] as Mask;
        if first & self.alive == lanes && lanes_of(lanes).all(|lane| members[lane] as Mask == first) {
            self.together(what, lanes, env)?;
            return Ok(self.go_on(current));
        }
        let mut rest = lanes;
        self.strands[current].lanes = 0;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let named = members[first] as Mask;
            if named >> first & 1 == 0 {
                return Err(Trouble::lane(
                    first,
                    format_args!("it is not among the lanes {named:#x} that it names"),
                ));
            }
            let alike = lanes_of(rest & named).filter(|lane| members[*lane] as Mask == named);
            let group = alike.fold(0, |group, lane| group | 1 << lane);
            rest &= !group;
            let strand = match group == named & self.alive {
                true => {
                    self.together(what, group, env)?;
                    Strand { lanes: group, at: at + 1, state: State::Ready }
                }
                false => Strand { lanes: group, at, state: State::ForLanes },
            };
            self.strands.push(strand);
        }
        Ok(Next::Choose)
    }

    fn arrive(
        &mut self,
        current: usize,
        barrier: &Barrier,
        env: &mut Env<'_>,
        barriers: &mut Barriers,
    ) -> Result<Next, Trouble> {
        if barrier.aligned && !self.is_whole(current) {
            return Ok(Next::Choose);
        }
        let Strand { lanes, at, .. } = self.strands[current];
        let first = lanes.trailing_zeros() as usize;
        let id = self.registers[barrier.id as usize][first] as usize;
        let arrival = Arrival {
            id,
            count: barrier.count.map(|count| self.registers[count as usize][first] as u32),
            at,
            warp: self.number,
            lanes,
            is_warp: barrier.aligned,
            yes: barrier.verdict.map(|verdict| self.guard(verdict.given) & lanes),
        };
        barriers.arrive(&arrival, &mut env.shared)?;
        if barrier.arrives {
            return Ok(self.go_on(current));
        }
        self.strands[current].state = State::AtBarrier(id);
        Ok(Next::Choose)
    }

    /// The strands that wait at barrier `id` go on.
    pub(crate) fn leave_barrier(&mut self, id: usize) {
        for strand in &mut self.strands {
            if strand.state == State::AtBarrier(id) {
                strand.state = State::Ready;
                strand.at += 1;
            }
        }
    }

    /// The lanes that wait at barrier `id`.
    pub(crate) fn waiting(&self, id: usize) -> Mask {
        let waiting = self.strands.iter().filter(|strand| strand.state == State::AtBarrier(id));
        waiting.fold(0, |all, strand| all | strand.lanes)
    }

    /// Writes what a barrier found.
    pub(crate) fn put_verdict(&mut self, pred: Pred, lanes: Mask, yes: bool) {
        self.put_pred(Some(pred), lanes, if yes { !0 } else { 0 });
    }
}
