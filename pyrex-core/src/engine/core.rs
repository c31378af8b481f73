//! [`EngineCore`]: the thread that owns the device, and its one loop.

use super::event::Event;
use super::live::Live;
use super::lobby::{Lobby, Stage};
use super::runner::{Logits, Part, Runner};
use super::sampler::Sampled;
use super::stats::{Board, EngineStats, Meter, StepTimes};
use super::{elapsed_ms, panic_message};
use crate::error::{Error, Result};
use crate::schedule::{Plan, Scheduler, Sequence, SequenceId};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// All that anybody can tell the core.
pub(crate) enum Command {
    /// Answer this request.
    Add(Box<Arrival>),
    /// Look again: a request was cancelled, or is read again.
    Wake,
    /// End everything.
    Close(Error),
}

/// A prepared request on its way into the core.
pub(crate) struct Arrival {
    pub(crate) sequence: Sequence,
    pub(crate) live: Live,
}

/// What the core shares with the other threads.
pub(crate) struct Links {
    pub(crate) commands: Receiver<Command>,
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) board: Arc<Board>,
    /// How long a request that nobody reads keeps its blocks.
    pub(crate) reader_timeout: Duration,
}

/// The model, the cache and the live requests.
pub(crate) struct EngineCore {
    runner: Runner,
    scheduler: Scheduler,
    /// By the number of the request.
    live: BTreeMap<u64, Live>,
    /// Those of a step that failed: each runs alone, until the guilty is found.
    suspects: VecDeque<SequenceId>,
    /// Nobody could go on at the last step.
    idle: bool,
    links: Links,
    totals: EngineStats,
    meter: Meter,
}

impl EngineCore {
    pub(crate) fn new(runner: Runner, scheduler: Scheduler, links: Links) -> Self {
        let (live, suspects) = (BTreeMap::new(), VecDeque::new());
        let (totals, meter) = (EngineStats::default(), Meter::default());
        let mut core = Self { runner, scheduler, live, suspects, idle: true, links, totals, meter };
        core.publish();
        core
    }

    /// Steps until the engine closes; requests that are live then end with the reason.
    pub(crate) fn run(mut self) {
        let reason = loop {
            if let Err(reason) = self.take_commands() {
                break reason;
            }
            let step = catch_unwind(AssertUnwindSafe(|| {
                self.drop_unwanted();
                self.follow_readers();
                self.step();
            }));
            if let Err(panic) = step {
                break self.close_after_panic(&panic_message("a step", &*panic));
            }
        };
        self.links.lobby.close(reason.clone());
        while let Ok(command) = self.links.commands.try_recv() {
            if let Command::Add(arrival) = command {
                arrival.live.outlet.end(Event::Failed(reason.clone()));
            }
        }
        self.end_all(|_| reason.clone());
    }

    /// One step: plan, encode images, run, sample, deliver. A step that fails changes nothing; see [`Self::give_up`].
    fn step(&mut self) {
        let started = Instant::now();
        let plan = self.plan();
        self.idle = plan.chunks.is_empty();
        if self.idle {
            return self.fail_stuck();
        }
        let mut times = StepTimes { plan_ms: elapsed_ms(started), ..StepTimes::default() };
        self.links.board.step_begins();
        let computed = self.compute(&plan, &mut times);
        self.links.board.step_ends();
        match computed {
            Ok(logits) => {
                self.scheduler.commit(&plan);
                let sampling = Instant::now();
                let sampled = self.sample(&plan, &logits);
                times.sample_ms = elapsed_ms(sampling);
                let delivering = Instant::now();
                let num_sampled = sampled.len();
                sampled.into_iter().for_each(|(id, sampled)| self.deliver(id, sampled));
                times.deliver_ms = elapsed_ms(delivering);
                self.note_step(&plan, num_sampled, started, &times);
            }
            Err(error) => self.give_up(&plan, error),
        }
        self.publish();
    }

