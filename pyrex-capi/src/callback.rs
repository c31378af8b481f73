//! A function of the host, and the gate before it: once the gate is closed the host's data may be gone.

use std::ffi::c_void;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// A pointer of the host that is handed back to the host, and never looked at.
#[derive(Clone, Copy)]
pub(crate) struct HostData(*mut c_void);

impl HostData {
    pub(crate) fn new(pointer: *mut c_void) -> Self {
        Self(pointer)
    }

    pub(crate) fn pointer(self) -> *mut c_void {
        self.0
    }
}

// SAFETY: Pyrex only passes it on; the header says that callbacks come from other threads.
unsafe impl Send for HostData {}
// SAFETY: as above.
unsafe impl Sync for HostData {}

/// Lets calls through until it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    passed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// The threads that are inside of the host's function now.
    inside: Vec<ThreadId>,
}

impl Gate {
    /// Calls the host unless the gate is closed.
    pub(crate) fn pass(&self, call: impl FnOnce()) {
        let this = thread::current().id();
        {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            state.inside.push(this);
        }
        call();
        self.lock().inside.retain(|id| *id != this);
        self.passed.notify_all();
    }

    /// Lets nobody through any more, and waits until the host's function has returned everywhere but on this thread: the
    /// host may close from inside of it.
    pub(crate) fn close(&self) {
        let this = thread::current().id();
        let mut state = self.lock();
        state.is_closed = true;
        while state.inside.iter().any(|id| *id != this) {
            state = self.passed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    #[test]
    fn nobody_passes_a_closed_gate() {
        let gate = Gate::default();
        let mut calls = 0;
        gate.pass(|| calls += 1);
        gate.close();
        gate.pass(|| calls += 1);
        assert_eq!(calls, 1);
    }

    #[test]
    fn closing_waits_for_who_is_inside() {
        let (gate, left) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        let ((entered, has_entered), (go_on, may_go_on)) = (channel(), channel::<()>());
        let inside = thread::spawn({
            let (gate, left) = (gate.clone(), left.clone());
            move || {
                gate.pass(|| {
                    entered.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    left.store(true, Ordering::Release);
                });
            }
        });
        has_entered.recv().unwrap();
        let closing = thread::spawn({
            let gate = gate.clone();
            move || {
                gate.close();
                left.load(Ordering::Acquire)
            }
        });
        go_on.send(()).unwrap();
        assert!(closing.join().unwrap(), "closed while the host's function ran");
        inside.join().unwrap();
    }

    #[test]
    fn the_host_may_close_from_inside() {
        let gate = Gate::default();
        gate.pass(|| gate.close());
        gate.pass(|| panic!("the gate is closed"));
    }
}
