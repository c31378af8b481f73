//! [`Work`]: all that can be put on a stream, and doing it.

use crate::driver::{Driver, Handle, refuse};
use crate::host;
use crate::memory::{Memory, Owner};
use crate::order::{Access, Clock, Moment, StreamId};
use crate::product::Product;
use crate::status::{Outcome, Status};
use pyrex_emulator::{Fault, LaunchShape, Module, Use};
use std::sync::Arc;
use std::time::Instant;

/// Something to be done.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A kernel runs.
    Launch(Launch),
    /// Bytes are copied.
    Copy(Copy),
    /// A pattern is written `count` times.
    Set { address: u64, pattern: Vec<u8>, count: u64 },
    /// Matrices are multiplied.
    Product(Product),
    /// Numbers that the driver made are written.
    Write { address: u64, bytes: Vec<u8> },
    /// Memory of a graph begins to be.
    Allocate { address: u64, bytes: u64 },
    /// Memory is freed.
    Free { address: u64 },
}

/// A kernel with what it is called with.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) module: Arc<Module>,
    pub(crate) kernel: Arc<str>,
    pub(crate) shape: LaunchShape,
    pub(crate) parameters: Vec<Vec<u8>>,
}

/// Rows of bytes from one place to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) to: Place,
    pub(crate) from: Place,
    pub(crate) row_bytes: u64,
    pub(crate) rows: u64,
    /// Bytes from one row to the next, there and here.
    pub(crate) pitches: [u64; 2],
}

/// An address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On the device, or of the program's pages that it may use.
    Device(u64),
    /// In the program's memory.
    Host(u64),
}

/// What a copy owes until the program has waited for it.
#[derive(Debug)]
pub(crate) struct Pending {
    moment: Moment,
    address: u64,
    kind: PendingKind,
}

#[derive(Debug)]
enum PendingKind {
    /// These bytes arrive then.
    Arrives(Vec<u8>),
    /// So many bytes with this digest must not have changed until then.
    Unchanged(usize, u64),
}

/// What memory holds that a copy will be written to: a program that reads it without having waited gets this.
const NOT_YET: u8 = 0xa5;

impl Copy {
    /// One row.
    pub(crate) fn new(to: Place, from: Place, bytes: u64) -> Self {
        Self { to, from, row_bytes: bytes, rows: 1, pitches: [bytes; 2] }
    }

    /// Where it uses memory of the program's that the device cannot use by itself.
    pub(crate) fn pageable(&self, memory: &Memory) -> Option<u64> {
        [self.to, self.from].into_iter().zip(self.pitches).find_map(|(place, pitch)| match place {
            Place::Host(address) => {
                let bytes = pitch * self.rows.saturating_sub(1) + self.row_bytes;
                (!memory.is_pinned(address, bytes)).then_some(address)
            }
            Place::Device(_) => None,
        })
    }
}

impl Pending {
    fn len(&self) -> u64 {
        match &self.kind {
            PendingKind::Arrives(content) => content.len() as u64,
            PendingKind::Unchanged(len, _) => *len as u64,
        }
    }
}

impl Place {
    fn offset(self, bytes: u64) -> Self {
        match self {
            Self::Device(address) => Self::Device(address.wrapping_add(bytes)),
            Self::Host(address) => Self::Host(address.wrapping_add(bytes)),
        }
    }
}

impl Driver {
    /// Puts `work` on a stream: it is recorded if that is captured, and done at once otherwise.
    ///
    /// # Errors
    /// What recording or doing it says.
    pub(crate) fn enqueue(&mut self, stream: Handle, work: Work) -> Outcome {
        let stream = self.stream(stream)?;
        match self.capturing(stream)? {
            Some(capture) => self.capture_work(capture, stream, work),
            None => self.perform(stream, &work),
        }
    }

    /// Does `work` and waits for it, as copies do that have no stream.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` during a capture.
    pub(crate) fn do_now(&mut self, work: &Work) -> Outcome {
        self.refuse_implicit(StreamId::LEGACY)?;
        self.refuse_while_capturing("a call that waits for the device")?;
        self.perform(StreamId::LEGACY, work)?;
        self.finish(StreamId::LEGACY)
    }

