//! [`EngineStats`]: how an engine stands, and [`Board`]: where its core writes it for everybody to read.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How an engine stands after its last step. Sums count from its opening.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Requests that wait for their turn.
    pub num_waiting: usize,
    /// Requests that have begun and not ended.
    pub num_running: usize,
    /// How many of these are paused because nobody reads their events.
    pub num_paused: usize,
    /// Sequences that hold cache blocks.
    pub num_leases: usize,
    /// Cache blocks in all, over all groups of layers.
    pub num_blocks: usize,
    /// Cache blocks nobody holds, those with a remembered prefix included.
    pub num_free_blocks: usize,
    /// Cache blocks whose content a new prompt could find.
    pub num_cached_blocks: usize,
    /// Tokens of sequences that began, what a preempted one computes again included.
    pub prefix_tokens: u64,
    /// How many of them the cache still held.
    pub prefix_hit_tokens: u64,
    /// Images that steps asked for.
    pub image_lookups: u64,
    /// How many of them were encoded before.
    pub image_hits: u64,
    /// Sequences that gave their blocks to others.
    pub preemptions: u64,
    /// Tokens computed: of prompts, and one for each token chosen.
    pub computed_tokens: u64,
    /// Tokens chosen.
    pub generated_tokens: u64,
    /// Tokens chosen per second, over the last ten seconds or so.
    pub tokens_per_second: f64,
    /// Steps that ended well.
    pub num_steps: u64,
    /// Steps that failed, or that were given up because their requests were cancelled.
    pub num_failed_steps: u64,
    /// How long the last step took.
    pub last_step_ms: f64,
    /// Where the time of all steps went.
    pub step_times: StepTimes,
    /// How long the step that runs now has been running.
    pub running_step_ms: Option<f64>,
}

/// Time spent in the parts of steps, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTimes {
    /// Ending and pausing requests, choosing what runs, reserving blocks.
    pub plan_ms: f64,
    /// The vision tower.
    pub encode_images_ms: f64,
    /// The decoder.
    pub forward_ms: f64,
    /// Choosing tokens.
    pub sample_ms: f64,
    /// Turning them into text and telling it.
    pub deliver_ms: f64,
}

impl StepTimes {
    pub(crate) fn add(&mut self, step: &Self) {
        self.plan_ms += step.plan_ms;
        self.encode_images_ms += step.encode_images_ms;
        self.forward_ms += step.forward_ms;
        self.sample_ms += step.sample_ms;
        self.deliver_ms += step.deliver_ms;
    }

    /// The share of the time that neither the vision tower nor the decoder took.
    pub fn overhead(&self) -> f64 {
        let own = self.plan_ms + self.sample_ms + self.deliver_ms;
        own / (own + self.encode_images_ms + self.forward_ms).max(f64::MIN_POSITIVE)
    }
}

/// What the threads of an engine tell each other without a message.
pub(crate) struct Board {
    opened: Instant,
    stats: Mutex<EngineStats>,
    /// When the running step began, in milliseconds since `opened`, plus one; 0 between steps.
    step_began: AtomicU64,
    stuck_after: Duration,
    ended: Mutex<bool>,
    rang: Condvar,
}

impl Board {
    pub(crate) fn new(stuck_after: Duration) -> Self {
        Self {
            opened: Instant::now(),
            stats: Mutex::default(),
            step_began: AtomicU64::new(0),
            stuck_after,
            ended: Mutex::new(false),
            rang: Condvar::new(),
        }
    }

    pub(crate) fn publish(&self, stats: EngineStats) {
        *lock(&self.stats) = stats;
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let running_step_ms = self.step_age().map(|age| age.as_secs_f64() * 1e3);
        EngineStats { running_step_ms, ..*lock(&self.stats) }
    }

    pub(crate) fn step_begins(&self) {
        self.step_began.store(self.opened.elapsed().as_millis() as u64 + 1, Ordering::Release);
    }

    pub(crate) fn step_ends(&self) {
        self.step_began.store(0, Ordering::Release);
    }

    fn step_age(&self) -> Option<Duration> {
        let began = self.step_began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.opened.elapsed().saturating_sub(Duration::from_millis(began)))
    }

    /// # Errors
    /// `Device` if a step has been running for longer than any should.
    pub(crate) fn check_moving(&self) -> Result<()> {
        match self.step_age().filter(|age| *age >= self.stuck_after) {
            None => Ok(()),
            Some(age) => Err(Error::device(format_args!(
                "a step has been running for {:.1} s, expected less than {:.1} s",
                age.as_secs_f64(),
                self.stuck_after.as_secs_f64()
            ))),
        }
    }

    /// The core is gone: the watchdog has nothing left to watch.
    pub(crate) fn end(&self) {
        *lock(&self.ended) = true;
        self.rang.notify_all();
    }

    /// Says so when a step hangs and when it goes on, until the core is gone. `submit` and `probe` ask for themselves.
    pub(crate) fn watch(&self) {
        let mut was_stuck = false;
        let mut ended = lock(&self.ended);
        while !*ended {
            let stuck = self.check_moving();
            match (&stuck, was_stuck) {
                (Err(error), false) => tracing::error!(%error, "the engine is stuck"),
                (Ok(()), true) => tracing::warn!("the engine goes on"),
                _ => {}
            }
            was_stuck = stuck.is_err();
            let wait = self.rang.wait_timeout(ended, (self.stuck_after / 4).max(Duration::from_millis(10)));
            ended = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A rate that forgets: what lies `MEMORY` back counts a third.
#[derive(Default)]
pub(crate) struct Meter {
    per_second: f64,
}

impl Meter {
    const MEMORY: f64 = 5.0;

    /// Notes that `count` things happened within the last `seconds`, and returns the rate.
    pub(crate) fn note(&mut self, count: usize, seconds: f64) -> f64 {
        let rate = count as f64 / seconds.max(1e-9);
        self.per_second += (rate - self.per_second) * (1.0 - (-seconds / Self::MEMORY).exp());
        self.per_second
    }
}
