//! [`EngineCore`]: the thread that owns the device, and its one loop.

use super::event::Event;
use super::live::{Choice, Live};
use super::lobby::Lobby;
use super::runner::{Encoding, Launched, Logits, Part, Runner};
use super::sampler::Sampled;
use super::stats::{Board, EngineStats, Meter, StepTimes};
use super::{elapsed_ms, panic_message};
use crate::error::{Error, Result};
use crate::schedule::{Plan, PlannedChunk, Scheduler, Sequence, SequenceId};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tracing::Span;

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

/// A step that was launched.
pub(super) struct Flight {
    plan: Plan,
    launched: Launched,
    encoding: Option<Encoding>,
    started: Instant,
    times: StepTimes,
}

/// What a step left for the sequences that it brought to their ends.
enum Chosen {
    Logits(Logits),
    Drawn(Vec<u32>),
}

/// The same for one of them.
#[derive(Clone, Copy)]
enum Row<'a> {
    Logits(&'a [f32]),
    Drawn(u32),
}

impl Chosen {
    fn rows(&self) -> Box<dyn Iterator<Item = Row<'_>> + '_> {
        match self {
            Self::Logits(logits) => Box::new(logits.rows().map(Row::Logits)),
            Self::Drawn(ids) => Box::new(ids.iter().copied().map(Row::Drawn)),
        }
    }
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
    pub(super) runner: Runner,
    pub(super) scheduler: Scheduler,
    /// By the number of the request.
    pub(super) live: BTreeMap<u64, Live>,
    /// Those of a step that failed: each runs alone, until the guilty is found.
    suspects: VecDeque<SequenceId>,
    /// The step that was launched last, while its tokens are not read.
    flight: Option<Flight>,
    /// When the last step ended.
    landed: Instant,
    /// Nobody could go on at the last step.
    pub(super) idle: bool,
    pub(super) links: Links,
    pub(super) totals: EngineStats,
    meter: Meter,
}