    /// Does `work`.
    ///
    /// # Errors
    /// If it fails all that comes after fails as well, as on a device.
    pub(crate) fn perform(&mut self, stream: StreamId, work: &Work) -> Outcome {
        let (moment, clock) = self.begin(stream);
        let at = (moment, &clock);
        let illegal = Status::ILLEGAL_ADDRESS;
        let done = match work {
            Work::Launch(launch) => return self.launch(launch, at),
            Work::Copy(copy) => return self.copy(copy, at),
            Work::Set { address, pattern, count } => {
                self.store(*address, &pattern.repeat(*count as usize), at)
            }
            Work::Write { address, bytes } => self.store(*address, bytes, at),
            Work::Product(product) => self.multiply(product, at),
            Work::Allocate { address, bytes } => {
                self.memory.place(*address, *bytes)?;
                self.report.counters.allocations += 1;
                self.memory.note(*address, at, Access::Write)
            }
            Work::Free { address } => {
                let noted = self.memory.note(*address, at, Access::Write);
                self.memory.free(*address)?;
                noted
            }
        };
        done.map_err(|fault| self.fail(illegal, &fault))
    }

    fn launch(&mut self, launch: &Launch, at: (Moment, &Clock)) -> Outcome {
        for parameter in &launch.parameters {
            if let Ok(address) = parameter.as_slice().try_into().map(u64::from_le_bytes) {
                self.arrive(address, 1, at.1);
            }
        }
        let start = Instant::now();
        let done =
            self.memory.device.launch(&launch.module, &launch.kernel, launch.shape, &launch.parameters);
        let done = done.and_then(|report| {
            self.report.launched(&launch.kernel, start.elapsed(), &report);
            for (address, used) in self.memory.device.used() {
                let access = if used == Use::Written { Access::Write } else { Access::Read };
                self.memory.note(address, at, access)?;
            }
            Ok(())
        });
        done.map_err(|fault| self.fail(Status::LAUNCH_FAILED, &fault))
    }

