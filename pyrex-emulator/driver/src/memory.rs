//! Memory of the device, and the program's pages that the device may use: who has what, and how much there is.

use crate::host;
use crate::order::{Access, Clock, Moment, Uses};
use crate::status::{Outcome, Status};
use pyrex_emulator::{Device, Fault};
use std::collections::BTreeMap;

/// Who gave an allocation, and so how it may be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync`.
    Pool,
    /// A node of a graph, when it was launched.
    Graph,
    /// The program's own pages, which the device may use: their bytes count as none of the device's.
    Host,
}

#[derive(Debug)]
struct Allocation {
    bytes: u64,
    owner: Owner,
    uses: Uses,
}

/// The pool that memory in a stream's order comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pool {
    /// Bytes that it may keep at a synchronization though nobody uses them.
    pub(crate) threshold: u64,
    /// Bytes that are allocated, and the most that ever were.
    pub(crate) used: [u64; 2],
    /// Bytes that it holds of the device, and the most that it ever did.
    pub(crate) reserved: [u64; 2],
}

/// What the device has, and who has it.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The emulator's.
    pub(crate) device: Device,
    /// Of the one pool.
    pub(crate) pool: Pool,
    allocations: BTreeMap<u64, Allocation>,
    total: u64,
    /// Bytes that came from no pool.
    direct: u64,
}

/// The driver gives whole pieces of so many bytes.
const PIECE: u64 = 512;

impl Memory {
    pub(crate) fn new(total: u64) -> Self {
        let (device, pool, allocations) = Default::default();
        Self { device, pool, allocations, total, direct: 0 }
    }

    /// Bytes of the device that are free, and all.
    pub(crate) fn info(&self) -> (u64, u64) {
        (self.total - (self.direct + self.pool.reserved[0]).min(self.total), self.total)
    }

    /// How many allocations of the device there are, and their bytes.
    pub(crate) fn live(&self) -> (u64, u64) {
        let of_device = self.allocations.values().filter(|allocation| allocation.owner != Owner::Host);
        of_device.fold((0, 0), |(number, bytes), allocation| (number + 1, bytes + allocation.bytes))
    }

