//! [`Engine`]: open a model once, submit requests from anywhere.
//!
//! A request passes through the files of this folder in this order: [`request`] → [`lobby`] (where it waits) → [`intake`]
//! (its own thread) → [`core`] (the thread that owns the device: plan, [`runner`], [`sampler`], [`output`]) → [`event`] →
//! [`handle`].
//! The engine knows tensors and scheduling, but no wire format and no host language.

pub mod constraint;
pub mod control;
mod core;
pub mod event;
#[cfg(feature = "llguidance")]
pub mod grammar;
#[cfg(not(feature = "llguidance"))]
#[path = "no_grammar.rs"]
pub mod grammar;
pub mod handle;
mod images;
mod intake;
mod live;
mod lobby;
mod memory;
pub mod options;
pub mod output;
mod probe;
mod reasoning;
mod recorded;
pub mod request;
mod runner;
pub mod sampler;
pub mod sampling;
pub mod session;
pub mod stats;
mod upkeep;

pub use constraint::{Constraint, Grammar, TokenConstraint, TokenMask};
pub use control::RequestControl;
pub use event::{Event, EventSink, FinishReason, Timings, Usage};
#[cfg(feature = "async")]
pub use handle::RequestStream;
pub use handle::{Completion, Next, Notify, RequestHandle};
pub use memory::kv_bytes_per_token;
pub use options::{ActivationDtype, DeviceChoice, EngineConfig, EngineOptions, KvCacheSize, ModelInput};
pub use reasoning::Reasoning;
pub use request::{Input, Request};
pub use sampler::{Sampled, TokenLogprobs};
pub use sampling::SamplingParams;
pub use session::Session;
pub use stats::{EngineStats, StepTimes};

use self::core::{Command, EngineCore, Links};
use crate::error::{Error, Result};
use crate::models::{self, AnswerFormat, LoadedModel, ModelSpec, Processor};
use crate::ops::leaving::{Stay, Stays};
use crate::ops::threads::thread_pool;
use crate::prompt::detokenizer::TokenBytes;
use crate::prompt::{Chat, EncodedPrompt, Prompt};
use crate::schedule::{BLOCK_SIZE, BlockCache, Digests, Scheduler, SequenceId, StepLimits};
use constraint::Constraints;
use event::Outlet;
use intake::{Intake, Job, Ticket};
use lobby::Lobby;
use options::{Limits, ModelLoad};
use runner::{Runner, RunnerLimits};
use stats::Board;
use std::any::Any;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing::Dispatch;

/// A model that answers requests. Cheap to clone; the engine closes when the last clone is dropped, which does not wait:
/// requests that are live then end with a [`Closed`](crate::ErrorKind::Closed) failure and the threads end by themselves.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    spec: ModelSpec,
    config: EngineConfig,
    processor: Arc<dyn Processor>,
    constraints: Constraints,
    load_ms: f64,
    lobby: Arc<Lobby>,
    board: Arc<Board>,
    commands: Sender<Command>,
    next_id: AtomicU64,
    subscriber: Option<Dispatch>,
    /// Of the threads that have the model, or know its device.
    stays: Stays,
}

impl Engine {
    /// Loads the model and starts the engine's threads. Returns when the model is ready.
    ///
    /// Weight files are mapped, not copied: they must not be rewritten or shortened while the engine lives.
    ///
    /// # Errors
    /// `InvalidRequest` if an option is wrong, `Device` or `Unsupported` if the device is not there, `OutOfMemory` if the
    /// cache does not fit, and whatever [`load`](models::load()) says about the checkpoint.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let pool = thread_pool(options.num_threads)?;
        let plan = CorePlan {
            limits: options.limits(),
            kv_cache: options.kv_cache,
            prefix_cache: options.prefix_cache,
            digests: Digests::new(random_key()),
            #[cfg(feature = "test-util")]
            runs_ahead: options.runs_ahead,
            #[cfg(not(feature = "test-util"))]
            runs_ahead: None,
        };
        let lobby = Arc::new(Lobby::new(options.max_waiting, plan.limits.max_sequences));
        let subscriber = options.subscriber.clone();
        let board = Arc::new(Board::new(options.stuck_after));
        let (commands, inbox) = channel();
        let links = Links {
            commands: inbox,
            lobby: lobby.clone(),
            board: board.clone(),
            reader_timeout: options.reader_timeout,
        };
        let (load, digests) = (options.model_load()?, plan.digests.clone());
        let (ready, opened) = sync_channel(1);
        let (stay, told) = (Stay::default(), subscriber.clone());
        let stays = stay.watch();
        let core = move || pool.install(|| within(&told, || serve(load, plan, links, &ready)));
        spawn("pyrex-core", stay.clone().during(core))?;
        let opened = opened.recv().map_err(|_| Error::internal("a panic while the model was loading"))??;
        let (watched, told) = (board.clone(), subscriber.clone());
        spawn("pyrex-watchdog", move || within(&told, || watched.watch()))?;
        let Opened { spec, config, processor, load_ms } = opened;
        let intake = Intake {
            processor: processor.clone(),
            spec: spec.clone(),
            config,
            load_ms,
            digests,
            commands: commands.clone(),
            lobby: lobby.clone(),
        };
        let told = subscriber.clone();
        spawn("pyrex-intake", stay.during(move || within(&told, || intake.run())))?;
        let next_id = AtomicU64::new(0);
        let constraints = Constraints::new(processor.clone(), &spec.stop_ids);
        let shared = Shared {
            spec,
            config,
            processor,
            constraints,
            load_ms,
            lobby,
            board,
            commands,
            next_id,
            subscriber,
            stays,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Asks. Returns at once: the prompt is rendered and its images are decoded on another thread. Only a grammar is compiled
    /// on this one, in about a millisecond; the first one of an engine reads the vocabulary, which takes a second for 262,144 tokens.
    ///
    /// # Errors
    /// `InvalidRequest` if a parameter or the constraint is wrong, `Overloaded` if the queue is full, `Closed` if the engine
    /// has closed or drains, `Device` if a step hangs. Whatever is wrong with the prompt comes as the request's final event.
    pub fn submit(&self, request: Request) -> Result<RequestHandle> {
        let control = self.control(&request);
        let (handle, sink) = RequestHandle::new(control.clone(), self.shared.config.max_events, None);
        self.enqueue(request, sink, control)?;
        Ok(handle)
    }

    /// As [`submit`](Self::submit), and `notify` is called, on a thread of the engine, each time an event can be read. It must
    /// not block; one that panics is not called again, and neither does the handle see more events.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_notifying(&self, request: Request, notify: Notify) -> Result<RequestHandle> {
        let control = self.control(&request);
        let (handle, sink) = RequestHandle::new(control.clone(), self.shared.config.max_events, Some(notify));
        self.enqueue(request, sink, control)?;
        Ok(handle)
    }

