//! [`Driver`]: the state of the driver, which all calls of the process share.

use crate::capture::Capture;
use crate::graph::{Executable, Graph};
use crate::libraries::Libraries;
use crate::memory::Memory;
use crate::module::Function;
use crate::order::{Clock, StreamId};
use crate::report::{Counters, Report};
use crate::status::{Outcome, Status};
use crate::stream::{Event, Stream};
use crate::work::Pending;
use pyrex_emulator::{Fault, Module};
use std::alloc::Layout;
use std::collections::HashMap;
use std::sync::Arc;

/// What a program holds and the driver knows the meaning of: a stream, an event, a module.
pub(crate) type Handle = u64;

/// The driver of one device, which does what it is told at once.
#[derive(Debug)]
pub(crate) struct Driver {
    /// The thread whose call this is.
    pub(crate) caller: u64,
    pub(crate) is_initialized: bool,
    /// What every call returns, once something went wrong on the device.
    pub(crate) sticky: Option<Status>,
    pub(crate) memory: Memory,
    /// What the program has waited for.
    pub(crate) host: Clock,
    /// What each stream's next work comes after. Streams that are destroyed stay: their work was never waited for.
    pub(crate) clocks: HashMap<StreamId, Clock>,
    pub(crate) streams: HashMap<StreamId, Stream>,
    pub(crate) events: HashMap<Handle, Event>,
    pub(crate) captures: HashMap<Handle, Capture>,
    pub(crate) graphs: HashMap<Handle, Graph>,
    pub(crate) executables: HashMap<Handle, Executable>,
    pub(crate) modules: HashMap<Handle, Arc<Module>>,
    pub(crate) functions: HashMap<Handle, Function>,
    /// What copies owe the program's memory.
    pub(crate) pending: Vec<Pending>,
    /// Pinned memory that this library allocated.
    pub(crate) pages: HashMap<u64, Layout>,
    pub(crate) libraries: Libraries,
    pub(crate) report: Report,
    last_handle: Handle,
}

impl Driver {
    /// A device with `total` bytes of memory.
    pub(crate) fn new(total: u64) -> Self {
        let (host, clocks, streams, events, captures) = Default::default();
        let (graphs, executables, modules, functions) = Default::default();
        let (caller, is_initialized, sticky, pending, report, pages, libraries) = Default::default();
        let memory = Memory::new(total);
        // Handles that look like pointers, and like nothing small.
        let last_handle = 0x7000_0000_0000;
        let mut driver = Self {
            caller,
            is_initialized,
            sticky,
            memory,
            host,
            clocks,
            streams,
            events,
            captures,
            graphs,
            executables,
            modules,
            functions,
            pending,
            pages,
            libraries,
            report,
            last_handle,
        };
        driver.streams.insert(StreamId::LEGACY, Stream::new(true));
        driver
    }

    /// A handle that no other thing has or had.
    pub(crate) fn next_handle(&mut self) -> Handle {
        self.last_handle += 0x10;
        self.last_handle
    }

    /// What was counted until now.
    pub(crate) fn counters(&mut self) -> Counters {
        let counters = &mut self.report.counters;
        (counters.live_allocations, counters.live_bytes) = self.memory.live();
        *counters
    }

    /// Says what went wrong on the device; from now on all calls fail.
    pub(crate) fn fail(&mut self, status: Status, fault: &Fault) -> Status {
        say(format_args!("{fault}"));
        *self.sticky.get_or_insert(status)
    }
}

/// Tells whoever runs the program why a call fails, which the status alone does not.
pub(crate) fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("pyrex-emulator: {what}");
}

/// Says `why`, and is `status`.
pub(crate) fn refuse<T>(status: Status, why: impl std::fmt::Display) -> Outcome<T> {
    say(format_args!("{why}"));
    Err(status)
}