    /// What the next step runs: one of the suspects if there are any, else as many as may run together.
    fn plan(&mut self) -> Plan {
        while let Some(id) = self.suspects.pop_front() {
            let plan = self.scheduler.plan_alone(id);
            if !plan.chunks.is_empty() {
                return plan;
            }
        }
        self.scheduler.plan()
    }

    /// The device's part of a step: the logits of each sequence that the plan brings to its end.
    fn compute(&mut self, plan: &Plan, times: &mut StepTimes) -> Result<Logits> {
        let mut parts = Vec::with_capacity(plan.chunks.len());
        let mut spans = Vec::with_capacity(plan.chunks.len());
        for chunk in &plan.chunks {
            let Some(live) = self.live.get_mut(&chunk.sequence_id.request) else { continue };
            live.note_start(chunk.positions.start);
            let (start, end) = (chunk.positions.start, chunk.positions.end);
            spans.push(match live.has_begun() {
                true => tracing::debug_span!(parent: &live.span, "decode", position = start),
                false => tracing::debug_span!(parent: &live.span, "prefill", start, end),
            });
        }
        for chunk in &plan.chunks {
            let (Some(live), Some(sequence)) =
                (self.live.get(&chunk.sequence_id.request), self.scheduler.get(chunk.sequence_id))
            else {
                return Err(Error::internal("a sequence was planned that is not live"));
            };
            parts.push(Part {
                chunk,
                sequence,
                images: &live.images,
                control: &live.control,
                span: &live.span,
            });
        }
        let encoding = Instant::now();
        let features = self.runner.encode_images(&parts)?;
        times.encode_images_ms = elapsed_ms(encoding);
        let running = Instant::now();
        let logits = self.runner.forward(&parts, &features)?;
        times.forward_ms = elapsed_ms(running);
        let requests: BTreeSet<u64> = plan.chunks.iter().map(|chunk| chunk.sequence_id.request).collect();
        for request in requests {
            if let Some(live) = self.live.get_mut(&request) {
                live.note_forward(times.forward_ms);
            }
        }
        for id in &features.encoded_for {
            if let Some(live) = self.live.get_mut(&id.request) {
                live.timings.encode_images_ms += times.encode_images_ms;
            }
        }
        Ok(logits)
    }

    /// The next token of each sequence that the plan brought to its end. The prompt's logits begin every completion.
    fn sample(&mut self, plan: &Plan, logits: &Logits) -> Vec<(SequenceId, Result<Sampled>)> {
        let sampling = plan.chunks.iter().filter(|chunk| chunk.samples);
        let rows: HashMap<SequenceId, (&[f32], usize)> = sampling
            .zip(logits.rows())
            .map(|(chunk, row)| (chunk.sequence_id, (row, chunk.positions.end)))
            .collect();
        let mut jobs = Vec::with_capacity(rows.len());
        for live in self.live.values_mut() {
            let (id, has_begun) = (live.id, live.has_begun());
            for (index, choice) in (0..).zip(&mut live.choices).filter(|(_, choice)| choice.finish.is_none())
            {
                let own = SequenceId { index, ..id };
                if let Some((row, position)) = rows.get(if has_begun { &own } else { &id }) {
                    jobs.push((own, choice, *row, *position));
                }
            }
        }
        let sample = |(id, choice, row, position): (SequenceId, &mut super::live::Choice, &[f32], usize)| {
            (id, choice.sample(row, position))
        };
        jobs.into_par_iter().map(sample).collect()
    }

    fn deliver(&mut self, id: SequenceId, sampled: Result<Sampled>) {
        let Some(live) = self.live.get_mut(&id.request) else { return };
        let sampled = match sampled {
            Ok(sampled) => sampled,
            Err(error) => return self.fail(id.request, error),
        };
        if !live.has_begun() {
            (1..live.choices.len() as u32).for_each(|index| self.scheduler.fork(live.id, index));
        }
        self.scheduler.append(id, sampled.token_id);
        if live.tell(id.index as usize, sampled).is_none() {
            return;
        }
        self.scheduler.remove(id);
        if live.is_finished()
            && let Some(live) = self.retire(id.request)
        {
            live.finish();
        }
    }

