//! [`Engine`]: open a model once, submit requests from anywhere.
//!
//! A request passes through the files of this folder in this order: [`request`] → [`intake`] (its own thread) →
//! [`core`] (the thread that owns the device: plan, [`runner`], [`sampler`], [`output`]) → [`event`] → [`handle`].
//! The engine knows tensors and scheduling, but no wire format and no host language.

pub mod constraint;
mod core;
pub mod event;
#[cfg(feature = "llguidance")]
pub mod grammar;
#[cfg(not(feature = "llguidance"))]
#[path = "no_grammar.rs"]
pub mod grammar;
pub mod handle;
mod intake;
mod live;
mod memory;
pub mod options;
pub mod output;
pub mod request;
mod runner;
pub mod sampler;
pub mod sampling;

pub use constraint::{Constraint, Grammar, TokenConstraint, TokenMask};
pub use event::{Event, EventSink, FinishReason, Timings, Usage};
pub use handle::{Canceller, Completion, Next, RequestHandle};
pub use memory::kv_bytes_per_token;
pub use options::{ActivationDtype, DeviceChoice, EngineConfig, EngineOptions, ModelInput};
pub use request::{Input, Request};
pub use sampler::{Sampled, TokenLogprobs};
pub use sampling::SamplingParams;

use self::core::{Command, EngineCore};
use crate::error::{Error, Result};
use crate::models::{self, LoadedModel, ModelSpec, Processor};
use crate::prompt::{EncodedPrompt, Prompt};
use crate::schedule::{Scheduler, SequenceId};
use constraint::Constraints;
use event::Outlet;
use intake::{Intake, Job, Ticket};
use options::ModelLoad;
use runner::Runner;
use std::any::Any;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

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
    load_ms: f64,
    jobs: Sender<Job>,
    commands: Sender<Command>,
    board: Arc<Board>,
    next_id: AtomicU64,
}

/// How an engine stands after its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Prepared requests that wait for their turn.
    pub num_waiting: usize,
    /// Requests that hold cache blocks.
    pub num_running: usize,
    /// Cache blocks in all.
    pub num_blocks: usize,
    /// Cache blocks nobody holds.
    pub num_free_blocks: usize,
}

