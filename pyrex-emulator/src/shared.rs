//! [`Shared`]: a block's shared memory, and who touched what of it since when.
//!
//! Every access bears the block's clock, which moves on at each barrier. A thread may touch what another one wrote, or write what
//! another one read, only if a barrier lies between: the warps of `bar.sync` know of each other all up to it, the lanes of
//! `bar.warp.sync` as well. No other instruction makes an order, as on a device.

use crate::lanes::{Mask, lanes_of};

/// The biggest shared memory that a block can have.
pub(crate) const MOST: u32 = 227 * 1024;

/// A thread of a block: warp and lane.
pub(crate) type Thread = (usize, usize);

const MANY: u8 = 0xff;

/// What is known of a few bytes.
#[derive(Clone, Copy, Default)]
struct Granule {
    /// When it was written last; 0 if never.
    written: u32,
    /// When it was read last since.
    read: u32,
    /// Which warps read it since.
    readers: Mask,
    /// The thread that wrote it: warp and lane.
    writer: (u8, u8),
    /// The lane that read it, or `MANY`.
    reader: u8,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// By an atomic.
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
    granule: usize,
    clock: u32,
    /// Up to when a warp knows all that another one did.
    known: Vec<[u32; 32]>,
    /// Up to when a warp knows all that everybody did.
    known_of_all: Vec<u32>,
    /// Up to when lanes of a warp know of each other, if only some of them met.
    lanes: Vec<Option<Box<[[u32; 32]; 32]>>>,
}

impl Shared {
    /// `len` bytes that nobody wrote; accesses are of `granule` bytes or multiples.
    pub(crate) fn new(len: u32, granule: u32, num_warps: usize) -> Self {
        let granule = granule as usize;
        Self {
            data: vec![0; len as usize],
            granules: vec![Granule::default(); (len as usize).div_ceil(granule)],
            granule,
            clock: 1,
            known: vec![[0; 32]; num_warps],
            known_of_all: vec![0; num_warps],
            lanes: vec![None; num_warps],
        }
    }

    /// Begins the next block with it.
    pub(crate) fn reset(&mut self) {
        self.granules.fill(Granule::default());
        self.clock = 1;
        self.known.fill([0; 32]);
        self.known_of_all.fill(0);
        self.lanes.fill(None);
    }

    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, String> {
        match address.checked_add(len as u64) {
            Some(end) if end <= self.data.len() as u64 => Ok(address as usize..end as usize),
            _ => Err(format!(
                "{len} bytes at {address:#x} of shared memory, expected less than {:#x}",
                self.data.len()
            )),
        }
    }

    fn granules_of(&self, range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        range.start / self.granule..range.end.div_ceil(self.granule)
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
            let granule = self.granules[at];
            if granule.written == 0 || granule.state == State::Pending {
                return Err(self.unreadable(at));
            }
            if !self.is_written_before(&granule, by, whole_warp) {
                return Err(self.race(at, "read", granule.writer, "written"));
            }
            self.note_read(at, by, whole_warp);
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
        match self
            .granules_of(&range)
            .find(|at| self.granules[*at].written == 0 || self.granules[*at].state == State::Pending)
        {
            Some(at) => Err(self.unreadable(at)),
            None => Ok(&self.data[range]),
        }
    }

    fn is_written_before(&self, granule: &Granule, by: Thread, whole_warp: bool) -> bool {
        let (warp, lane) = by;
        if granule.written <= self.known_of_all[warp] {
            return true;
        }
        let (other_warp, other_lane) = (usize::from(granule.writer.0), usize::from(granule.writer.1));
        if granule.written <= self.known[warp][other_warp] {
            return true;
        }
        warp == other_warp
            && !whole_warp
            && (lane == other_lane || self.lanes_met(by, other_lane, granule.written))
    }

    fn lanes_met(&self, (warp, lane): Thread, other: usize, when: u32) -> bool {
        self.lanes[warp].as_ref().is_some_and(|met| when <= met[lane][other])
    }

    fn note_read(&mut self, at: usize, (warp, lane): Thread, whole_warp: bool) {
        let lane = if whole_warp { MANY } else { lane as u8 };
        let bit = 1 << warp;
        let known = &self.known[warp];
        let granule = &mut self.granules[at];
        if granule.read <= self.known_of_all[warp]
            || lanes_of(granule.readers).all(|other| granule.read <= known[other])
        {
            granule.readers = bit;
            granule.reader = lane;
        } else if granule.readers & bit == 0 || granule.reader != lane {
            granule.readers |= bit;
            granule.reader = MANY;
        }
        granule.read = self.clock;
    }