impl EngineCore {
    pub(crate) fn new(runner: Runner, scheduler: Scheduler, links: Links) -> Self {
        let (live, suspects) = (BTreeMap::new(), VecDeque::new());
        let (totals, meter) = (EngineStats::default(), Meter::default());
        let mut core = Self {
            runner,
            scheduler,
            live,
            suspects,
            flight: None,
            landed: Instant::now(),
            idle: true,
            links,
            totals,
            meter,
        };
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
                let started = Instant::now();
                self.drop_unwanted();
                self.follow_readers();
                self.step(started);
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
    ///
    /// Where tokens are drawn without the host, the step is only launched here, and its tokens are sampled and delivered while
    /// the next one runs; what that one needs of them is expected, and put in its place on the device.
    fn step(&mut self, started: Instant) {
        let plan = self.plan();
        self.idle = plan.chunks.is_empty() && self.flight.is_none();
        if self.idle {
            return self.fail_stuck();
        }
        let mut times = StepTimes { plan_ms: elapsed_ms(started), ..StepTimes::default() };
        self.links.board.step_begins();
        let launched = match plan.chunks.is_empty() {
            true => None,
            false => Some(self.launch(&plan, &mut times)),
        };
        if let Some(before) = self.flight.take() {
            self.land(before);
        }
        match launched {
            None => {}
            Some(Err(error)) => self.give_up(&plan, error),
            Some(Ok((launched, encoding))) => {
                self.scheduler.commit(&plan);
                let flight = Flight { plan, launched, encoding, started, times };
                match flight.launched {
                    Launched::Drawn(_) => self.let_fly(flight),
                    Launched::Logits(_) => self.land(flight),
                }
            }
        }
        self.links.board.step_ends();
        self.publish();
    }

    /// Goes on without the tokens of a step: whoever is to have one more after it expects it.
    fn let_fly(&mut self, flight: Flight) {
        for chunk in flight.plan.chunks.iter().filter(|chunk| chunk.samples) {
            let Some(live) = self.live.get(&chunk.sequence_id.request) else { continue };
            let choice = live.choices.get(chunk.sequence_id.index as usize);
            if choice.is_some_and(|choice| choice.finish.is_none() && !choice.output.ends_next()) {
                self.scheduler.expect(chunk.sequence_id);
            }
        }
        self.flight = Some(flight);
    }

    /// Waits for a step, samples what it left to the host, and delivers its tokens.
    fn land(&mut self, flight: Flight) {
        let Flight { plan, launched, encoding, started, mut times } = flight;
        let waiting = Instant::now();
        let chosen = match launched {
            Launched::Logits(logits) => Chosen::Logits(logits),
            Launched::Drawn(ids) => match ids.wait() {
                Ok(ids) => Chosen::Drawn(ids),
                Err(error) => return self.fail_all(&plan, &error),
            },
        };
        times.forward_ms += elapsed_ms(waiting);
        if let Some(encoding) = encoding
            && let Err(error) = self.note_encoding(&encoding, &mut times)
        {
            return self.fail_all(&plan, &error);
        }
        self.note_forward(&plan, times.forward_ms);
        let sampling = Instant::now();
        let sampled = self.sample(&plan, &chosen);
        times.sample_ms = elapsed_ms(sampling);
        let delivering = Instant::now();
        let num_sampled = sampled.len();
        sampled.into_iter().for_each(|(id, sampled)| self.deliver(id, sampled));
        times.deliver_ms = elapsed_ms(delivering);
        self.note_step(&plan, num_sampled, started, &times);
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

    /// The device's part of a step, launched.
    fn launch(&mut self, plan: &Plan, times: &mut StepTimes) -> Result<(Launched, Option<Encoding>)> {
        let _spans = self.begin(plan);
        let parts = parts(plan, &self.live, &self.scheduler)?;
        let launching = Instant::now();
        let features = self.runner.encode_images(&parts)?;
        let launched = self.runner.launch(&parts, &features)?;
        times.forward_ms = elapsed_ms(launching);
        Ok((launched, features.encoding))
    }

    /// The vision tower's part of the time of a step that is over; the rest is the decoder's.
    fn note_encoding(&mut self, encoding: &Encoding, times: &mut StepTimes) -> Result<()> {
        times.encode_images_ms = encoding.interval.ms()?;
        times.forward_ms = (times.forward_ms - times.encode_images_ms).max(0.0);
        for id in &encoding.sequences {
            if let Some(live) = self.live.get_mut(&id.request) {
                live.timings.encode_images_ms += times.encode_images_ms;
            }
        }
        Ok(())
    }

    fn note_forward(&mut self, plan: &Plan, forward_ms: f64) {
        for (request, live) in &mut self.live {
            if plan.chunks.iter().any(|chunk| chunk.sequence_id.request == *request) {
                live.note_forward(forward_ms);
            }
        }
    }

    /// Notes that the requests of `plan` run, and returns a span for each chunk.
    fn begin(&mut self, plan: &Plan) -> Vec<Span> {
        let mut spans = Vec::with_capacity(plan.chunks.len());
        for chunk in &plan.chunks {
            let Some(live) = self.live.get_mut(&chunk.sequence_id.request) else { continue };
            let (start, end) = (chunk.positions.start, chunk.positions.end);
            live.note_start(start);
            spans.push(match live.has_begun() {
                true => tracing::debug_span!(parent: &live.span, "decode", position = start),
                false => tracing::debug_span!(parent: &live.span, "prefill", start, end),
            });
        }
        spans
    }

    /// The next token of each sequence that the plan brought to its end. The prompt's logits begin every completion.
    fn sample(&mut self, plan: &Plan, chosen: &Chosen) -> Vec<(SequenceId, Result<Sampled>)> {
        let sampling = plan.chunks.iter().filter(|chunk| chunk.samples);
        let rows: HashMap<SequenceId, (Row<'_>, usize)> = sampling
            .zip(chosen.rows())
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
        let sample = |(id, choice, row, position): (_, &mut Choice, _, _)| match row {
            Row::Logits(logits) => (id, choice.sampler.sample(logits, position)),
            Row::Drawn(token_id) => (id, choice.sampler.take(token_id, position)),
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

    /// The device failed under a step that was launched, and with it all that the step was for.
    fn fail_all(&mut self, plan: &Plan, error: &Error) {
        self.totals.num_failed_steps += 1;
        plan.chunks.iter().for_each(|chunk| self.fail(chunk.sequence_id.request, error.clone()));
    }

    pub(super) fn fail(&mut self, request: u64, error: Error) {
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

    fn note_step(&mut self, plan: &Plan, num_sampled: usize, started: Instant, times: &StepTimes) {
        let totals = &mut self.totals;
        // A step that was launched while the one before it ran took the time from the end of that one.
        totals.last_step_ms = elapsed_ms(started.max(self.landed));
        self.landed = Instant::now();
        totals.num_steps += 1;
        totals.computed_tokens += plan.num_tokens() as u64;
        totals.generated_tokens += num_sampled as u64;
        totals.tokens_per_second = self.meter.note(num_sampled, totals.last_step_ms / 1e3);
        totals.step_times.add(times);
    }
}

fn parts<'a>(
    plan: &'a Plan,
    live: &'a BTreeMap<u64, Live>,
    scheduler: &'a Scheduler,
) -> Result<Vec<Part<'a>>> {
    let part = |chunk: &'a PlannedChunk| {
        let id = chunk.sequence_id;
        let (Some(live), Some(sequence)) = (live.get(&id.request), scheduler.get(id)) else {
            return Err(Error::internal(format_args!("{id:?} was planned and is not live")));
        };
        // The first token of several completions is drawn several times from the same logits.
        let choice = match live.choices.as_slice() {
            [only] => Some(only),
            several => several.get(id.index as usize).filter(|_| live.has_begun()),
        };
        let draw = choice.and_then(|choice| choice.sampler.draw(chunk.positions.end));
        Ok(Part { chunk, sequence, images: &live.images, control: &live.control, span: &live.span, draw })
    };
    plan.chunks.iter().map(part).collect()
}
