//! [`Memory`]: what is allocated on the device, which bytes of it were written, and by which block in the current launch.

use crate::between_blocks::{BlockOrder, Stamp};
use crate::host::HostMemory;
use crate::kernel::Strength;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Addresses of allocations begin here: no host pointer and no window of another space is near.
const FIRST: u64 = 0x0300_0000_0000;
/// Allocations begin at multiples of this, as the driver's do.
const ALIGNMENT: u64 = 256;
/// What lies between two allocations at least.
const GAP: u64 = 4096;
/// How many granules of a page have stamps together.
const PAGE: usize = 1024;

/// What is allocated on the device.
#[derive(Debug)]
pub(crate) struct Memory {
    /// By address.
    allocations: Vec<Allocation>,
    next: u64,
    freed: BTreeMap<u64, u64>,
    allocated_bytes: usize,
    last: usize,
    /// Allocations that have stamps of the current launch.
    stamped: Vec<usize>,
    order: BlockOrder,
    granule: u64,
    /// Variables of modules: where each lies.
    pub(crate) variables: HashMap<u64, Vec<u64>>,
}

#[derive(Debug)]
struct Allocation {
    base: u64,
    len: usize,
    storage: Storage,
    /// A bit for each byte that was written; none if all count as written.
    written: Option<Vec<u64>>,
    constant: bool,
    stamps: Vec<Option<Box<[Stamp; PAGE]>>>,
    used: Option<Use>,
}

#[derive(Debug)]
enum Storage {
    Own(Vec<u8>),
    Host(HostMemory),
}

/// How a launch used an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It was only read.
    Read,
    /// It was written, and perhaps read.
    Written,
}

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// By the host: nothing to be in order with.
    Host,
    /// By a block.
    Block { block: u32, strength: Strength },
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            allocations: Vec::new(),
            next: FIRST,
            freed: BTreeMap::new(),
            allocated_bytes: 0,
            last: 0,
            stamped: Vec::new(),
            order: BlockOrder::default(),
            granule: 1,
            variables: HashMap::new(),
        }
    }
}

impl Memory {
    /// Memory that nobody has written.
    pub(crate) fn allocate(&mut self, len: usize) -> u64 {
        let base = self.next;
        self.next = (base + len as u64 + GAP).next_multiple_of(ALIGNMENT);
        self.insert(Allocation::new(base, len, Storage::Own(vec![0; len])));
        base
    }

    /// Memory that nobody has written, where some was that was freed.
    pub(crate) fn allocate_again(&mut self, base: u64) -> Result<(), String> {
        let Some(len) = self.freed.remove(&base) else {
            return Err(format!("nothing that was freed began at {base:#x}; {}", self.nearest(base)));
        };
        self.insert(Allocation::new(base, len as usize, Storage::Own(vec![0; len as usize])));
        Ok(())
    }

    /// Memory of the host, reachable at the address it has there.
    pub(crate) fn map(&mut self, memory: HostMemory) -> Result<u64, String> {
        let (base, len) = (memory.address(), memory.len());
        let end = base + len as u64;
        if let Some(other) =
            self.allocations.iter().find(|one| one.base < end && base < one.base + one.len as u64)
        {
            return Err(format!("{base:#x} is within {}", other.name()));
        }
        self.insert(Allocation { written: None, ..Allocation::new(base, len, Storage::Host(memory)) });
        Ok(base)
    }

    fn insert(&mut self, allocation: Allocation) {
        self.allocated_bytes += allocation.len;
        let at = self.allocations.partition_point(|one| one.base < allocation.base);
        self.allocations.insert(at, allocation);
        self.last = 0;
    }

    /// Gives the allocation at `base` back.
    pub(crate) fn free(&mut self, base: u64) -> Result<(), String> {
        match self.allocations.binary_search_by_key(&base, |one| one.base) {
            Ok(at) => {
                let allocation = self.allocations.remove(at);
                self.allocated_bytes -= allocation.len;
                self.freed.insert(base, allocation.len as u64);
                self.last = 0;
                Ok(())
            }
            Err(_) => Err(format!("no allocation begins at {base:#x}; {}", self.nearest(base))),
        }
    }

    /// How many bytes are allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// Where the allocation that holds `address` begins, and how long it is.
    pub(crate) fn range(&mut self, address: u64) -> Option<(u64, usize)> {
        let at = self.find(address, 1)?;
        Some((self.allocations[at].base, self.allocations[at].len))
    }

    /// Makes the allocation at `base` one that kernels only read.
    pub(crate) fn make_constant(&mut self, base: u64) {
        if let Some(at) = self.find(base, 0) {
            self.allocations[at].constant = true;
        }
    }

