//! How a host learns that an event can be read: a thread that waits, a function that is called, a descriptor to poll.

use crate::callback::{Gate, HostData};
use crate::guard::Result;
use crate::status::{Failure, pyrex_status_t};
use std::ffi::c_void;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Called when there may be an event to read: on a thread of the engine, after each event, and once from where it is set. It holds
/// up all requests of the engine, so it must be short and must not block; it may read without waiting, cancel, or free the
/// request. It must not unwind.
pub type pyrex_notify_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Whom to tell of the events of one request.
pub(crate) struct Signal {
    /// How many events were queued so far.
    num_events: Mutex<u64>,
    queued: Condvar,
    notify: Mutex<pyrex_notify_fn>,
    user_data: HostData,
    gate: Gate,
    #[cfg(target_os = "linux")]
    descriptor: std::sync::OnceLock<linux::Descriptor>,
}

impl Signal {
    pub(crate) fn new(user_data: *mut c_void) -> Self {
        Self {
            num_events: Mutex::new(0),
            queued: Condvar::new(),
            notify: Mutex::new(None),
            user_data: HostData::new(user_data),
            gate: Gate::default(),
            #[cfg(target_os = "linux")]
            descriptor: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn user_data(&self) -> *mut c_void {
        self.user_data.pointer()
    }

    /// An event was queued.
    pub(crate) fn raise(&self) {
        *lock(&self.num_events) += 1;
        self.queued.notify_all();
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = self.descriptor.get() {
            descriptor.raise();
        }
        self.notify();
    }

    /// How many events were queued so far.
    pub(crate) fn num_events(&self) -> u64 {
        *lock(&self.num_events)
    }

    /// Waits until more than `seen` events were queued; false if that takes longer than until `deadline`. The queue's own way
    /// of waiting takes memory for every event.
    pub(crate) fn wait_past(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut num_events = lock(&self.num_events);
        while *num_events == seen {
            num_events = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.queued.wait(num_events).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    self.queued.wait_timeout(num_events, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn notify(&self) {
        // Not held during the call: the host may set another function from inside of it.
        let notify = *lock(&self.notify);
        if let Some(notify) = notify {
            // SAFETY: a function of this type, as the header asks; the gate is open, so the request is not freed.
            self.gate.pass(|| unsafe { notify(self.user_data.pointer()) });
        }
    }

    /// Tells `notify` from now on. It is called once, since what came before was told to nobody.
    pub(crate) fn set_notify(&self, notify: pyrex_notify_fn) {
        *lock(&self.notify) = notify;
        self.notify();
    }

    /// Tells nobody any more; when this returns the host's data may go.
    pub(crate) fn close(&self) {
        self.gate.close();
    }

    /// A descriptor that can be read while `has_event`, as far as this is called after each event that was read.
    #[cfg(target_os = "linux")]
    pub(crate) fn lower(&self, has_event: impl Fn() -> bool) {
        if let Some(descriptor) = self.descriptor.get().filter(|_| !has_event()) {
            descriptor.lower();
            // One may have come in between, and was not told as the descriptor was still raised.
            if has_event() {
                descriptor.raise();
            }
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn descriptor(&self) -> Result<i32> {
        let refused = |e| Failure::new(pyrex_status_t::PYREX_IO, format!("cannot make an eventfd: {e}"));
        if self.descriptor.get().is_none() {
            let made = linux::Descriptor::new().map_err(refused)?;
            // If another thread was faster, its is used.
            let _ = self.descriptor.set(made);
        }
        let descriptor = self.descriptor.get().ok_or_else(|| Failure::invalid("no descriptor"))?;
        // What came before it was there was told to nobody.
        descriptor.raise();
        Ok(descriptor.number())
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn lower(&self, _has_event: impl Fn() -> bool) {}

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn descriptor(&self) -> Result<i32> {
        Err(Failure::new(
            pyrex_status_t::PYREX_UNSUPPORTED,
            "descriptors of requests need Linux, expected a notify function",
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fd::{AsRawFd, OwnedFd};
    use rustix::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// An eventfd, and whether it can be read: most events come while it can, and cost no system call then.
    pub(super) struct Descriptor {
        descriptor: OwnedFd,
        is_raised: AtomicBool,
    }

    impl Descriptor {
        pub(super) fn new() -> io::Result<Self> {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            Ok(Self { descriptor: eventfd(0, flags)?, is_raised: AtomicBool::new(false) })
        }

        pub(super) fn number(&self) -> i32 {
            self.descriptor.as_raw_fd()
        }

        pub(super) fn raise(&self) {
            if !self.is_raised.swap(true, Ordering::AcqRel) {
                // It fails only if the counter is full, and then it can be read.
                let _ = io::write(&self.descriptor, &1u64.to_ne_bytes());
            }
        }

        pub(super) fn lower(&self) {
            // It fails only if there is nothing to read.
            let _ = io::read(&self.descriptor, &mut [0; 8]);
            self.is_raised.store(false, Ordering::Release);
        }
    }
}