    /// As [`submit`](Self::submit), but events are pushed into `sink`; it sees none if this returns an error.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to(&self, request: Request, sink: Box<dyn EventSink>) -> Result<RequestControl> {
        let control = self.control(&request);
        self.enqueue(request, sink, control.clone())?;
        Ok(control)
    }

    fn control(&self, request: &Request) -> RequestControl {
        RequestControl::new(request.deadline, self.shared.commands.clone())
    }

    fn enqueue(&self, request: Request, sink: Box<dyn EventSink>, control: RequestControl) -> Result<()> {
        let Shared { spec, config, constraints, lobby, board, commands, next_id, .. } = &*self.shared;
        request.validate(spec, config)?;
        if request.reasoning.is_some() && self.answer_format().reasoning().is_none() {
            return Err(Error::unsupported("reasoning: this model's has no marks"));
        }
        board.check_moving()?;
        let guest = lobby.admit(request.priority)?;
        let constraint = request.constraint.as_ref().map(|it| constraints.open(it)).transpose()?;
        let number = next_id.fetch_add(1, Ordering::Relaxed);
        let id = SequenceId { priority: Reverse(request.priority), request: number, index: 0 };
        let Request { input, sampling, num_completions, cache_salt, deadline, reasoning, .. } = request;
        let ticket = Ticket {
            id,
            sampling,
            num_completions,
            constraint,
            reasoning,
            cache_salt,
            seed: RandomState::new().build_hasher().finish(),
            outlet: Outlet::new(sink, guest),
            control,
            submitted: Instant::now(),
            span: within(&self.shared.subscriber, || tracing::info_span!("request", number)),
        };
        lobby.enter(Job { input, ticket });
        if deadline.is_some() {
            // The core may be asleep, and must know when to look again. If it is gone, so is the request.
            let _ = commands.send(Command::Wake);
        }
        Ok(())
    }

    /// A conversation that grows turn by turn.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Encodes a prompt on the calling thread, without running it.
    ///
    /// # Errors
    /// `InvalidRequest` if the prompt cannot be rendered or an image cannot be read.
    pub fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        self.shared.processor.encode(prompt)
    }

    /// A conversation as the model's template writes it, one placeholder for each image.
    ///
    /// # Errors
    /// `InvalidRequest` if the checkpoint has no template, or it refuses the conversation.
    pub fn render(&self, chat: &Chat) -> Result<String> {
        self.shared.processor.render(chat)
    }

    /// The ids of `text`, with nothing added before or after.
    ///
    /// # Errors
    /// `InvalidRequest` if the vocabulary has no way to write it.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        self.shared.processor.tokenize(text)
    }

    /// The text of `token_ids`, special tokens left out; ids that the vocabulary does not have say nothing.
    pub fn detokenize(&self, token_ids: &[u32]) -> String {
        let mut detokenizer = self.shared.processor.detokenizer();
        let mut text: String = token_ids.iter().map(|token_id| detokenizer.push(*token_id)).collect();
        text += &detokenizer.finish();
        text
    }

    /// What says what one token is: `None` for special tokens and for ids that the vocabulary does not have. It does not keep
    /// the engine open.
    pub fn token_reader(&self) -> Box<dyn Fn(u32) -> TokenBytes + Send> {
        let detokenizer = self.shared.processor.detokenizer();
        Box::new(move |token_id| detokenizer.token_bytes(token_id))
    }

    /// How the model's answers are read: what is text, what is reasoning, what calls a tool.
    pub fn answer_format(&self) -> Arc<dyn AnswerFormat> {
        self.shared.processor.answer_format()
    }

    /// The model.
    pub fn spec(&self) -> &ModelSpec {
        &self.shared.spec
    }

    /// The limits the engine runs under.
    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }

    /// How long loading took, in milliseconds.
    pub fn load_ms(&self) -> f64 {
        self.shared.load_ms
    }

    /// What tells when the engine has closed.
    pub fn watch(&self) -> EngineWatch {
        EngineWatch { lobby: self.shared.lobby.clone() }
    }

    /// How the engine stands.
    pub fn stats(&self) -> EngineStats {
        let lobby::Attendance { num_waiting, num_running } = self.shared.lobby.attendance();
        EngineStats { num_waiting, num_running, ..self.shared.board.stats() }
    }

    /// Whether the engine works: it answers a prompt twice, once token by token and once reading its own answer back, and
    /// both must agree. Waits in the queue before all others, up to `timeout`.
    ///
    /// # Errors
    /// `Internal` if the two disagree, `DeadlineExceeded` if it took too long, and whatever [`submit`](Self::submit) says.
    pub fn probe(&self, timeout: Duration) -> Result<()> {
        probe::probe(self, timeout)
    }

    /// Takes no more requests, waits up to `timeout` until those it has are answered, and closes. Returns how many were cut
    /// off; they end with a [`Closed`](crate::ErrorKind::Closed) failure.
    pub fn drain(&self, timeout: Duration) -> usize {
        let drained = || Error::closed("the engine is draining");
        self.shared.lobby.shut(drained());
        let num_left = self.shared.lobby.wait_empty(timeout);
        // If the core is gone there is nobody left to tell.
        let _ = self.shared.commands.send(Command::Close(drained()));
        num_left
    }
}

