//! A block: its warps in turn, and its barriers.

use crate::exec::Env;
use crate::fault::{Fault, Trouble};
use crate::kernel::{Kernel, Op, VerdictKind};
use crate::lanes::{Mask, lanes_of};
use crate::shared::Shared;
use crate::warp::{State, Warp, Wrong};
use crate::within_block::Known;

/// How many steps a warp runs before others have their turn.
const TURN: u32 = 20_000;
const NUM_BARRIERS: usize = 16;

/// The barriers of a block.
#[derive(Default)]
pub(crate) struct Barriers {
    barriers: [Waiting; NUM_BARRIERS],
    /// How many threads have not ended.
    alive: u32,
}

#[derive(Clone, Copy, Default)]
struct Waiting {
    /// How many threads came.
    arrived: u32,
    /// How many must come; none for all.
    count: Option<u32>,
    /// The step of those that came first.
    at: u32,
    /// What those who came know.
    known: Known,
    num_yes: u32,
}

/// Lanes that come to a barrier.
pub(crate) struct Arrival {
    pub(crate) id: usize,
    pub(crate) count: Option<u32>,
    pub(crate) at: u32,
    pub(crate) warp: usize,
    pub(crate) lanes: Mask,
    /// Whether they come as a whole warp.
    pub(crate) is_warp: bool,
    /// For `barrier.red`: which of them say yes.
    pub(crate) yes: Option<Mask>,
}

impl Barriers {
    /// Notes who comes.
    pub(crate) fn arrive(&mut self, arrival: &Arrival, shared: &mut Shared) -> Result<(), Trouble> {
        let Some(barrier) = self.barriers.get_mut(arrival.id) else {
            return Err(Trouble::warp(format_args!(
                "barrier {}, expected less than {NUM_BARRIERS}",
                arrival.id
            )));
        };
        if let Some(count) = arrival.count.filter(|count| *count == 0 || !count.is_multiple_of(32)) {
            return Err(Trouble::warp(format_args!(
                "a barrier of {count} threads, expected a multiple of 32"
            )));
        }
        if barrier.arrived > 0 && barrier.count != arrival.count {
            return Err(Trouble::warp(format_args!(
                "barrier {} of {:?} threads, others wait there for {:?}",
                arrival.id, arrival.count, barrier.count
            )));
        }
        if barrier.arrived == 0 {
            *barrier = Waiting { count: arrival.count, at: arrival.at, ..Waiting::default() };
        }
        // A barrier of the whole block is one place in the program, unless a count makes it a meeting of several.
        if barrier.count.is_none() && barrier.at != arrival.at {
            return Err(Trouble::warp(format_args!(
                "barrier divergence: warp {} comes to another barrier {} of all threads than those before it",
                arrival.warp, arrival.id
            )));
        }
        // Where threads are counted, a warp that comes as a whole counts as 32, however many of them are there.
        let whole = arrival.is_warp && arrival.count.is_some();
        barrier.arrived += if whole { 32 } else { arrival.lanes.count_ones() };
        barrier.num_yes += arrival.yes.unwrap_or(0).count_ones();
        if let Some(count) = barrier.count.filter(|count| barrier.arrived > *count) {
            return Err(Trouble::warp(format_args!(
                "{} threads came to a barrier of {count}",
                barrier.arrived
            )));
        }
        shared.clocks.arrive(arrival.warp, &mut barrier.known);
        Ok(())
    }

    /// Lets those go on who wait for nobody any more; true if there are any.
    fn release(&mut self, warps: &mut [Warp], env: &mut Env<'_>) -> bool {
        let mut any = false;
        for (id, barrier) in self.barriers.iter_mut().enumerate() {
            if barrier.arrived == 0 || barrier.arrived < barrier.count.unwrap_or(self.alive) {
                continue;
            }
            for warp in warps.iter_mut() {
                let lanes = warp.waiting(id);
                if lanes != 0 {
                    env.shared.clocks.leave(warp.number, &barrier.known);
                    tell(warp, lanes, barrier, env.kernel);
                    warp.leave_barrier(id);
                }
            }
            *barrier = Waiting::default();
            any = true;
        }
        any
    }
}