    fn find(&mut self, address: u64, len: usize) -> Option<usize> {
        let holds =
            |one: &Allocation| address >= one.base && address - one.base + len as u64 <= one.len as u64;
        if self.allocations.get(self.last).is_some_and(holds) {
            return Some(self.last);
        }
        let at = self.allocations.partition_point(|one| one.base <= address).checked_sub(1)?;
        if !holds(&self.allocations[at]) {
            return None;
        }
        self.last = at;
        Some(at)
    }

    fn locate(&mut self, address: u64, len: usize) -> Result<(usize, usize), String> {
        match self.find(address, len) {
            Some(at) => Ok((at, (address - self.allocations[at].base) as usize)),
            None => Err(format!("{len} bytes at {address:#x} are not allocated; {}", self.nearest(address))),
        }
    }

    /// What lies nearest to `address`, for a message.
    fn nearest(&self, address: u64) -> String {
        let freed = self.freed.range(..=address).next_back();
        if let Some((base, len)) = freed.filter(|(base, len)| address < *base + **len) {
            return format!("they lie in {len} bytes at {base:#x}, which were freed");
        }
        let at = self.allocations.partition_point(|one| one.base <= address);
        let before = at.checked_sub(1).map(|at| &self.allocations[at]);
        let after = self.allocations.get(at);
        let behind = |one: &Allocation| address.saturating_sub(one.base + one.len as u64);
        match (before, after) {
            (None, None) => "nothing is".to_owned(),
            (Some(one), next) if next.is_none_or(|next| behind(one) <= next.base - address) => {
                format!("the nearest is {}, which begins {} bytes before", one.name(), address - one.base)
            }
            (_, Some(next)) => {
                format!("the nearest is {}, which begins {} bytes behind", next.name(), next.base - address)
            }
            (Some(one), None) => format!("the nearest is {}", one.name()),
        }
    }

    /// Reads bytes that must have been written.
    pub(crate) fn read(&mut self, address: u64, bytes: &mut [u8], purpose: Purpose) -> Result<(), String> {
        let (at, offset) = self.locate(address, bytes.len())?;
        let allocation = &self.allocations[at];
        if let Some(written) = &allocation.written
            && let Some(first) = first_unwritten(written, offset, bytes.len())
        {
            return Err(format!(
                "nobody wrote byte {first} of {}, of which bytes {offset}..{} are read",
                allocation.name(),
                offset + bytes.len()
            ));
        }
        if let Purpose::Block { block, strength } = purpose
            && strength != Strength::Strong
            && !allocation.stamps.is_empty()
        {
            self.check_read(at, offset..offset + bytes.len(), block, strength)?;
        }
        let allocation = &mut self.allocations[at];
        if purpose != Purpose::Host {
            allocation.used = allocation.used.max(Some(Use::Read));
        }
        allocation.storage.get(offset, bytes);
        Ok(())
    }

