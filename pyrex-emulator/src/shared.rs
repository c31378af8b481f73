//! [`Shared`]: a block's shared memory, and who touched what of it.
//!
//! A thread may touch what another one wrote, or write what another one read, only if a barrier lies between.

use crate::within_block::{Clocks, MANY, Thread, Touched, Written};
use std::collections::HashMap;
use std::ops::Range;

/// The biggest shared memory that a block can have.
pub(crate) const MOST: u32 = 227 * 1024;

/// What is known of a few bytes.
#[derive(Clone, Copy, Default)]
struct Granule {
    written: Written,
    /// Who read it since.
    read: Touched,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// There were atomics since it was written.
    Atomic,
    /// A copy is under way, for which nobody has waited.
    Pending,
}

/// What a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// A store.
    Plain,
    /// An atomic, which also reads.
    Atomic,
    /// The beginning of an asynchronous copy.
    Begin,
    /// Its end.
    End,
}

/// Shared memory of a block.
pub(crate) struct Shared {
    data: Vec<u8>,
    granules: Vec<Granule>,
    /// Whose atomics there were on a granule since it was written.
    atomics: HashMap<usize, Touched>,
    /// The logarithm of how many bytes a granule has.
    granule_shift: u32,
    /// Who knows what of whom.
    pub(crate) clocks: Clocks,
}

impl Shared {
    /// `len` bytes that nobody wrote; accesses are of `granule` bytes or multiples.
    pub(crate) fn new(len: u32, granule: u32, num_warps: usize) -> Self {
        Self {
            data: vec![0; len as usize],
            granules: vec![Granule::default(); len.div_ceil(granule) as usize],
            atomics: HashMap::new(),
            granule_shift: granule.trailing_zeros(),
            clocks: Clocks::new(num_warps),
        }
    }

    /// Begins the next block with it.
    pub(crate) fn reset(&mut self) {
        self.granules.fill(Granule::default());
        self.atomics.clear();
        self.clocks.reset();
    }

    fn range(&self, address: u64, len: usize) -> Result<Range<usize>, String> {
        match address.checked_add(len as u64) {
            Some(end) if end <= self.data.len() as u64 => Ok(address as usize..end as usize),
            _ => Err(format!(
                "{len} bytes at {address:#x} of shared memory, expected less than {:#x}",
                self.data.len()
            )),
        }
    }

    fn granules_of(&self, range: &Range<usize>) -> Range<usize> {
        range.start >> self.granule_shift..((range.end - 1) >> self.granule_shift) + 1
    }

    /// Reads bytes; `whole_warp` if all its lanes get them.
    pub(crate) fn read(
        &mut self,
        address: u64,
        len: usize,
        by: Thread,
        whole_warp: bool,
    ) -> Result<&[u8], String> {
        let range = self.range(address, len)?;
        for at in self.granules_of(&range) {
            let granule = &self.granules[at];
            if granule.written.when == 0 || granule.state == State::Pending {
                return Err(self.unreadable(at));
            }
            if !self.clocks.knows(by, granule.written, whole_warp) {
                return Err(self.race(at, "read", "written"));
            }
            if granule.state == State::Atomic {
                self.check_atomics(at, by, "read")?;
            }
            let granule = &mut self.granules[at];
            granule.read = self.clocks.touch(granule.read, by, whole_warp);
        }
        Ok(&self.data[range])
    }

    /// Writes bytes.
    pub(crate) fn write(
        &mut self,
        address: u64,
        bytes: &[u8],
        by: Thread,
        kind: Write,
    ) -> Result<(), String> {
        let range = self.range(address, bytes.len())?;
        for at in self.granules_of(&range) {
            self.note_write(at, by, kind)?;
        }
        if kind != Write::Begin {
            self.data[range].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// What lies there, whoever wrote it: for an atomic, which checks when it writes.
    pub(crate) fn peek(&self, address: u64, len: usize) -> Result<&[u8], String> {
        let range = self.range(address, len)?;
        let unreadable =
            |at: &usize| self.granules[*at].written.when == 0 || self.granules[*at].state == State::Pending;
        match self.granules_of(&range).find(unreadable) {
            Some(at) => Err(self.unreadable(at)),
            None => Ok(&self.data[range]),
        }
    }

    fn note_write(&mut self, at: usize, by: Thread, kind: Write) -> Result<(), String> {
        let granule = self.granules[at];
        if kind != Write::End && granule.state == State::Pending {
            return Err(self.unreadable(at));
        }
        if granule.written.when != 0 && !self.clocks.knows(by, granule.written, false) {
            return Err(self.race(at, "written", "written"));
        }
        if let Some(reader) = self.clocks.unknown(by, granule.read) {
            return Err(self.race_with(at, "written", reader, "read"));
        }
        if kind == Write::Atomic {
            let before = self.atomics.get(&at).copied().unwrap_or_default();
            self.atomics.insert(at, self.clocks.touch(before, by, false));
            self.granules[at].state = State::Atomic;
            return Ok(());
        }
        if granule.state == State::Atomic {
            self.check_atomics(at, by, "written")?;
            self.atomics.remove(&at);
        }
        let state = if kind == Write::Begin { State::Pending } else { State::Plain };
        self.granules[at] = Granule { written: self.clocks.written(by), state, read: Touched::default() };
        Ok(())
    }

    fn check_atomics(&self, at: usize, by: Thread, now: &str) -> Result<(), String> {
        match self.atomics.get(&at).and_then(|touched| self.clocks.unknown(by, *touched)) {
            Some(other) => Err(self.race_with(at, now, other, "changed")),
            None => Ok(()),
        }
    }

    fn unreadable(&self, at: usize) -> String {
        let byte = at << self.granule_shift;
        let Granule { written, state, .. } = self.granules[at];
        match state {
            State::Pending => format!(
                "byte {byte:#x} of shared memory is being copied by {}, which has not waited for it",
                name(written.warp, written.lane)
            ),
            _ => format!("nobody wrote byte {byte:#x} of shared memory"),
        }
    }

    fn race(&self, at: usize, now: &str, before: &str) -> String {
        let Written { warp, lane, .. } = self.granules[at].written;
        self.race_with(at, now, (warp, lane), before)
    }

    fn race_with(&self, at: usize, now: &str, (warp, lane): (u8, u8), before: &str) -> String {
        let (byte, who) = (at << self.granule_shift, name(warp, lane));
        format!("byte {byte:#x} of shared memory is {now} and {who} has {before} it, with no barrier between")
    }
}

fn name(warp: u8, lane: u8) -> String {
    match lane {
        MANY => format!("warp {warp}"),
        _ => format!("thread {}", u32::from(warp) * 32 + u32::from(lane)),
    }
}