/// Tells when an engine has closed, without keeping it open.
pub struct EngineWatch {
    lobby: Arc<Lobby>,
}

impl EngineWatch {
    /// Waits until the engine has closed, and returns why.
    pub fn wait(&self) -> Error {
        self.lobby.wait_closed()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let dropped = || Error::closed("the engine was dropped");
        self.lobby.close(dropped());
        self.stays.end_before_the_process(&self.spec.device);
        // If the core is gone there is nobody left to tell.
        let _ = self.commands.send(Command::Close(dropped()));
    }
}

/// What the core thread needs to know beside the model.
struct CorePlan {
    limits: Limits,
    kv_cache: KvCacheSize,
    prefix_cache: bool,
    digests: Digests,
    runs_ahead: Option<bool>,
}

/// What the core thread tells the caller of `open`.
struct Opened {
    spec: ModelSpec,
    config: EngineConfig,
    processor: Arc<dyn Processor>,
    load_ms: f64,
}

/// The core thread: loads, says so, and steps until the engine closes.
fn serve(load: ModelLoad, plan: CorePlan, links: Links, ready: &SyncSender<Result<Opened>>) {
    let started = Instant::now();
    let board = links.board.clone();
    let built = || -> Result<(EngineCore, Opened)> {
        let LoadedModel { model, processor } = match load {
            ModelLoad::Take(model) => model,
            ModelLoad::Load(options) => models::load(&options)?,
        };
        let spec = model.spec().clone();
        let config = plan.limits.resolve(&spec)?;
        let (pool, groups) = memory::cache(&spec, &config, plan.kv_cache)?;
        let cache = BlockCache::new(&groups, BLOCK_SIZE, plan.digests, plan.prefix_cache);
        let EngineConfig { max_batch_tokens, max_sequences, .. } = config;
        let scheduler = Scheduler::new(StepLimits { max_batch_tokens, max_sequences }, cache);
        let limits = RunnerLimits {
            max_model_len: config.max_model_len,
            max_batch_tokens,
            max_sequences,
            runs_ahead: plan.runs_ahead,
        };
        let core = EngineCore::new(Runner::new(model, pool, &limits)?, scheduler, links);
        Ok((core, Opened { spec, config, processor, load_ms: elapsed_ms(started) }))
    };
    // A send fails only if the caller of `open` is gone, and then the commands are gone too.
    match built() {
        Ok((core, opened)) => {
            drop(ready.send(Ok(opened)));
            core.run();
        }
        Err(error) => drop(ready.send(Err(error))),
    }
    board.end();
}

/// A key that nobody outside of the engine knows.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    for bytes in key.chunks_exact_mut(8) {
        bytes.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    key
}

/// Runs `body` with `subscriber` told of its spans and events, if there is one.
fn within<T>(subscriber: &Option<Dispatch>, body: impl FnOnce() -> T) -> T {
    match subscriber {
        Some(subscriber) => tracing::dispatcher::with_default(subscriber, body),
        None => body(),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|e| Error::io(format_args!("cannot start the thread {name}: {e}")))
}

fn elapsed_ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A panic as one line.
fn panic_message(what: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    format!("a panic in {what}: {}", text.lines().next().unwrap_or_default())
}
