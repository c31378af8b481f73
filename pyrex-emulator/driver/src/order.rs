//! What comes before what. Work has run when the call that puts it on a stream returns, so the order of the calls would hide that
//! a program forgot to wait; here is kept what it did wait for, and two uses of memory that no wait orders are an error.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A stream, or a branch of a graph while that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// The place of one piece of work: the so-and-so-many-th of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) stream: StreamId,
    tick: u64,
}

/// How much of each stream's work lies before something: before an event, a stream's next work, the host's next call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    ticks: HashMap<StreamId, u64>,
}

impl Clock {
    /// Whether `moment` lies before.
    pub(crate) fn saw(&self, moment: Moment) -> bool {
        self.ticks.get(&moment.stream).is_some_and(|tick| *tick >= moment.tick)
    }

    /// Whether all that lies before `other` lies before this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.ticks.iter().all(|(stream, tick)| self.saw(Moment { stream: *stream, tick: *tick }))
    }

    /// What lies before `other` lies before this from now on.
    pub(crate) fn join(&mut self, other: &Self) {
        for (stream, tick) in &other.ticks {
            match self.ticks.entry(*stream) {
                Entry::Occupied(mut seen) => *seen.get_mut() = (*seen.get()).max(*tick),
                Entry::Vacant(unseen) => drop(unseen.insert(*tick)),
            }
        }
    }

    /// The next work of `stream`, whose clock this is.
    pub(crate) fn advance(&mut self, stream: StreamId) -> Moment {
        let tick = self.ticks.entry(stream).or_default();
        *tick += 1;
        Moment { stream, tick: *tick }
    }
}

/// How memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is only read.
    Read,
    /// It is written, allocated or freed.
    Write,
}

/// The last uses of a piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    written: Option<Moment>,
    /// Since then, one of each stream.
    read: Vec<Moment>,
}

impl Uses {
    /// Notes a use by the work at `moment`, before which lies what `clock` saw.
    ///
    /// # Errors
    /// An earlier use that does not lie before it, and must.
    pub(crate) fn note(&mut self, moment: Moment, clock: &Clock, access: Access) -> Result<(), Moment> {
        let mut earlier = self.written.iter().chain(match access {
            Access::Read => [].iter(),
            Access::Write => self.read.iter(),
        });
        if let Some(unordered) = earlier.find(|earlier| !clock.saw(**earlier)) {
            return Err(*unordered);
        }
        match access {
            Access::Read => self.read.retain(|read| read.stream != moment.stream),
            Access::Write => *self = Self { written: Some(moment), read: Vec::new() },
        }
        if access == Access::Read {
            self.read.push(moment);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_streams_need_a_wait_between_a_write_and_a_read() {
        let (a, b) = (StreamId(1), StreamId(2));
        let (mut clock_a, mut clock_b) = (Clock::default(), Clock::default());
        let mut uses = Uses::default();
        let written = clock_a.advance(a);
        assert_eq!(uses.note(written, &clock_a, Access::Write), Ok(()));
        let read = clock_b.advance(b);
        assert_eq!(uses.note(read, &clock_b, Access::Read), Err(written));
        clock_b.join(&clock_a);
        assert_eq!(uses.note(read, &clock_b, Access::Read), Ok(()));
        let again = clock_a.advance(a);
        assert_eq!(uses.note(again, &clock_a, Access::Read), Ok(()), "two may read");
        assert_eq!(uses.note(again, &clock_a, Access::Write), Err(read));
        clock_a.join(&clock_b);
        assert_eq!(uses.note(again, &clock_a, Access::Write), Ok(()));
        assert!(clock_a.covers(&clock_b) && !clock_b.covers(&clock_a));
    }
}
