//! What instructions do to a warp and to memory.

mod collective;
mod copies;
mod matrix;
mod memory;

pub(crate) use copies::Copies;

use crate::fault::Trouble;
use crate::kernel::{Carry, Kernel, Op, Slot, Strength};
use crate::lanes::{Lanes, Mask, lanes_of};
use crate::memory::{Memory, Purpose};
use crate::report::Report;
use crate::shared::Shared;
use crate::warp::Warp;

/// What surrounds a warp: its block and the launch.
pub(crate) struct Env<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) parameters: &'a [u8],
    pub(crate) memory: &'a mut Memory,
    pub(crate) shared: Shared,
    pub(crate) report: Report,
    /// The block's number in the grid.
    pub(crate) block: u32,
}

impl Env<'_> {
    /// That a block accesses memory.
    pub(crate) fn purpose(&self, strength: Strength) -> Purpose {
        Purpose::Block { block: self.block, strength }
    }
}

impl Warp {
    /// Executes an instruction that goes on to the next one.
    pub(crate) fn execute(&mut self, op: &Op, active: Mask, env: &mut Env<'_>) -> Result<(), Trouble> {
        match op {
            Op::Map { f, d, s } => {
                let mut result = [0; 32];
                let [a, b, c] = s.map(|slot| &self.registers[slot as usize]);
                f([a, b, c], &mut result);
                self.put(*d, active, &result);
            }
            Op::Test { f, a, b, d, not_d, with } => {
                let holds = f(&self.registers[*a as usize], &self.registers[*b as usize]);
                let combine = |mask| match with {
                    Some((logic, guard)) => logic.apply(mask, self.guard(*guard)),
                    None => mask,
                };
                let (yes, no) = (combine(holds), combine(!holds));
                self.put_pred(*d, active, yes);
                self.put_pred(*not_d, active, no);
            }
            Op::Select { d, a, b, p } => {
                let p = self.guard(*p);
                let (a, b) = (&self.registers[*a as usize], &self.registers[*b as usize]);
                let result = std::array::from_fn(|lane| if p >> lane & 1 == 1 { a[lane] } else { b[lane] });
                self.put(*d, active, &result);
            }
            Op::Logic { f, d, a, b } => {
                let result = f.apply(self.guard(*a), self.guard(*b));
                self.put_pred(Some(*d), active, result);
            }
            Op::Unpack { a, d, bits } => self.unpack(*a, d, *bits, active),
            Op::Pack { s, d, bits } => self.pack(s, *d, *bits, active),
            Op::Carry(carry) => self.carry(carry, active),
            Op::Load { access, d, sign_from, width } => {
                self.load(access, d, (*sign_from, *width), active, env)?
            }
            Op::Store { access, s } => self.store(access, s, active, env)?,
            Op::Atomic { access, f, d, b } => {
                let b = self.registers[*b as usize];
                self.update(access, *d, active, env, |lane, old| Some(f(old, b[lane])))?;
            }
            Op::Exchange { access, d, b, c } => {
                let (b, c) = (self.registers[*b as usize], self.registers[*c as usize]);
                self.update(access, *d, active, env, |lane, old| (old == b[lane]).then_some(c[lane]))?;
            }
            Op::Copy { to, from, source_bytes } => self.copy(to, from, *source_bytes, active, env)?,
            Op::CommitCopies => self.copies.commit(active),
            Op::WaitCopies(groups) => self.wait_copies(*groups, active, env)?,
            Op::ActiveMask(d) => self.put(*d, active, &[u64::from(active); 32]),
            Op::Fence => env.memory.fence(env.block),
            Op::Trap(what) => return Err(Trouble::lane(active.trailing_zeros() as usize, what)),
            Op::Clock(d) => self.put(*d, active, &[env.report.instructions; 32]),
            Op::Nothing => {}
            Op::Together { .. } | Op::Aligned(_) | Op::Barrier(_) => unreachable!("the warp does these"),
            Op::Branch(_) | Op::Switch { .. } | Op::Exit => unreachable!("the warp does these"),
        }
        Ok(())
    }

    /// Writes the lanes of `active`.
    pub(crate) fn put(&mut self, d: Slot, active: Mask, values: &Lanes) {
        let register = &mut self.registers[d as usize];
        if active == !0 {
            *register = *values;
            return;
        }
        for lane in 0..32 {
            if active >> lane & 1 == 1 {
                register[lane] = values[lane];
            }
        }
    }

    /// Writes the lanes of `active` of a predicate.
    pub(crate) fn put_pred(&mut self, d: Option<u32>, active: Mask, value: Mask) {
        if let Some(d) = d {
            let pred = &mut self.preds[d as usize];
            *pred = *pred & !active | value & active;
        }
    }

    fn unpack(&mut self, a: Slot, d: &[Option<Slot>], bits: u32, active: Mask) {
        let a = self.registers[a as usize];
        for (at, slot) in d.iter().enumerate() {
            if let Some(slot) = slot {
                let part = a.map(|a| crate::types::truncate(a >> (at as u32 * bits), bits));
                self.put(*slot, active, &part);
            }
        }
    }

    fn pack(&mut self, s: &[Slot], d: Slot, bits: u32, active: Mask) {
        let mut all = [0; 32];
        for (at, slot) in s.iter().enumerate() {
            for (all, part) in all.iter_mut().zip(&self.registers[*slot as usize]) {
                *all |= crate::types::truncate(*part, bits) << (at as u32 * bits);
            }
        }
        self.put(d, active, &all);
    }

    fn carry(&mut self, op: &Carry, active: Mask) {
        let before = self.preds[op.carry as usize];
        let mut after = before;
        for lane in lanes_of(active) {
            let sources = op.s.map(|slot| self.registers[slot as usize][lane]);
            let (result, carry) = (op.f)(sources, op.takes && before >> lane & 1 == 1);
            self.registers[op.d as usize][lane] = result;
            after = after & !(1 << lane) | u32::from(carry) << lane;
        }
        if op.keeps {
            self.preds[op.carry as usize] = after;
        }
    }
}