    /// Reads up to 16 bytes at a multiple of their number, for one lane.
    pub(crate) fn read_few(
        &mut self,
        address: u64,
        len: usize,
        purpose: Purpose,
    ) -> Result<[u8; 16], String> {
        let mut bytes = [0; 16];
        if let Some(at) = self.find(address, len)
            && let allocation = &self.allocations[at]
            && let Allocation { base, storage: Storage::Own(data), written: Some(written), .. } = allocation
            && allocation.stamps.is_empty()
            && allocation.used.is_some()
        {
            let offset = (address - base) as usize;
            // Aligned as they are, their bits lie in one word.
            let wanted = !0 >> (64 - len);
            if written[offset / 64] >> (offset % 64) & wanted == wanted {
                copy_few(&data[offset..offset + len], &mut bytes);
                return Ok(bytes);
            }
        }
        self.read(address, &mut bytes[..len], purpose)?;
        Ok(bytes)
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8], purpose: Purpose) -> Result<(), String> {
        let (at, offset) = self.locate(address, bytes.len())?;
        if let Purpose::Block { block, strength } = purpose {
            if self.allocations[at].constant {
                return Err(format!("{} is constant", self.allocations[at].name()));
            }
            self.stamp(at, offset, bytes.len(), (block, strength == Strength::Strong))?;
            self.allocations[at].used = Some(Use::Written);
        }
        let allocation = &mut self.allocations[at];
        if let Some(written) = &mut allocation.written {
            set_written(written, offset, bytes.len());
        }
        allocation.storage.put(offset, bytes);
        Ok(())
    }

    /// Copies `len` bytes with what is known of them.
    pub(crate) fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<(), String> {
        let (from, from_offset) = self.locate(from, len)?;
        let (to, to_offset) = self.locate(to, len)?;
        let mut bytes = vec![0; len];
        self.allocations[from].storage.get(from_offset, &mut bytes);
        let known = self.allocations[from].written.clone();
        let target = &mut self.allocations[to];
        target.storage.put(to_offset, &bytes);
        if let Some(written) = &mut target.written {
            for at in 0..len {
                let is_written = known
                    .as_ref()
                    .is_none_or(|known| known[(from_offset + at) / 64] >> ((from_offset + at) % 64) & 1 == 1);
                let bit = 1 << ((to_offset + at) % 64);
                let word = &mut written[(to_offset + at) / 64];
                *word = if is_written { *word | bit } else { *word & !bit };
            }
        }
        Ok(())
    }

    /// Begins a launch: what was written before it is in order with all it does.
    pub(crate) fn begin_launch(&mut self, granule: u32) {
        for at in self.stamped.drain(..) {
            if let Some(allocation) = self.allocations.get_mut(at) {
                allocation.stamps = Vec::new();
            }
        }
        for allocation in &mut self.allocations {
            allocation.stamps.clear();
            allocation.used = None;
        }
        self.order = BlockOrder::default();
        self.granule = u64::from(granule);
    }

    /// Where what the last launch used begins, and how it did.
    pub(crate) fn used(&self) -> Vec<(u64, Use)> {
        self.allocations.iter().filter_map(|one| Some((one.base, one.used?))).collect()
    }

    /// A block made what it wrote visible to whoever hears of it.
    pub(crate) fn fence(&mut self, block: u32) {
        self.order.fence(block);
    }

    /// A block met others at `address`, by an atomic or another strong access.
    pub(crate) fn meet(&mut self, block: u32, address: u64) {
        self.order.meet(block, address);
    }

    fn check_read(
        &self,
        at: usize,
        range: Range<usize>,
        block: u32,
        strength: Strength,
    ) -> Result<(), String> {
        let allocation = &self.allocations[at];
        for granule in granules(range.start, range.len(), self.granule) {
            let Some(Some(page)) = allocation.stamps.get(granule / PAGE) else { continue };
            let stamp = page[granule % PAGE];
            let byte = granule * self.granule as usize;
            if strength == Strength::ReadOnly && stamp.is_somebody_s() {
                return Err(format!(
                    "byte {byte} of {} is read as if nobody wrote it in this launch (.nc), but block {} did",
                    allocation.name(),
                    stamp.block()
                ));
            }
            if !self.order.knows(block, stamp) {
                return Err(format!(
                    "block {} wrote byte {byte} of {} in this launch, and no fence and atomic make it known to block {block}",
                    stamp.block(),
                    allocation.name(),
                ));
            }
        }
        Ok(())
    }

    fn stamp(&mut self, at: usize, offset: usize, len: usize, by: (u32, bool)) -> Result<(), String> {
        let (block, strong) = by;
        let granule = self.granule;
        let allocation = &mut self.allocations[at];
        if allocation.stamps.is_empty() {
            let num_pages = allocation.len.div_ceil(granule as usize).div_ceil(PAGE);
            allocation.stamps.resize_with(num_pages.max(1), || None);
            self.stamped.push(at);
        }
        let new = self.order.stamp(block, strong);
        for at in granules(offset, len, granule) {
            let page = allocation.stamps[at / PAGE].get_or_insert_with(|| Box::new([Stamp::default(); PAGE]));
            let old = &mut page[at % PAGE];
            let both_strong = strong && old.is_strong();
            if !both_strong && !self.order.knows(block, *old) {
                return Err(format!(
                    "blocks {} and {block} both write byte {} of {}, and nothing says which comes last",
                    old.block(),
                    at * granule as usize,
                    allocation.name(),
                ));
            }
            *old = new;
        }
        Ok(())
    }
}

fn granules(offset: usize, len: usize, granule: u64) -> std::ops::Range<usize> {
    let granule = granule as usize;
    offset / granule..(offset + len).div_ceil(granule)
}

impl Allocation {
    fn new(base: u64, len: usize, storage: Storage) -> Self {
        let written = Some(vec![0; len.div_ceil(64)]);
        Self { base, len, storage, written, constant: false, stamps: Vec::new(), used: None }
    }

    fn name(&self) -> String {
        let kind = match (&self.storage, self.constant) {
            (Storage::Host(_), _) => " of the host",
            (_, true) => " of constants",
            _ => "",
        };
        format!("the {} bytes{kind} at {:#x}", self.len, self.base)
    }
}