impl Engine {
    /// Loads the model and starts the engine's two threads. Returns when the model is ready.
    ///
    /// Weight files are mapped, not copied: they must not be rewritten or shortened while the engine lives.
    ///
    /// # Errors
    /// `InvalidRequest` if an option is wrong, `Device` or `Unsupported` if the device is not there, `OutOfMemory` if the
    /// cache does not fit, and whatever [`load`](models::load()) says about the checkpoint.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let pool = thread_pool(options.num_threads)?;
        let (max_model_len, max_batch_tokens) = (options.max_model_len, options.max_batch_tokens);
        let load = options.model_load()?;
        let board = Arc::new(Board::default());
        let (commands, inbox) = channel();
        let (ready, opened) = sync_channel(1);
        let core_board = board.clone();
        let limits = move |spec: &ModelSpec| EngineConfig::resolve(max_model_len, max_batch_tokens, spec);
        spawn("pyrex-core", move || pool.install(|| serve(load, &limits, inbox, core_board, &ready)))?;
        let opened = opened.recv().map_err(|_| Error::internal("a panic while the model was loading"))??;
        Self::start(opened, commands, board)
    }

    fn start(opened: Opened, commands: Sender<Command>, board: Arc<Board>) -> Result<Self> {
        let Opened { spec, config, processor, load_ms } = opened;
        let intake = Intake {
            processor: processor.clone(),
            spec: spec.clone(),
            constraints: Constraints::new(processor.clone(), &spec.stop_ids),
            config,
            load_ms,
            commands: commands.clone(),
            board: board.clone(),
        };
        let (jobs, inbox) = channel();
        spawn("pyrex-intake", move || intake.run(inbox))?;
        let next_id = AtomicU64::new(0);
        Ok(Self {
            shared: Arc::new(Shared { spec, config, processor, load_ms, jobs, commands, board, next_id }),
        })
    }

    /// Asks. Returns at once: the prompt is rendered and its images are decoded on another thread.
    ///
    /// # Errors
    /// `InvalidRequest` if a sampling parameter is wrong, `Closed` if the engine has closed. Whatever is wrong with the
    /// prompt comes as the request's final event.
    pub fn submit(&self, request: Request) -> Result<RequestHandle> {
        let canceller = Canceller::default();
        let (handle, sink) = RequestHandle::new(canceller.clone());
        self.enqueue(request, sink, canceller)?;
        Ok(handle)
    }

    /// As [`submit`](Self::submit), but events are pushed into `sink`; it sees none if this returns an error.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to(&self, request: Request, sink: Box<dyn EventSink>) -> Result<Canceller> {
        let canceller = Canceller::default();
        self.enqueue(request, sink, canceller.clone())?;
        Ok(canceller)
    }

    fn enqueue(&self, request: Request, sink: Box<dyn EventSink>, canceller: Canceller) -> Result<()> {
        self.shared.board.check_open()?;
        request.sampling.validate_for(self.shared.spec.vocab_size)?;
        let id = SequenceId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let seed = RandomState::new().build_hasher().finish();
        let (outlet, submitted) = (Outlet::new(sink), Instant::now());
        let Request { input, sampling, constraint } = request;
        let ticket = Ticket { id, sampling, constraint, seed, outlet, canceller, submitted };
        // If the preparing thread were gone, the outlet that comes back would tell the sink when it is dropped.
        drop(self.shared.jobs.send(Job { input, ticket }));
        Ok(())
    }

    /// Encodes a prompt on the calling thread, without running it.
    ///
    /// # Errors
    /// `InvalidRequest` if the prompt cannot be rendered or an image cannot be read.
    pub fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        self.shared.processor.encode(prompt)
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

    /// How the engine stands.
    pub fn stats(&self) -> EngineStats {
        self.shared.board.stats()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.board.close(Error::closed("the engine was dropped"));
        // If the core is gone there is nobody left to tell.
        drop(self.commands.send(Command::Close));
    }
}

/// What the threads of an engine tell each other without a message: whether it has closed, and how it stands.
#[derive(Default)]
struct Board {
    closed: OnceLock<Error>,
    stats: Mutex<EngineStats>,
}

impl Board {
    /// Closes the engine, unless it has closed for another reason before.
    fn close(&self, reason: Error) {
        self.closed.get_or_init(|| reason);
    }

    fn check_open(&self) -> Result<()> {
        self.closed.get().cloned().map_or(Ok(()), Err)
    }

    fn publish(&self, stats: EngineStats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn stats(&self) -> EngineStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the core thread tells the caller of `open`.
struct Opened {
    spec: ModelSpec,
    config: EngineConfig,
    processor: Arc<dyn Processor>,
    load_ms: f64,
}

/// The core thread: loads, says so, and steps until the engine closes.
fn serve(
    load: ModelLoad,
    limits: &dyn Fn(&ModelSpec) -> Result<EngineConfig>,
    commands: Receiver<Command>,
    board: Arc<Board>,
    ready: &SyncSender<Result<Opened>>,
) {
    let started = Instant::now();
    let built = || -> Result<(EngineCore, Opened)> {
        let LoadedModel { model, processor } = match load {
            ModelLoad::Take(model) => model,
            ModelLoad::Load(options) => models::load(&options)?,
        };
        let spec = model.spec().clone();
        let config = limits(&spec)?;
        let (pool, blocks) = memory::cache(&spec, &config)?;
        let scheduler = Scheduler::new(config.max_batch_tokens, blocks);
        let core = EngineCore::new(Runner::new(model, pool), scheduler, commands, board);
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
}

fn thread_pool(num_threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let num_threads = num_threads.unwrap_or_else(cores);
    if num_threads == 0 {
        return Err(Error::invalid_request("num_threads is 0, expected at least 1"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(num_threads)
        .thread_name(|idx| format!("pyrex-{idx}"))
        .build()
        .map_err(|e| Error::io(format_args!("cannot start {num_threads} threads: {e}")))
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
