//! [`EngineCore`]: the thread that owns the device, and its one loop.

use super::event::Event;
use super::live::Live;
use super::runner::{Part, Runner};
use super::sampler::Sampled;
use super::{Board, EngineStats, elapsed_ms, panic_message};
use crate::error::{Error, Result};
use crate::prompt::Patches;
use crate::schedule::{Plan, PlannedChunk, Scheduler, Sequence, SequenceId};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

/// All that anybody can tell the core.
pub(crate) enum Command {
    /// Answer this request.
    Add(Box<Arrival>),
    /// The last engine handle is gone: end everything.
    Close,
}

/// A prepared request on its way into the core.
pub(crate) struct Arrival {
    pub(crate) sequence: Sequence,
    pub(crate) live: Live,
}

/// The model, the cache and the live requests.
pub(crate) struct EngineCore {
    runner: Runner,
    scheduler: Scheduler,
    live: BTreeMap<SequenceId, Live>,
    commands: Receiver<Command>,
    board: Arc<Board>,
}

impl EngineCore {
    pub(crate) fn new(
        runner: Runner,
        scheduler: Scheduler,
        commands: Receiver<Command>,
        board: Arc<Board>,
    ) -> Self {
        let core = Self { runner, scheduler, live: BTreeMap::new(), commands, board };
        core.publish();
        core
    }

    /// Steps until the engine closes. Requests that are live then end with `Closed`, by being dropped.
    pub(crate) fn run(mut self) {
        while self.take_commands() {
            self.drop_cancelled();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.step())) {
                return self.close_after_panic(&panic_message("a step", &*panic));
            }
        }
    }

    /// One step: plan, encode images, run, sample, deliver. An error ends the requests of the step and no other.
    fn step(&mut self) {
        let plan = self.scheduler.plan();
        if plan.chunks.is_empty() {
            return self.fail_stuck();
        }
        match self.compute(&plan) {
            Ok(tokens) => tokens.into_iter().for_each(|(id, sampled)| match sampled {
                Ok(sampled) => self.deliver(id, &sampled),
                Err(error) => self.fail(id, error),
            }),
            Err(error) => plan.chunks.iter().for_each(|chunk| self.fail(chunk.sequence_id, error.clone())),
        }
        self.publish();
    }

    /// The device's part of a step: the next token of each sequence that the plan brings to its end.
    fn compute(&mut self, plan: &Plan) -> Result<Vec<(SequenceId, Result<Sampled>)>> {
        for chunk in plan.chunks.iter().filter(|chunk| !chunk.images.is_empty()) {
            self.encode_images(chunk)?;
        }
        let started = Instant::now();
        let parts = plan.chunks.iter().filter_map(|chunk| {
            let live = self.live.get(&chunk.sequence_id)?;
            let sequence = self.scheduler.running(chunk.sequence_id)?;
            Some(Part { chunk, sequence, features: live.features.as_ref(), canceller: &live.canceller })
        });
        let logits = self.runner.forward(&parts.collect::<Vec<_>>())?;
        self.scheduler.commit(plan);
        let sampling = plan.chunks.iter().filter(|chunk| chunk.samples).zip(&logits);
        let tokens = sampling.filter_map(|(chunk, logits)| {
            let sampler = &mut self.live.get_mut(&chunk.sequence_id)?.sampler;
            Some((chunk.sequence_id, sampler.sample(logits, chunk.positions.end)))
        });
        let tokens = tokens.collect();
        let forward_ms = elapsed_ms(started);
        for chunk in &plan.chunks {
            if let Some(live) = self.live.get_mut(&chunk.sequence_id) {
                live.note_forward(forward_ms);
            }
        }
        Ok(tokens)
    }

    /// Runs the vision tower over the images of one sequence, and lets go of their pixels.
    fn encode_images(&mut self, chunk: &PlannedChunk) -> Result<()> {
        let Some(live) = self.live.get_mut(&chunk.sequence_id) else { return Ok(()) };
        let started = Instant::now();
        let patches = std::mem::take(&mut live.patches);
        let images: Vec<&Patches> = patches[chunk.images.clone()].iter().collect();
        let num_soft_tokens = live.usage.image_tokens;
        live.features = Some(self.runner.encode_images(&images, num_soft_tokens, &live.canceller)?);
        live.timings.encode_images_ms += elapsed_ms(started);
        Ok(())
    }

    /// Takes what was sent since the last step; waits if nobody is live. False once the engine closes.
    fn take_commands(&mut self) -> bool {
        loop {
            let command = match self.live.is_empty() {
                true => self.commands.recv().map_err(TryRecvError::from),
                false => self.commands.try_recv(),
            };
            match command {
                Ok(Command::Add(arrival)) => self.add(*arrival),
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn add(&mut self, Arrival { sequence, live }: Arrival) {
        self.live.insert(sequence.id, live);
        self.scheduler.add(sequence);
    }

    fn drop_cancelled(&mut self) {
        let cancelled = self.live.iter().filter(|(_, live)| live.canceller.is_cancelled()).map(|(id, _)| *id);
        for id in cancelled.collect::<Vec<_>>() {
            self.fail(id, Error::cancelled("the request was cancelled"));
        }
    }

    fn deliver(&mut self, id: SequenceId, sampled: &Sampled) {
        self.scheduler.append(id, sampled.token_id);
        let Some(live) = self.live.get_mut(&id) else { return };
        if let Some(reason) = live.tell(sampled)
            && let Some(live) = self.retire(id)
        {
            live.finish(reason);
        }
    }

    fn fail(&mut self, id: SequenceId, error: Error) {
        if let Some(live) = self.retire(id) {
            live.outlet.end(Event::Failed(error));
        }
    }

    /// Frees all that a request holds, so that the final event that follows finds it gone.
    fn retire(&mut self, id: SequenceId) -> Option<Live> {
        self.scheduler.remove(id);
        let live = self.live.remove(&id);
        self.publish();
        live
    }

    /// Nothing can run: if anybody is live, the cache is too small for it.
    fn fail_stuck(&mut self) {
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.fail(id, Error::out_of_memory("the cache has no room for the next tokens of the request"));
        }
    }

    /// The cache is in doubt: nothing goes on. Who ran fails, who waited is told that the engine closed.
    fn close_after_panic(mut self, message: &str) {
        self.board.close(Error::closed(format_args!("the engine closed after {message}")));
        for (id, live) in std::mem::take(&mut self.live) {
            let error = match self.scheduler.running(id) {
                Some(_) => Error::internal(message),
                None => self.board.check_open().err().unwrap_or_else(|| Error::internal(message)),
            };
            self.scheduler.remove(id);
            self.publish();
            live.outlet.end(Event::Failed(error));
        }
    }

    fn publish(&self) {
        let (num_waiting, num_running) = self.scheduler.num_sequences();
        let (num_blocks, num_free_blocks) =
            (self.scheduler.blocks().num_blocks(), self.scheduler.blocks().num_free());
        self.board.publish(EngineStats { num_waiting, num_running, num_blocks, num_free_blocks });
    }
}
