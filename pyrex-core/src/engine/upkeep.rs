//! What the core does between two steps: it hears what others want, lets go of what nobody wants, and says how it stands.

use super::core::{Arrival, Command, EngineCore};
use super::event::Event;
use super::live::Live;
use super::lobby::Stage;
use crate::error::{Error, Result};
use crate::schedule::Sequence;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Instant;

impl EngineCore {
    /// Takes what was sent since the last step; if nobody can go on, waits for it or for the next date. An error says why the
    /// engine closes.
    pub(super) fn take_commands(&mut self) -> Result<()> {
        loop {
            let commands = &self.links.commands;
            let received = match self.idle {
                false => commands.try_recv().map_err(|e| e == TryRecvError::Empty),
                true => match self.next_date() {
                    None => commands.recv().map_err(|_| false),
                    Some(date) => {
                        let time = date.saturating_duration_since(Instant::now());
                        commands.recv_timeout(time).map_err(|e| e == RecvTimeoutError::Timeout)
                    }
                },
            };
            let command = match received {
                Ok(command) => command,
                Err(nothing_yet) if nothing_yet => return Ok(()),
                Err(_) => return Err(Error::closed("the engine was dropped")),
            };
            self.idle = false;
            match command {
                Command::Wake => {}
                Command::Close(reason) => return Err(reason),
                Command::Add(arrival) => {
                    let Arrival { sequence, live } = *arrival;
                    self.live.insert(sequence.id.request, live);
                    self.scheduler.add(sequence);
                }
            }
        }
    }

    /// When something is due without anybody saying so: a deadline, or the blocks of a request that nobody reads.
    fn next_date(&self) -> Option<Instant> {
        let dates = self.live.values().flat_map(|live| {
            let holds = |id| self.scheduler.get(id).is_some_and(Sequence::is_running);
            let reclaim = live.paused_since.filter(|_| live.sequence_ids().any(holds));
            [live.control.deadline(), reclaim.and_then(|since| since.checked_add(self.links.reader_timeout))]
        });
        dates.flatten().chain(self.links.lobby.next_deadline()).min()
    }

    /// Ends whoever is cancelled or too late, prepared or not.
    pub(super) fn drop_unwanted(&mut self) {
        for (job, reason) in self.links.lobby.take_unwanted() {
            job.ticket.outlet.end(Event::Failed(reason));
        }
        let now = Instant::now();
        let reason =
            |(request, live): (&u64, &Live)| live.control.check(now).err().map(|reason| (*request, reason));
        for (request, reason) in self.live.iter().filter_map(reason).collect::<Vec<_>>() {
            self.fail(request, reason);
        }
    }

    /// Pauses those whose events nobody reads, reclaims their blocks in time, and goes on with those that are read again.
    pub(super) fn follow_readers(&mut self) {
        let now = Instant::now();
        for live in self.live.values_mut() {
            if live.paused_since.is_none() && !live.outlet.has_room() {
                live.control.pause();
                // Read meanwhile: whoever read it did not see the pause, and will not say so.
                if live.outlet.has_room() {
                    live.control.resume();
                }
            }
            let paused = live.control.is_paused();
            if paused != live.paused_since.is_some() {
                live.paused_since = paused.then_some(now);
                live.sequence_ids().for_each(|id| self.scheduler.pause(id, paused));
            }
            if live.paused_since.is_some_and(|since| now - since >= self.links.reader_timeout) {
                live.sequence_ids().for_each(|id| self.scheduler.reclaim(id));
                if let Some(guest) = live.outlet.guest() {
                    guest.move_to(Stage::Waiting);
                }
            }
        }
    }

    /// The cache is in doubt: nothing goes on. Who ran fails, who waited is told that the engine closed.
    pub(super) fn close_after_panic(&mut self, message: &str) -> Error {
        let closed = Error::closed(format_args!("the engine closed after {message}"));
        self.links.lobby.shut(closed.clone());
        let ran: Vec<u64> = self
            .scheduler
            .sequences()
            .filter(|sequence| sequence.is_running())
            .map(|s| s.id.request)
            .collect();
        self.end_all(
            |request| if ran.contains(&request) { Error::internal(message) } else { closed.clone() },
        );
        closed
    }

    pub(super) fn end_all(&mut self, reason: impl Fn(u64) -> Error) {
        for request in self.live.keys().copied().collect::<Vec<_>>() {
            self.fail(request, reason(request));
        }
    }

    pub(super) fn publish(&mut self) {
        let (counts, features) = (self.scheduler.counts(), self.runner.feature_counts());
        let groups = self.scheduler.blocks();
        self.totals.num_paused = self.live.values().filter(|live| live.paused_since.is_some()).count();
        self.totals.num_leases = self.scheduler.sequences().filter(|sequence| sequence.is_running()).count();
        self.totals.num_blocks = groups.iter().map(|group| group.num_blocks).sum();
        self.totals.num_free_blocks = groups.iter().map(|group| group.num_free).sum();
        self.totals.num_cached_blocks = groups.iter().map(|group| group.num_cached).sum();
        (self.totals.prefix_tokens, self.totals.prefix_hit_tokens) =
            (counts.prefix_tokens, counts.prefix_hit_tokens);
        (self.totals.image_lookups, self.totals.image_hits) = (features.lookups, features.hits);
        self.totals.preemptions = counts.preemptions;
        self.links.board.publish(self.totals);
    }
}