impl Storage {
    fn get(&self, offset: usize, bytes: &mut [u8]) {
        match self {
            Self::Own(data) => bytes.copy_from_slice(&data[offset..offset + bytes.len()]),
            Self::Host(memory) => memory.get(offset, bytes),
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        match self {
            Self::Own(data) => data[offset..offset + bytes.len()].copy_from_slice(bytes),
            Self::Host(memory) => memory.put(offset, bytes),
        }
    }
}

/// Copies 1, 2, 4, 8 or 16 bytes.
pub(crate) fn copy_few(from: &[u8], to: &mut [u8; 16]) {
    match from.len() {
        1 => to[0] = from[0],
        2 => to[..2].copy_from_slice(from),
        4 => to[..4].copy_from_slice(from),
        8 => to[..8].copy_from_slice(from),
        16 => to.copy_from_slice(from),
        len => to[..len].copy_from_slice(from),
    }
}

/// Bits `offset..offset + len` word by word: the word's number and the bits within it.
fn bits(offset: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = offset + len;
    (offset / 64..end.div_ceil(64)).map(move |word| {
        let first = offset.saturating_sub(word * 64).min(63);
        let last = (end - word * 64).min(64);
        (word, (!0 << first) & (!0 >> (64 - last)))
    })
}

fn first_unwritten(written: &[u64], offset: usize, len: usize) -> Option<usize> {
    if len == 0 {
        return None;
    }
    bits(offset, len).find_map(|(word, mask)| {
        let missing = !written[word] & mask;
        (missing != 0).then(|| word * 64 + missing.trailing_zeros() as usize)
    })
}

fn set_written(written: &mut [u64], offset: usize, len: usize) {
    if len > 0 {
        bits(offset, len).for_each(|(word, mask)| written[word] |= mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_one_by_one() {
        let mut written = vec![0; 3];
        set_written(&mut written, 60, 70);
        assert_eq!(first_unwritten(&written, 60, 70), None);
        assert_eq!(first_unwritten(&written, 59, 2), Some(59));
        assert_eq!(first_unwritten(&written, 100, 40), Some(130));
        assert_eq!(first_unwritten(&written, 64, 64), None);
    }

    #[test]
    fn what_is_nearest_is_named() {
        let mut memory = Memory::default();
        let first = memory.allocate(100);
        let second = memory.allocate(10);
        let mut byte = [0];
        let mut at = |memory: &mut Memory, address| {
            memory.read(address, &mut byte, Purpose::Host).expect_err("it must fail")
        };
        assert!(at(&mut memory, first).contains("nobody wrote byte 0 of the 100 bytes"));
        assert!(at(&mut memory, first + 100).contains("begins 100 bytes before"));
        assert!(at(&mut memory, second - 1).contains("begins 1 bytes behind"));
        memory.free(first).expect("it is allocated");
        assert!(at(&mut memory, first + 5).contains("were freed"));
        assert_eq!(memory.allocated_bytes(), 10);
        assert!(memory.free(first).is_err());
    }

    #[test]
    fn what_was_freed_comes_back_as_nobody_wrote_it() {
        let mut memory = Memory::default();
        let base = memory.allocate(4);
        assert!(memory.allocate_again(base).is_err(), "it is there");
        memory.write(base, &[1; 4], Purpose::Host).expect("it is allocated");
        memory.free(base).expect("it is allocated");
        memory.allocate_again(base).expect("it was freed");
        assert!(memory.allocate_again(base).is_err());
        assert!(memory.read(base, &mut [0; 4], Purpose::Host).is_err());
        assert_eq!(memory.allocated_bytes(), 4);
    }

    #[test]
    fn what_a_launch_used_is_known() {
        let mut memory = Memory::default();
        let [read, written, both, _] = [4; 4].map(|len| memory.allocate(len));
        for base in [read, both] {
            memory.write(base, &[1; 4], Purpose::Host).expect("it is allocated");
        }
        let purpose = Purpose::Block { block: 0, strength: Strength::Weak };
        memory.write(both, &[2], purpose).expect("it is allocated");
        for base in [read, both] {
            memory.read_few(base, 4, purpose).expect("it was written");
        }
        memory.write(written, &[2; 4], purpose).expect("it is allocated");
        assert_eq!(memory.used(), [(read, Use::Read), (written, Use::Written), (both, Use::Written)]);
        memory.begin_launch(1);
        assert_eq!(memory.used(), []);
    }
}