    fn note_write(&mut self, at: usize, by: Thread, kind: Write) -> Result<(), String> {
        let granule = self.granules[at];
        let both_atomic = kind == Write::Atomic && granule.state == State::Atomic;
        if kind != Write::End && granule.state == State::Pending {
            return Err(self.unreadable(at));
        }
        if !both_atomic && granule.written != 0 && !self.is_written_before(&granule, by, false) {
            return Err(self.race(at, "written", granule.writer, "written"));
        }
        if let Some(reader) = self.unordered_reader(&granule, by) {
            return Err(self.race(at, "written", reader, "read"));
        }
        self.granules[at] = Granule {
            written: self.clock,
            writer: (by.0 as u8, by.1 as u8),
            state: match kind {
                Write::Plain | Write::End => State::Plain,
                Write::Atomic => State::Atomic,
                Write::Begin => State::Pending,
            },
            ..Granule::default()
        };
        Ok(())
    }

    /// A reader that no barrier separates from a writer.
    fn unordered_reader(&self, granule: &Granule, (warp, lane): Thread) -> Option<(u8, u8)> {
        if granule.read <= self.known_of_all[warp] {
            return None;
        }
        let unordered = lanes_of(granule.readers).find(|other| {
            let is_known = granule.read <= self.known[warp][*other];
            let is_own = *other == warp
                && granule.reader != MANY
                && (usize::from(granule.reader) == lane
                    || self.lanes_met((warp, lane), usize::from(granule.reader), granule.read));
            !is_known && !is_own
        });
        unordered.map(|warp| (warp as u8, granule.reader))
    }

    fn unreadable(&self, at: usize) -> String {
        let byte = at * self.granule;
        match self.granules[at].state {
            State::Pending => {
                let (warp, lane) = self.granules[at].writer;
                format!(
                    "byte {byte:#x} of shared memory is being copied by thread {}, which has not waited for it",
                    usize::from(warp) * 32 + usize::from(lane)
                )
            }
            _ => format!("nobody wrote byte {byte:#x} of shared memory"),
        }
    }

    fn race(&self, at: usize, now: &str, (warp, lane): (u8, u8), before: &str) -> String {
        let who = match lane {
            MANY => format!("warp {warp}"),
            _ => format!("thread {}", u32::from(warp) * 32 + u32::from(lane)),
        };
        let byte = at * self.granule;
        format!("byte {byte:#x} of shared memory is {now} and {who} has {before} it, with no barrier between")
    }

    /// Lanes of a warp came together: each knows what the others did.
    pub(crate) fn sync_lanes(&mut self, warp: usize, members: Mask, alive: Mask) {
        let now = self.clock;
        self.clock += 1;
        if members & alive == alive {
            self.known[warp][warp] = now;
            self.note_known_of_all(warp);
            return;
        }
        let met = self.lanes[warp].get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut joined = [0; 32];
        for lane in lanes_of(members) {
            for (all, one) in joined.iter_mut().zip(met[lane]) {
                *all = (*all).max(one);
            }
            joined[lane] = now;
        }
        for lane in lanes_of(members) {
            met[lane] = joined;
        }
    }

    /// What a warp knows as it comes to a barrier is added to what is known there.
    pub(crate) fn arrive(&mut self, warp: usize, at_barrier: &mut [u32; 32]) {
        for (all, one) in at_barrier.iter_mut().zip(self.known[warp]) {
            *all = (*all).max(one);
        }
        at_barrier[warp] = self.clock;
        self.clock += 1;
    }

    /// A warp that leaves a barrier knows what all knew who came.
    pub(crate) fn leave(&mut self, warp: usize, at_barrier: &[u32; 32]) {
        for (known, all) in self.known[warp].iter_mut().zip(at_barrier) {
            *known = (*known).max(*all);
        }
        self.note_known_of_all(warp);
    }

    fn note_known_of_all(&mut self, warp: usize) {
        let num_warps = self.known.len();
        self.known_of_all[warp] = self.known[warp][..num_warps].iter().copied().min().unwrap_or(0);
    }
}