    /// A step failed, and nothing of it counts. If somebody in it is wanted no more, that was the reason, and the others go
    /// on. Otherwise whoever fails alone is guilty; those that ran together are tried one by one.
    fn give_up(&mut self, plan: &Plan, error: Error) {
        self.totals.num_failed_steps += 1;
        self.scheduler.roll_back(plan);
        let now = Instant::now();
        let unwanted =
            |id: &SequenceId| self.live.get(&id.request).is_none_or(|live| live.control.check(now).is_err());
        let mut ids = plan.chunks.iter().map(|chunk| chunk.sequence_id);
        match plan.chunks.as_slice() {
            _ if ids.any(|id| unwanted(&id)) => {}
            [alone] => self.fail(alone.sequence_id.request, error),
            together => self.suspects.extend(together.iter().map(|chunk| chunk.sequence_id)),
        }
    }

    /// Takes what was sent since the last step; if nobody can go on, waits for it or for the next date. An error says why the
    /// engine closes.
    fn take_commands(&mut self) -> Result<()> {
        let gone = || Error::closed("the engine was dropped");
        loop {
            let command = match (self.idle, self.next_date()) {
                (false, _) => match self.links.commands.try_recv() {
                    Err(TryRecvError::Empty) => return Ok(()),
                    received => received.map_err(|_| gone())?,
                },
                (true, None) => self.links.commands.recv().map_err(|_| gone())?,
                (true, Some(date)) => {
                    let time = date.saturating_duration_since(Instant::now());
                    match self.links.commands.recv_timeout(time) {
                        Err(RecvTimeoutError::Timeout) => return Ok(()),
                        received => received.map_err(|_| gone())?,
                    }
                }
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
            [live.control.deadline(), reclaim.map(|since| since + self.links.reader_timeout)]
        });
        dates.flatten().chain(self.links.lobby.next_deadline()).min()
    }

    /// Ends whoever is cancelled or too late, prepared or not.
    fn drop_unwanted(&mut self) {
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
    fn follow_readers(&mut self) {
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
            if live.paused_since.is_some_and(|since| since + self.links.reader_timeout <= now) {
                live.sequence_ids().for_each(|id| self.scheduler.reclaim(id));
                if let Some(guest) = live.outlet.guest() {
                    guest.move_to(Stage::Waiting);
                }
            }
        }
    }

    fn fail(&mut self, request: u64, error: Error) {
        if let Some(live) = self.retire(request) {
            live.outlet.end(Event::Failed(error));
        }
    }

    /// Frees all that a request holds, so that the final event that follows finds it gone.
    fn retire(&mut self, request: u64) -> Option<Live> {
        let live = self.live.remove(&request)?;
        live.sequence_ids().for_each(|id| self.scheduler.remove(id));
        self.publish();
        Some(live)
    }

    /// Nothing can run: if anybody should, the cache is too small for the first of them.
    fn fail_stuck(&mut self) {
        let first = self.scheduler.sequences().find(|sequence| !sequence.paused).map(|sequence| sequence.id);
        if let Some(id) = first {
            self.idle = false;
            self.fail(
                id.request,
                Error::out_of_memory("the cache has no room for the next tokens of the request"),
            );
        }
        self.publish();
    }

    /// The cache is in doubt: nothing goes on. Who ran fails, who waited is told that the engine closed.
    fn close_after_panic(&mut self, message: &str) -> Error {
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

    fn end_all(&mut self, reason: impl Fn(u64) -> Error) {
        for request in self.live.keys().copied().collect::<Vec<_>>() {
            self.fail(request, reason(request));
        }
    }

    fn note_step(&mut self, plan: &Plan, num_sampled: usize, started: Instant, times: &StepTimes) {
        let totals = &mut self.totals;
        totals.last_step_ms = elapsed_ms(started);
        totals.num_steps += 1;
        totals.computed_tokens += plan.num_tokens() as u64;
        totals.generated_tokens += num_sampled as u64;
        totals.tokens_per_second = self.meter.note(num_sampled, totals.last_step_ms / 1e3);
        totals.step_times.add(times);
    }

    fn publish(&mut self) {
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
