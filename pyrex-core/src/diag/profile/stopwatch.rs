//! [`Stopwatch`]: a tap that times what lies between one tap and the next.
//!
//! What is shown was made since the tap before, since a layer began ([`Tap::proceed`]) or since the pass did. What the
//! watching itself takes, from the moment a tap is reached until the code goes on, is kept apart.

use crate::error::Result;
use crate::trace::{Origin, Tap};
use candle_core::{DType, Device, Tensor, TensorId};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Times one pass.
#[derive(Debug)]
pub struct Stopwatch {
    device: Device,
    started: Instant,
    /// Where the time of the next operation begins.
    mark: Instant,
    /// When the tap that is being shown was reached.
    reached: Cell<Instant>,
    overhead: Duration,
    last: Option<TensorId>,
    visits: Vec<Visit>,
}

/// What one pass took.
#[derive(Clone, Debug, Default)]
pub struct Lap {
    /// All of it.
    pub wall: Duration,
    /// The watching.
    pub overhead: Duration,
    /// Every tap, in the order in which they were shown.
    pub visits: Vec<Visit>,
}

/// A tap, and how long it was in coming.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Its name.
    pub name: String,
    /// Who showed it.
    pub origin: Origin,
    /// The time since the one before.
    pub time: Duration,
    /// The shape of its tensor.
    pub shape: Vec<usize>,
    /// The dtype of its tensor.
    pub dtype: DType,
    /// Whether the tap before showed the very same tensor, so that nothing was made.
    pub shown_before: bool,
}

impl Stopwatch {
    /// Starts a pass on `device`.
    pub fn start(device: &Device) -> Self {
        let now = now(device);
        Self {
            device: device.clone(),
            started: now,
            mark: now,
            reached: Cell::new(now),
            overhead: Duration::ZERO,
            last: None,
            visits: Vec::with_capacity(1024),
        }
    }

    /// Ends it.
    pub fn stop(self) -> Lap {
        let wall = now(&self.device) - self.started;
        Lap { wall, overhead: self.overhead, visits: self.visits }
    }
}

impl Lap {
    /// The share of it that lay in operations; the rest is the watching, and what no tap shows.
    pub fn explained(&self) -> f64 {
        let inside: Duration = self.visits.iter().map(|visit| visit.time).sum();
        inside.as_secs_f64() / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// This pass and `next` after it as one.
    pub fn then(mut self, next: Self) -> Self {
        self.wall += next.wall;
        self.overhead += next.overhead;
        self.visits.extend(next.visits);
        self
    }
}

impl Tap for Stopwatch {
    /// Asked by every tap before it builds its name: what comes after that is the watching's own.
    fn watching(&self) -> bool {
        self.reached.set(now(&self.device));
        true
    }

    fn watching_steps(&self) -> bool {
        false
    }

    fn visit(&mut self, name: &str, tensor: &Tensor, origin: Origin) -> Result<Option<Tensor>> {
        let reached = self.reached.get();
        self.visits.push(Visit {
            name: name.to_string(),
            origin,
            time: reached - self.mark,
            shape: tensor.dims().to_vec(),
            dtype: tensor.dtype(),
            shown_before: self.last == Some(tensor.id()),
        });
        self.last = Some(tensor.id());
        self.mark = Instant::now();
        self.overhead += self.mark - reached;
        Ok(None)
    }

    fn proceed(&mut self) -> Result<()> {
        self.mark = now(&self.device);
        Ok(())
    }
}

/// The time once the device has done what it was told; a failure shows in the next operation.
fn now(device: &Device) -> Instant {
    drop(device.synchronize());
    Instant::now()
}
