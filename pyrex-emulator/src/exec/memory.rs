//! Loads, stores and atomics.

use super::Env;
use crate::decode::windows::{LOCAL, PARAMETER, SHARED, WINDOW};
use crate::fault::Trouble;
use crate::kernel::{Access, AddressSpace, Slot, Strength};
use crate::lanes::{Mask, lanes_of};
use crate::memory::copy_few;
use crate::report::{bank_conflicts, sectors};
use crate::shared::Write;
use crate::types::{sign_extend, truncate};
use crate::warp::Warp;

/// Where an access goes, lane by lane.
pub(super) type Addresses = [u64; 32];

/// A space with the lanes that access it.
type Spaces = [(AddressSpace, Mask); 4];

impl Warp {
    /// Which lanes access which space, and where.
    pub(super) fn addresses(&self, access: &Access, active: Mask) -> (Addresses, Spaces) {
        let offset = access.offset as u64;
        let mut addresses = self.registers[access.address as usize].map(|base| base.wrapping_add(offset));
        let none = (AddressSpace::Global, 0);
        match access.space {
            AddressSpace::Generic => {
                let spaces = split(&mut addresses, active);
                (addresses, spaces)
            }
            AddressSpace::Shared => {
                // Such addresses may be computed in 32 bits, and wrap around there.
                addresses = addresses.map(|address| address & 0xffff_ffff);
                (addresses, [(AddressSpace::Shared, active), none, none, none])
            }
            space => (addresses, [(space, active), none, none, none]),
        }
    }

