//! Asynchronous copies: what is copied arrives when its thread waits, and may not be read before.

use super::Env;
use super::memory::{aligned, note};
use crate::fault::Trouble;
use crate::kernel::{Access, AddressSpace, Slot, Strength};
use crate::lanes::{Mask, lanes_of};
use crate::shared::Write;
use crate::warp::Warp;

/// The copies of a warp that are under way.
#[derive(Default)]
pub(crate) struct Copies {
    pending: Vec<Pending>,
    /// How many groups each lane has closed.
    groups: [u32; 32],
}

struct Pending {
    lane: usize,
    /// In which group of its lane.
    group: u32,
    to: u64,
    len: usize,
    bytes: [u8; 16],
}

impl Copies {
    /// Closes a group of each lane.
    pub(crate) fn commit(&mut self, active: Mask) {
        lanes_of(active).for_each(|lane| self.groups[lane] += 1);
    }
}

impl Warp {
    pub(super) fn copy(
        &mut self,
        to: &Access,
        from: &Access,
        source_bytes: Option<Slot>,
        active: Mask,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        let len = to.bytes as usize;
        let (to, _) = self.addresses(to, active);
        let (from, _) = self.addresses(from, active);
        let read = |warp: &Self, lane: usize| match source_bytes {
            Some(slot) => (warp.registers[slot as usize][lane] as usize).min(len),
            None => len,
        };
        let reading =
            lanes_of(active).filter(|lane| read(self, *lane) > 0).fold(0, |all, lane| all | 1 << lane);
        if reading != 0 {
            note(env, AddressSpace::Global, &from, (len, reading), false);
        }
        note(env, AddressSpace::Shared, &to, (len, active), true);
        for lane in lanes_of(active) {
            let trouble = |what| Trouble::lane(lane, what);
            let mut bytes = [0; 16];
            let read = read(self, lane);
            let from = aligned(from[lane], len, lane)?;
            if read > 0 {
                let purpose = env.purpose(Strength::Weak);
                env.memory.read(from, &mut bytes[..read], purpose).map_err(trouble)?;
            }
            let to = aligned(to[lane], len, lane)?;
            env.shared.write(to, &bytes[..len], (self.number, lane), Write::Begin).map_err(trouble)?;
            let group = self.copies.groups[lane];
            self.copies.pending.push(Pending { lane, group, to, len, bytes });
        }
        Ok(())
    }

    /// Waits until at most `groups` of each lane's groups are under way; without a number, until no copy is.
    pub(super) fn wait_copies(
        &mut self,
        groups: Option<u32>,
        active: Mask,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        let closed = self.copies.groups;
        let is_done = |one: &mut Pending| {
            active >> one.lane & 1 == 1 && groups.is_none_or(|groups| one.group + groups < closed[one.lane])
        };
        for one in self.copies.pending.extract_if(.., is_done) {
            let thread = (self.number, one.lane);
            env.shared
                .write(one.to, &one.bytes[..one.len], thread, Write::End)
                .map_err(|what| Trouble::lane(one.lane, what))?;
        }
        Ok(())
    }
}