fn tell(warp: &mut Warp, lanes: Mask, barrier: &Waiting, kernel: &Kernel) {
    let Op::Barrier(op) = &kernel.steps[barrier.at as usize].op else { return };
    let Some(verdict) = &op.verdict else { return };
    match verdict.kind {
        VerdictKind::Count(d) => warp.put(d, lanes, &[u64::from(barrier.num_yes); 32]),
        VerdictKind::And(p) => warp.put_verdict(p, lanes, barrier.num_yes == barrier.arrived),
        VerdictKind::Or(p) => warp.put_verdict(p, lanes, barrier.num_yes > 0),
    }
}

/// What all blocks of a launch have in common.
pub(crate) struct Plan {
    /// Threads of a block along each axis.
    pub(crate) block: [u32; 3],
    /// From which the order of warps follows; 0 for ascending.
    pub(crate) seed: u64,
    /// How many steps all warps may make.
    pub(crate) max_steps: u64,
}

impl Plan {
    /// How many threads a block has.
    pub(crate) fn num_threads(&self) -> u32 {
        self.block.iter().product()
    }
}

/// Runs a block to its end.
pub(crate) fn run(plan: &Plan, warps: &mut [Warp], env: &mut Env<'_>) -> Result<(), Fault> {
    let mut barriers = Barriers::default();
    let mut order: Vec<usize> = (0..warps.len()).collect();
    let mut random = Random(plan.seed ^ u64::from(env.block).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    loop {
        if plan.seed != 0 {
            random.shuffle(&mut order);
        }
        let mut any = false;
        for at in &order {
            let warp = &mut warps[*at];
            if warp.is_ready() {
                any = true;
                let wrong = warp.run(env, &mut barriers, TURN);
                wrong.map_err(|(step, trouble)| describe(plan, env, *at, (step, trouble)))?;
            }
            if env.report.instructions > plan.max_steps {
                return Err(Fault::new(format_args!(
                    "kernel {}: more than {} instructions; block {} does not end",
                    env.kernel.name, plan.max_steps, env.block
                )));
            }
        }
        barriers.alive = warps.iter().map(|warp| warp.alive.count_ones()).sum();
        if barriers.alive == 0 {
            return Ok(());
        }
        if !barriers.release(warps, env) && !any {
            return Err(Fault::new(format_args!("kernel {}: {}", env.kernel.name, deadlock(warps, env))));
        }
    }
}

fn describe(plan: &Plan, env: &Env<'_>, warp: usize, (step, trouble): Wrong) -> Fault {
    let line = env.kernel.steps[step as usize].line;
    let place = format!("kernel {}, PTX line {line}, block {}", env.kernel.name, env.block);
    let Some(lane) = trouble.lane else {
        return Fault::new(format_args!("{place}, warp {warp}: {}", trouble.what));
    };
    let thread = (warp * 32 + lane) as u32;
    let [x, y, _] = plan.block;
    let at = [thread % x, thread / x % y, thread / x / y];
    Fault::new(format_args!("{place}, thread {thread} {at:?}: {}", trouble.what))
}

fn deadlock(warps: &[Warp], env: &Env<'_>) -> String {
    let mut text = format!("deadlock in block {}: nobody can go on", env.block);
    for warp in warps {
        for strand in &warp.strands {
            let what = match strand.state {
                State::ForLanes => "wait for other lanes of their warp".to_owned(),
                State::AtBarrier(id) => format!("wait at barrier {id}"),
                State::Ready => "are ready".to_owned(),
            };
            let line = env.kernel.steps[strand.at as usize].line;
            text +=
                &format!("; lanes {:#010x} of warp {} {what} in PTX line {line}", strand.lanes, warp.number);
        }
        let ended = lanes_of(!warp.alive).count();
        if warp.alive != 0 && ended > 0 {
            text += &format!("; {ended} lanes of warp {} have ended", warp.number);
        }
    }
    text
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for at in (1..order.len()).rev() {
            order.swap(at, self.next() as usize % (at + 1));
        }
    }
}