    pub(super) fn load(
        &mut self,
        access: &Access,
        d: &[Option<Slot>],
        (sign_from, width): (Option<u32>, u32),
        active: Mask,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        let bytes = access.bytes as usize;
        let len = bytes * d.len();
        let (addresses, spaces) = self.addresses(access, active);
        for (space, lanes) in spaces.into_iter().filter(|(_, lanes)| *lanes != 0) {
            note(env, space, &addresses, (len, lanes), false);
            for lane in lanes_of(lanes) {
                let address = aligned(addresses[lane], len, lane)?;
                let buffer = self
                    .fetch(space, (address, len), (lane, access.strength), env)
                    .map_err(|what| Trouble::lane(lane, what))?;
                for (slot, at) in d.iter().zip((0..).step_by(bytes)) {
                    let Some(slot) = slot else { continue };
                    let value = element(&buffer, at, bytes);
                    self.registers[*slot as usize][lane] = match sign_from {
                        Some(from) => truncate(sign_extend(value, from), width),
                        None => value,
                    };
                }
            }
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        space: AddressSpace,
        (address, len): (u64, usize),
        (lane, strength): (usize, Strength),
        env: &mut Env<'_>,
    ) -> Result<[u8; 16], String> {
        let mut buffer = [0; 16];
        match space {
            AddressSpace::Shared => {
                copy_few(env.shared.read(address, len, (self.number, lane), false)?, &mut buffer);
            }
            AddressSpace::Local => copy_few(&self.local[self.local_range(address, len, lane)?], &mut buffer),
            AddressSpace::Parameter => {
                let range = address as usize..(address as usize).saturating_add(len);
                let found =
                    env.parameters.get(range).ok_or_else(|| format!("no parameter at {address:#x}"))?;
                copy_few(found, &mut buffer);
            }
            AddressSpace::Global | AddressSpace::Constant | AddressSpace::Generic => {
                let purpose = env.purpose(strength);
                buffer = env.memory.read_few(address, len, purpose)?;
                if strength == Strength::Strong {
                    env.memory.meet(env.block, address);
                }
            }
        }
        Ok(buffer)
    }

    pub(super) fn store(
        &mut self,
        access: &Access,
        s: &[Slot],
        active: Mask,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        let bytes = access.bytes as usize;
        let len = bytes * s.len();
        let (addresses, spaces) = self.addresses(access, active);
        for (space, lanes) in spaces.into_iter().filter(|(_, lanes)| *lanes != 0) {
            note(env, space, &addresses, (len, lanes), true);
            // Lanes that write the same to one place in one instruction do no harm.
            let mut done: Vec<(u64, [u8; 16])> = Vec::new();
            let may_meet = space == AddressSpace::Shared && !is_ascending(&addresses, lanes);
            for lane in lanes_of(lanes) {
                let mut buffer = [0; 16];
                for (slot, element) in s.iter().zip(buffer.chunks_exact_mut(bytes)) {
                    element.copy_from_slice(&self.registers[*slot as usize][lane].to_le_bytes()[..bytes]);
                }
                let address = aligned(addresses[lane], len, lane)?;
                if may_meet {
                    if done.contains(&(address, buffer)) {
                        continue;
                    }
                    done.push((address, buffer));
                }
                self.keep(space, address, &buffer[..len], (lane, access.strength), env)
                    .map_err(|what| Trouble::lane(lane, what))?;
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        space: AddressSpace,
        address: u64,
        buffer: &[u8],
        (lane, strength): (usize, Strength),
        env: &mut Env<'_>,
    ) -> Result<(), String> {
        match space {
            AddressSpace::Shared => env.shared.write(address, buffer, (self.number, lane), Write::Plain),
            AddressSpace::Local => {
                let range = self.local_range(address, buffer.len(), lane)?;
                self.local[range].copy_from_slice(buffer);
                Ok(())
            }
            AddressSpace::Parameter | AddressSpace::Constant => {
                Err(format!("{address:#x} is written, which is constant"))
            }
            AddressSpace::Global | AddressSpace::Generic => {
                let purpose = env.purpose(strength);
                env.memory.write(address, buffer, purpose)?;
                if strength == Strength::Strong {
                    env.memory.meet(env.block, address);
                }
                Ok(())
            }
        }
    }

    fn local_range(&self, address: u64, len: usize, lane: usize) -> Result<std::ops::Range<usize>, String> {
        let all = self.local.len() / 32;
        match address.checked_add(len as u64) {
            Some(end) if end <= all as u64 => Ok(lane * all + address as usize..lane * all + end as usize),
            _ => Err(format!("{len} bytes at {address:#x} of local memory, expected less than {all:#x}")),
        }
    }

    /// An atomic: `new` says what is written, if anything.
    pub(super) fn update(
        &mut self,
        access: &Access,
        d: Option<Slot>,
        active: Mask,
        env: &mut Env<'_>,
        new: impl Fn(usize, u64) -> Option<u64>,
    ) -> Result<(), Trouble> {
        let len = access.bytes as usize;
        let (addresses, spaces) = self.addresses(access, active);
        for (space, lanes) in spaces.into_iter().filter(|(_, lanes)| *lanes != 0) {
            note(env, space, &addresses, (len, lanes), false);
            note(env, space, &addresses, (len, lanes), true);
            for lane in lanes_of(lanes) {
                let address = aligned(addresses[lane], len, lane)?;
                let place = Place { space, address, thread: (self.number, lane) };
                let old = exchange(place, len, env, |old| new(lane, old))
                    .map_err(|what| Trouble::lane(lane, what))?;
                if let Some(d) = d {
                    self.registers[d as usize][lane] = old;
                }
            }
        }
        Ok(())
    }
}

struct Place {
    space: AddressSpace,
    address: u64,
    thread: (usize, usize),
}

fn exchange(
    place: Place,
    len: usize,
    env: &mut Env<'_>,
    new: impl Fn(u64) -> Option<u64>,
) -> Result<u64, String> {
    let mut buffer = [0; 8];
    let buffer = &mut buffer[..len];
    if place.space == AddressSpace::Shared {
        let old = number(env.shared.peek(place.address, len)?);
        // One that changes nothing is an atomic all the same.
        let bits = new(old).unwrap_or(old).to_le_bytes();
        env.shared.write(place.address, &bits[..len], place.thread, Write::Atomic)?;
        return Ok(old);
    }
    if !matches!(place.space, AddressSpace::Global | AddressSpace::Generic) {
        return Err(format!("an atomic at {:#x} of {:?}", place.address, place.space));
    }
    let purpose = env.purpose(Strength::Strong);
    env.memory.read(place.address, buffer, purpose)?;
    let old = number(buffer);
    let bits = new(old).unwrap_or(old).to_le_bytes();
    env.memory.write(place.address, &bits[..len], purpose)?;
    env.memory.meet(env.block, place.address);
    Ok(old)
}

/// Counts what a warp's instruction moves.
pub(super) fn note(
    env: &mut Env<'_>,
    space: AddressSpace,
    addresses: &Addresses,
    (len, lanes): (usize, Mask),
    writes: bool,
) {
    let report = &mut env.report;
    let bytes = u64::from(lanes.count_ones()) * len as u64;
    match (space, writes) {
        (AddressSpace::Global | AddressSpace::Generic, false) => {
            report.sectors_read += sectors(addresses, len as u64, lanes);
            report.bytes_read += bytes;
        }
        (AddressSpace::Global | AddressSpace::Generic, true) => {
            report.sectors_written += sectors(addresses, len as u64, lanes);
            report.bytes_written += bytes;
        }
        (AddressSpace::Shared, _) => report.bank_conflicts += bank_conflicts(addresses, len as u64, lanes),
        _ => {}
    }
}

/// `address`, if it is a multiple of `len`.
#[inline]
pub(super) fn aligned(address: u64, len: usize, lane: usize) -> Result<u64, Trouble> {
    match address.is_multiple_of(len as u64) {
        true => Ok(address),
        false => Err(Trouble::lane(
            lane,
            format_args!("{address:#x} is not at a multiple of {len}, as {len} bytes must be"),
        )),
    }
}

/// Whether each lane's address is above that of the lane before.
fn is_ascending(addresses: &Addresses, lanes: Mask) -> bool {
    let mut last = None;
    lanes_of(lanes).all(|lane| last.replace(addresses[lane]).is_none_or(|last| last < addresses[lane]))
}

/// The element of `bytes` bytes at byte `at`.
#[inline]
fn element(buffer: &[u8; 16], at: usize, bytes: usize) -> u64 {
    match bytes {
        4 => u64::from(u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]])),
        _ => number(&buffer[at..at + bytes]),
    }
}

pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

fn split(addresses: &mut Addresses, active: Mask) -> Spaces {
    let mut spaces = [
        (AddressSpace::Global, 0),
        (AddressSpace::Shared, 0),
        (AddressSpace::Local, 0),
        (AddressSpace::Parameter, 0),
    ];
    for lane in lanes_of(active) {
        let windows = [SHARED, LOCAL, PARAMETER];
        let found = windows.iter().position(|window| addresses[lane].wrapping_sub(*window) < WINDOW);
        if let Some(at) = found {
            addresses[lane] -= windows[at];
        }
        spaces[found.map_or(0, |at| at + 1)].1 |= 1 << lane;
    }
    spaces
}