    /// Memory that nobody has written.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(crate) fn allocate(&mut self, bytes: u64, owner: Owner) -> Outcome<u64> {
        self.take(bytes, owner)?;
        let address = self.device.allocate(usize::try_from(bytes).map_err(|_| Status::OUT_OF_MEMORY)?);
        self.allocations.insert(address, Allocation { bytes, owner, uses: Uses::default() });
        Ok(address)
    }

    /// An address that nothing is at until [`Self::place`].
    pub(crate) fn reserve(&mut self, bytes: u64) -> Outcome<u64> {
        let address = self.device.allocate(usize::try_from(bytes).map_err(|_| Status::OUT_OF_MEMORY)?);
        self.device.free(address).map_err(|_| Status::UNKNOWN)?;
        Ok(address)
    }

    /// Memory of a graph at `address`, which was reserved for it; nobody has written it.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` if it is there already.
    pub(crate) fn place(&mut self, address: u64, bytes: u64) -> Outcome {
        if self.allocations.contains_key(&address) {
            return Err(Status::INVALID_VALUE);
        }
        self.take(bytes, Owner::Graph)?;
        self.device.allocate_again(address).map_err(|_| Status::INVALID_VALUE)?;
        self.allocations.insert(address, Allocation { bytes, owner: Owner::Graph, uses: Uses::default() });
        Ok(())
    }

    /// Lets the device use the program's own `bytes` at `address`.
    ///
    /// # Errors
    /// `HOST_MEMORY_ALREADY_REGISTERED` if it may use some of them already.
    ///
    /// # Safety
    /// They must stay the program's to read and write until [`Self::free`].
    pub(crate) unsafe fn map(&mut self, address: u64, bytes: u64) -> Outcome {
        let len = usize::try_from(bytes).map_err(|_| Status::INVALID_VALUE)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.map_host(host::pointer(address), len) }
            .map_err(|_| Status::HOST_MEMORY_ALREADY_REGISTERED)?;
        self.allocations.insert(address, Allocation { bytes, owner: Owner::Host, uses: Uses::default() });
        Ok(())
    }

    /// Who gave what begins at `address`.
    pub(crate) fn owner(&self, address: u64) -> Option<Owner> {
        self.allocations.get(&address).map(|allocation| allocation.owner)
    }

    /// Whether the `bytes` at `address` are pages of the program that the device may use.
    pub(crate) fn is_pinned(&self, address: u64, bytes: u64) -> bool {
        self.containing(address).is_some_and(|(start, allocation)| {
            allocation.owner == Owner::Host && address + bytes <= start + allocation.bytes
        })
    }

    /// Whether `address` is the device's.
    pub(crate) fn is_device(&self, address: u64) -> bool {
        self.containing(address).is_some_and(|(_, allocation)| allocation.owner != Owner::Host)
    }

    /// Gives back what begins at `address`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if nothing does.
    pub(crate) fn free(&mut self, address: u64) -> Outcome {
        let allocation = self.allocations.remove(&address).ok_or(Status::INVALID_VALUE)?;
        self.device.free(address).map_err(|_| Status::INVALID_VALUE)?;
        let bytes = allocation.bytes.next_multiple_of(PIECE);
        match allocation.owner {
            Owner::Device => self.direct -= bytes,
            Owner::Pool | Owner::Graph => self.pool.used[0] -= bytes,
            Owner::Host => {}
        }
        Ok(())
    }

    /// What a synchronization does to the pool: it gives back to the device what it need not keep.
    pub(crate) fn trim(&mut self, keep: u64) {
        self.pool.reserved[0] = self.pool.reserved[0].min(self.pool.used[0].max(keep));
    }

    /// Notes that the work at `moment`, before which lies what `clock` saw, uses the memory that `address` is in.
    ///
    /// # Errors
    /// If it does not come after an earlier use that it must come after.
    pub(crate) fn note(
        &mut self,
        address: u64,
        (moment, clock): (Moment, &Clock),
        access: Access,
    ) -> Result<(), Fault> {
        let found = self.allocations.range_mut(..=address).next_back();
        let Some((start, allocation)) =
            found.filter(|(start, allocation)| address < **start + allocation.bytes)
        else {
            return Ok(());
        };
        allocation.uses.note(moment, clock, access).map_err(|earlier| Fault {
            message: format!(
                "{} bytes at {start:#x}: {access:?} on stream {:#x}, which did not wait for stream {:#x}",
                allocation.bytes, moment.stream.0, earlier.stream.0
            ),
        })
    }

    fn containing(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.allocations.range(..=address).next_back()?;
        (address < start + allocation.bytes.max(1)).then_some((*start, allocation))
    }

    fn take(&mut self, bytes: u64, owner: Owner) -> Outcome {
        let bytes = bytes.checked_next_multiple_of(PIECE).ok_or(Status::OUT_OF_MEMORY)?;
        let pool = &mut self.pool;
        // What the pool holds and nobody uses goes back before the device says no.
        let left = self.total.saturating_sub(self.direct + pool.used[0]);
        if bytes > left {
            return Err(Status::OUT_OF_MEMORY);
        }
        match owner {
            Owner::Host => {}
            Owner::Device => {
                self.direct += bytes;
                pool.reserved[0] = pool.reserved[0].min(self.total - self.direct);
            }
            Owner::Pool | Owner::Graph => {
                pool.used[0] += bytes;
                pool.reserved[0] = pool.reserved[0].max(pool.used[0]);
                pool.used[1] = pool.used[1].max(pool.used[0]);
                pool.reserved[1] = pool.reserved[1].max(pool.reserved[0]);
            }
        }
        Ok(())
    }
}
