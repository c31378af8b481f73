//! [`Lobby`]: where requests wait until they are prepared, and who counts all of them.
//!
//! A waiting request is what the caller sent: its images are still files. Only as many as could run at once are prepared
//! ahead, so that a long queue holds no decoded images.

use super::intake::Job;
use crate::error::{Error, Result};
use crate::schedule::SequenceId;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by callers, the preparing thread and the core.
pub(crate) struct Lobby {
    state: Mutex<State>,
    changed: Condvar,
    max_waiting: usize,
    max_prepared: usize,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<SequenceId, Job>,
    /// Requests that wait, and are not prepared ahead; one may be in the preparing thread's hands.
    num_unprepared: usize,
    /// Prepared requests that wait, by priority.
    prepared: BTreeMap<Reverse<i8>, usize>,
    num_running: usize,
    /// Why nobody may enter any more.
    shut: Option<Error>,
    /// Whether those inside are to be prepared no more.
    closed: bool,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// As it was sent, or without blocks because nobody reads it.
    Waiting,
    /// Ready to run.
    Prepared,
    /// Run by the core.
    Running,
}

/// One request's presence: it counts for as long as this lives.
pub(crate) struct Guest {
    lobby: Arc<Lobby>,
    priority: Reverse<i8>,
    stage: Stage,
}

/// How many requests there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attendance {
    pub(crate) num_waiting: usize,
    pub(crate) num_running: usize,
}

impl Lobby {
    pub(crate) fn new(max_waiting: usize, max_prepared: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            max_waiting,
            max_prepared: max_prepared.max(1),
        }
    }

    /// A place for one more request.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full; why the engine is shut if it is.
    pub(crate) fn admit(self: &Arc<Self>, priority: i8) -> Result<Guest> {
        let mut state = self.lock();
        if let Some(reason) = &state.shut {
            return Err(reason.clone());
        }
        let (num_waiting, max_waiting) = (state.num_waiting(), self.max_waiting);
        if num_waiting >= max_waiting {
            return Err(Error::overloaded(format_args!(
                "{num_waiting} requests are waiting, which is all that max_waiting allows"
            )));
        }
        state.num_unprepared += 1;
        Ok(Guest { lobby: self.clone(), priority: Reverse(priority), stage: Stage::Waiting })
    }

    /// Lets a request wait for its preparation. If the engine has closed meanwhile, it ends here.
    pub(crate) fn enter(&self, job: Job) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.jobs.insert(job.ticket.id, job);
        self.changed.notify_all();
    }

    /// Waits for the next request to prepare; `None` once the engine has closed.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        while !state.closed {
            if state.may_prepare(self.max_prepared) {
                return state.jobs.pop_first().map(|(_, job)| job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Takes out those nobody waits for any more, with the reason.
    pub(crate) fn take_unwanted(&self) -> Vec<(Job, Error)> {
        let now = Instant::now();
        let mut state = self.lock();
        let unwanted = state.jobs.extract_if(.., |_, job| job.ticket.control.check(now).is_err());
        let with_reason = |(_, job): (SequenceId, Job)| {
            let reason = job.ticket.control.check(now).err()?;
            Some((job, reason))
        };
        unwanted.filter_map(with_reason).collect()
    }

    /// The next deadline among those that wait.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lock().jobs.values().filter_map(|job| job.ticket.control.deadline()).min()
    }

    /// Lets nobody in any more; the first reason stays.
    pub(crate) fn shut(&self, reason: Error) {
        self.lock().shut.get_or_insert(reason);
    }

    /// Shuts, and ends all that wait here.
    pub(crate) fn close(&self, reason: Error) {
        let mut state = self.lock();
        state.shut.get_or_insert(reason.clone());
        state.closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.changed.notify_all();
        // Ending a request calls its sink, which may look at the engine: not under the lock.
        jobs.into_values().for_each(|job| job.ticket.outlet.end(super::Event::Failed(reason.clone())));
    }

    /// Waits until nobody is left or `timeout` has passed; returns how many are left.
    pub(crate) fn wait_empty(&self, timeout: Duration) -> usize {
        let started = Instant::now();
        let mut state = self.lock();
        loop {
            let left = state.num_waiting() + state.num_running;
            let time = timeout.saturating_sub(started.elapsed());
            if left == 0 || time.is_zero() {
                return left;
            }
            state = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the engine has closed; returns why.
    pub(crate) fn wait_closed(&self) -> Error {
        let mut state = self.lock();
        while !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.shut.clone().unwrap_or_else(|| Error::closed("the engine has closed"))
    }

    pub(crate) fn attendance(&self) -> Attendance {
        let state = self.lock();
        Attendance { num_waiting: state.num_waiting(), num_running: state.num_running }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn num_waiting(&self) -> usize {
        self.num_unprepared + self.prepared.values().sum::<usize>()
    }

    /// As many as may be prepared ahead, and whoever outranks all of those.
    fn may_prepare(&self, max_prepared: usize) -> bool {
        let Some((id, _)) = self.jobs.first_key_value() else { return false };
        let outranks = self.prepared.first_key_value().is_none_or(|(best, _)| id.priority < *best);
        outranks || self.prepared.values().sum::<usize>() < max_prepared
    }

    fn leave(&mut self, stage: Stage, priority: Reverse<i8>) {
        match stage {
            Stage::Waiting => self.num_unprepared -= 1,
            Stage::Running => self.num_running -= 1,
            Stage::Prepared => {
                let count = self.prepared.entry(priority).or_default();
                *count -= 1;
                if *count == 0 {
                    self.prepared.remove(&priority);
                }
            }
        }
    }
}

impl Guest {
    pub(crate) fn move_to(&mut self, stage: Stage) {
        if stage == self.stage {
            return;
        }
        let mut state = self.lobby.lock();
        state.leave(self.stage, self.priority);
        match stage {
            Stage::Waiting => state.num_unprepared += 1,
            Stage::Prepared => *state.prepared.entry(self.priority).or_default() += 1,
            Stage::Running => state.num_running += 1,
        }
        self.stage = stage;
        self.lobby.changed.notify_all();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.lobby.lock().leave(self.stage, self.priority);
        self.lobby.changed.notify_all();
    }
}