    fn store(&mut self, address: u64, bytes: &[u8], at: (Moment, &Clock)) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.memory.note(address, at, Access::Write)?;
        self.memory.device.write(address, bytes)
    }

    fn multiply(&mut self, product: &Product, at: (Moment, &Clock)) -> Result<(), Fault> {
        for read in [product.a, product.b] {
            self.memory.note(read.address, at, Access::Read)?;
        }
        self.memory.note(product.d.address, at, Access::Write)?;
        self.report.counters.products += 1;
        product.run(&self.memory.device)
    }

    fn copy(&mut self, copy: &Copy, at: (Moment, &Clock)) -> Outcome {
        self.report.counters.pageable_copies += u64::from(copy.pageable(&self.memory).is_some());
        for row in 0..copy.rows {
            let (to, from) = (copy.to.offset(row * copy.pitches[0]), copy.from.offset(row * copy.pitches[1]));
            self.copy_row(to, from, copy.row_bytes, at)
                .map_err(|fault| self.fail(Status::ILLEGAL_ADDRESS, &fault))?;
        }
        // The driver does not return from a copy to memory that the device cannot write by itself before it is done.
        match copy.to {
            Place::Host(address) if !self.memory.is_pinned(address, copy.row_bytes) => {
                self.report.counters.synchronizations += 1;
                self.host.join(at.1);
                self.settle()
            }
            _ => Ok(()),
        }
    }

    fn copy_row(&mut self, to: Place, from: Place, bytes: u64, at: (Moment, &Clock)) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        if let (Place::Device(to), Place::Device(from)) = (to, from) {
            self.arrive(from, bytes, at.1);
            self.memory.note(from, at, Access::Read)?;
            self.memory.note(to, at, Access::Write)?;
            return self.memory.device.copy(from, to, bytes as usize);
        }
        let content = match from {
            Place::Device(from) => {
                self.memory.note(from, at, Access::Read)?;
                let mut content = vec![0; bytes as usize];
                self.memory.device.read(from, &mut content)?;
                content
            }
            Place::Host(from) => self.take_from_host(from, bytes, at)?,
        };
        match to {
            Place::Device(to) => {
                self.report.counters.bytes_to_device += bytes;
                self.memory.note(to, at, Access::Write)?;
                self.memory.device.write(to, &content)
            }
            Place::Host(to) => self.give_to_host(to, content, at),
        }
    }

    fn take_from_host(&mut self, address: u64, bytes: u64, at: (Moment, &Clock)) -> Result<Vec<u8>, Fault> {
        self.arrive(address, bytes, at.1);
        // SAFETY: whoever asked for the copy promised that its source is there until it is done, which is now.
        let content = unsafe { host::read(address, bytes as usize) };
        if self.memory.is_pinned(address, bytes) {
            self.memory.note(address, at, Access::Read)?;
            let kind = PendingKind::Unchanged(content.len(), digest(&content));
            self.pending.push(Pending { moment: at.0, address, kind });
        }
        Ok(content)
    }

    fn give_to_host(&mut self, address: u64, content: Vec<u8>, at: (Moment, &Clock)) -> Result<(), Fault> {
        let bytes = content.len() as u64;
        self.report.counters.bytes_to_host += bytes;
        self.arrive(address, bytes, at.1);
        if self.memory.is_pinned(address, bytes) {
            self.memory.note(address, at, Access::Write)?;
            // SAFETY: pinned memory stays until it is unpinned, and a program must not use what a copy will write.
            unsafe { host::write(address, &vec![NOT_YET; content.len()]) };
            self.pending.push(Pending { moment: at.0, address, kind: PendingKind::Arrives(content) });
        } else {
            // SAFETY: whoever asked for the copy promised that its destination is there until it is done, which is now.
            unsafe { host::write(address, &content) };
        }
        Ok(())
    }

    /// What other copies owe to the `bytes` at `address` is there before what comes after them uses it.
    fn arrive(&mut self, address: u64, bytes: u64, clock: &Clock) {
        let faults = pay(&mut self.pending, |one| {
            one.address < address + bytes && address < one.address + one.len() && clock.saw(one.moment)
        });
        self.fail_all(&faults);
    }

    /// What copies owe that the program has waited for.
    ///
    /// # Errors
    /// `LAUNCH_FAILED` if it changed what one was still to read.
    pub(crate) fn settle(&mut self) -> Outcome {
        let faults = pay(&mut self.pending, |one| self.host.saw(one.moment));
        self.fail_all(&faults);
        self.sticky.map_or(Ok(()), Err)
    }

    fn fail_all(&mut self, faults: &[Fault]) {
        faults.iter().for_each(|fault| {
            self.fail(Status::LAUNCH_FAILED, fault);
        });
    }

    /// Gives back memory that came in a stream's order.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it did not.
    pub(crate) fn free_async(&mut self, address: u64, stream: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        if let Some(capture) = self.capturing(stream)? {
            return self.capture_free(capture, stream, address);
        }
        match self.memory.owner(address) {
            _ if address == 0 => Ok(()),
            Some(Owner::Pool | Owner::Graph) => self.perform(stream, &Work::Free { address }),
            owner => refuse(
                Status::INVALID_VALUE,
                format_args!("cuMemFreeAsync of {address:#x}, which is {owner:?}"),
            ),
        }
    }

    /// Memory that nobody has written, in a stream's order; address 0 if it is to have no bytes.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(crate) fn allocate_async(&mut self, bytes: u64, stream: Handle) -> Outcome<u64> {
        let stream = self.stream(stream)?;
        let capture = self.capturing(stream)?;
        if bytes == 0 {
            return Ok(0);
        }
        if let Some(capture) = capture {
            return self.capture_allocate(capture, stream, bytes);
        }
        let address = self.memory.allocate(bytes, Owner::Pool)?;
        self.report.counters.allocations += 1;
        let (moment, clock) = self.begin(stream);
        self.memory.note(address, (moment, &clock), Access::Write).expect("nobody has used what is new");
        Ok(address)
    }
}

/// Pays what is due; says what was to be unchanged and is not.
fn pay(pending: &mut Vec<Pending>, is_due: impl FnMut(&mut Pending) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for Pending { address, kind, .. } in pending.extract_if(.., is_due) {
        match kind {
            // SAFETY: memory is unpinned only after all of these were paid, and until then it is the program's.
            PendingKind::Arrives(content) => unsafe { host::write(address, &content) },
            PendingKind::Unchanged(len, expected) => {
                // SAFETY: as above.
                if digest(&unsafe { host::read(address, len) }) != expected {
                    let what = "pinned memory changed before the copy from it was waited for";
                    faults.push(Fault { message: format!("{len} bytes at {address:#x}: {what}") });
                }
            }
        }
    }
    faults
}

fn digest(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
