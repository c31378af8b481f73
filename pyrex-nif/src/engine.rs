//! Engines: opened on a thread of Rust, asked, closed.

use crate::atoms;
use crate::error::Told;
use crate::question::Question;
use crate::reception::Reception;
use crate::terms::{optional, required};
use pyrex_core::{
    ActivationDtype, DeviceChoice, Engine, EngineOptions, EngineStats, Error, KvCacheSize, Result, TablePlace,
};
use rustler::{
    Atom, Encoder, Env, LocalPid, Monitor, NifMap, NifResult, OwnedEnv, Resource, ResourceArc, Term,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// An engine. It closes when its owner dies, and when nobody refers to it any more.
pub(crate) struct EngineResource {
    shared: Arc<Shared>,
    #[cfg(feature = "test-util")]
    switches: std::sync::OnceLock<Arc<crate::testing::Switches>>,
}

struct Shared {
    state: Mutex<State>,
}

enum State {
    Opening,
    Open { engine: Engine, reception: Reception },
    Closed(Error),
}

#[rustler::resource_impl]
impl Resource for EngineResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.shared.close(Error::closed("the owner of the engine died"));
    }
}

impl Drop for EngineResource {
    fn drop(&mut self) {
        self.shared.close(Error::closed("the engine was dropped"));
    }
}

impl EngineResource {
    /// An engine that `open` opens on a thread of its own; `owner` is told what becomes of it.
    pub(crate) fn start(
        env: Env<'_>,
        (id, owner): (u64, LocalPid),
        open: impl FnOnce(Messenger) -> Result<Engine> + Send + 'static,
    ) -> Result<ResourceArc<Self>> {
        let shared = Arc::new(Shared { state: Mutex::new(State::Opening) });
        let engine = ResourceArc::new(Self {
            shared: shared.clone(),
            #[cfg(feature = "test-util")]
            switches: std::sync::OnceLock::new(),
        });
        if env.monitor(&engine, &owner).is_none() {
            return Err(Error::cancelled("the owner of the engine is dead"));
        }
        let weak = Arc::downgrade(&shared);
        let messenger = Messenger { owner, id };
        let body = move || settle(&weak, open(messenger), messenger);
        let spawned = thread::Builder::new().name("pyrex-open".to_owned()).spawn(body);
        spawned.map_err(|e| Error::io(format_args!("cannot start the thread pyrex-open: {e}")))?;
        Ok(engine)
    }

    /// What a test does to this engine.
    #[cfg(feature = "test-util")]
    pub(crate) fn set_switches(&self, switches: Arc<crate::testing::Switches>) {
        // There are none before.
        let _ = self.switches.set(switches);
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn switches(&self) -> Option<&crate::testing::Switches> {
        self.switches.get().map(|switches| &**switches)
    }

    /// Where requests are handed in, and how many events of each may wait.
    pub(crate) fn reception(&self) -> Result<(Reception, usize)> {
        self.with(|engine, reception| Ok((reception.clone(), engine.config().max_events)))
    }

    /// The engine, once it is open.
    pub(crate) fn engine(&self) -> Result<Engine> {
        self.with(|engine, _| Ok(engine.clone()))
    }

    fn with<T>(&self, see: impl FnOnce(&Engine, &Reception) -> Result<T>) -> Result<T> {
        match &*self.shared.lock() {
            State::Open { engine, reception } => see(engine, reception),
            State::Opening => Err(Error::closed("the engine is not open yet")),
            State::Closed(reason) => Err(reason.clone()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes without waiting: requests that are live fail.
    fn close(&self, reason: Error) {
        let mut state = self.lock();
        if matches!(*state, State::Closed(_)) {
            return;
        }
        let open = std::mem::replace(&mut *state, State::Closed(reason));
        drop(state);
        if let State::Open { engine, .. } = open {
            // Others may hold clones for the length of a call; live requests are not to wait for those.
            engine.drain(Duration::ZERO);
        }
    }
}

/// What becomes of an engine on its own thread: it is open or it is not, and when it goes down its owner hears of it.
fn settle(shared: &Weak<Shared>, opened: Result<Engine>, messenger: Messenger) {
    let opened = opened.and_then(|engine| Ok((Reception::new(engine.clone())?, engine)));
    let (reception, engine) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if let Some(shared) = shared.upgrade() {
                *shared.lock() = State::Closed(error.clone());
            }
            return messenger.send(|_| (atoms::error(), Told(error)));
        }
    };
    let watch = engine.watch();
    let Some(shared_now) = shared.upgrade() else { return };
    {
        let mut state = shared_now.lock();
        // It may have been closed while it was opened.
        if !matches!(*state, State::Opening) {
            return;
        }
        *state = State::Open { engine, reception };
    }
    drop(shared_now);
    messenger.send(|_| atoms::open());
    let reason = watch.wait();
    if let Some(shared) = shared.upgrade() {
        shared.close(reason.clone());
    }
    messenger.send(|_| (atoms::down(), Told(reason)));
}

/// Tells the owner of an engine.
#[derive(Clone, Copy)]
pub(crate) struct Messenger {
    owner: LocalPid,
    id: u64,
}

impl Messenger {
    /// Sends `{:pyrex_engine, id, what}`. Must be called on a thread of Rust.
    fn send<T: Encoder>(self, what: impl FnOnce(Env<'_>) -> T) {
        // An owner that is gone closes its engine.
        let _ = OwnedEnv::new()
            .send_and_clear(&self.owner, |env| (atoms::pyrex_engine(), self.id, what(env)).encode(env));
    }
}

#[rustler::nif]
fn engine_open<'a>(
    env: Env<'a>,
    options: Term<'a>,
    id: u64,
    owner: LocalPid,
) -> NifResult<Result<ResourceArc<EngineResource>, Told>> {
    let model: String = required(options, "model")?;
    let options = engine_options(EngineOptions::new(PathBuf::from(model)), options);
    Ok(match options {
        Err(Refused::Term(error)) => return Err(error),
        Err(Refused::Value(error)) => Err(error.into()),
        Ok(options) => EngineResource::start(env, (id, owner), move |messenger| open(options, messenger))
            .map_err(Told::from),
    })
}

/// Opens, and tells how far that is, a percent at a time.
fn open(options: EngineOptions, messenger: Messenger) -> Result<Engine> {
    let told = AtomicU64::new(0);
    let progress = move |done: u64, total: u64| {
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        if told.swap(percent, Ordering::Relaxed) != percent {
            messenger.send(|_| (atoms::progress(), done, total));
        }
        Ok(())
    };
    Engine::open(EngineOptions { progress: Some(Arc::new(progress)), ..options })
}

/// Why options are not taken: no term that Elixir's side would pass, or a value that is none.
pub(crate) enum Refused {
    Term(rustler::Error),
    Value(Error),
}

impl From<rustler::Error> for Refused {
    fn from(error: rustler::Error) -> Self {
        Self::Term(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Value(error)
    }
}

/// The options of the map `given` over `defaults`.
pub(crate) fn engine_options(
    defaults: EngineOptions,
    given: Term<'_>,
) -> std::result::Result<EngineOptions, Refused> {
    let millis = |name: &str| Ok::<_, rustler::Error>(optional(given, name)?.map(Duration::from_millis));
    let device = optional::<String>(given, "device")?.map(|device| device.parse::<DeviceChoice>());
    let dtype = |name| {
        Ok::<_, rustler::Error>(
            optional::<String>(given, name)?.map(|dtype| dtype.parse::<ActivationDtype>()),
        )
    };
    let tables = optional::<String>(given, "tables")?.map(|tables| tables.parse::<TablePlace>());
    Ok(EngineOptions {
        device: device.transpose()?.unwrap_or_default(),
        dtype: dtype("dtype")?.transpose()?,
        vision_dtype: dtype("vision_dtype")?.transpose()?.unwrap_or(defaults.vision_dtype),
        tables: tables.transpose()?.unwrap_or(defaults.tables),
        num_threads: optional(given, "num_threads")?,
        max_model_len: optional(given, "max_model_len")?,
        max_batch_tokens: optional(given, "max_batch_tokens")?,
        max_sequences: optional(given, "max_sequences")?,
        max_waiting: optional(given, "max_waiting")?.unwrap_or(defaults.max_waiting),
        max_events: optional(given, "max_events")?.unwrap_or(defaults.max_events),
        kv_cache: optional(given, "kv_cache")?.map_or(Ok(KvCacheSize::Auto), kv_cache)?,
        prefix_cache: required(given, "prefix_cache")?,
        reader_timeout: millis("reader_timeout_ms")?.unwrap_or(defaults.reader_timeout),
        stuck_after: millis("stuck_after_ms")?.unwrap_or(defaults.stuck_after),
        ..defaults
    })
}

fn kv_cache(term: Term<'_>) -> NifResult<KvCacheSize> {
    let (kind, size) = term.decode::<(Term<'_>, Term<'_>)>()?;
    match kind.atom_to_string()?.as_str() {
        "bytes" => size.decode().map(KvCacheSize::Bytes),
        "fraction" => size.decode().map(KvCacheSize::FreeFraction),
        _ => Err(crate::terms::bad_value("kv_cache")),
    }
}

#[rustler::nif]
fn engine_close(engine: ResourceArc<EngineResource>) -> Atom {
    engine.shared.close(Error::closed("the engine was closed"));
    atoms::ok()
}

#[rustler::nif]
fn engine_ask<'a>(
    engine: ResourceArc<EngineResource>,
    question: Term<'a>,
    id: u64,
    owner: LocalPid,
) -> NifResult<Term<'a>> {
    let env = question.get_env();
    let question: Question = question.decode()?;
    let open = engine.with(|engine, reception| Ok((engine.clone(), reception.clone())));
    let asked = open.and_then(|open| question.ask(open, id, owner));
    Ok(match asked {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => (atoms::error(), Told(error)).encode(env),
    })
}

#[rustler::nif]
fn engine_info(engine: ResourceArc<EngineResource>) -> Result<InfoMap, Told> {
    Ok(InfoMap::of(&engine.engine()?))
}

#[rustler::nif]
fn engine_stats(engine: ResourceArc<EngineResource>) -> Result<StatsMap, Told> {
    Ok(engine.engine()?.stats().into())
}

#[derive(NifMap)]
struct InfoMap {
    family: String,
    vocab_size: usize,
    max_model_len: usize,
    max_batch_tokens: usize,
    max_sequences: usize,
    max_waiting: usize,
    max_events: usize,
    load_ms: f64,
    image_token_id: Option<u32>,
    stop_token_ids: Vec<u32>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
}

impl InfoMap {
    fn of(engine: &Engine) -> Self {
        let (spec, config) = (engine.spec(), engine.config());
        Self {
            family: spec.family.to_owned(),
            vocab_size: spec.vocab_size,
            max_model_len: config.max_model_len,
            max_batch_tokens: config.max_batch_tokens,
            max_sequences: config.max_sequences,
            max_waiting: config.max_waiting,
            max_events: config.max_events,
            load_ms: engine.load_ms(),
            image_token_id: spec.image_token_id,
            stop_token_ids: spec.stop_ids.clone(),
            temperature: spec.sampling.temperature,
            top_k: spec.sampling.top_k,
            top_p: spec.sampling.top_p,
        }
    }
}

#[derive(NifMap)]
struct StatsMap {
    num_waiting: usize,
    num_running: usize,
    num_paused: usize,
    num_leases: usize,
    num_blocks: usize,
    num_free_blocks: usize,
    num_cached_blocks: usize,
    prefix_tokens: u64,
    prefix_hit_tokens: u64,
    image_lookups: u64,
    image_hits: u64,
    preemptions: u64,
    computed_tokens: u64,
    generated_tokens: u64,
    num_steps: u64,
    num_failed_steps: u64,
    tokens_per_second: f64,
    last_step_ms: f64,
    running_step_ms: Option<f64>,
}

impl From<EngineStats> for StatsMap {
    fn from(stats: EngineStats) -> Self {
        Self {
            num_waiting: stats.num_waiting,
            num_running: stats.num_running,
            num_paused: stats.num_paused,
            num_leases: stats.num_leases,
            num_blocks: stats.num_blocks,
            num_free_blocks: stats.num_free_blocks,
            num_cached_blocks: stats.num_cached_blocks,
            prefix_tokens: stats.prefix_tokens,
            prefix_hit_tokens: stats.prefix_hit_tokens,
            image_lookups: stats.image_lookups,
            image_hits: stats.image_hits,
            preemptions: stats.preemptions,
            computed_tokens: stats.computed_tokens,
            generated_tokens: stats.generated_tokens,
            num_steps: stats.num_steps,
            num_failed_steps: stats.num_failed_steps,
            tokens_per_second: stats.tokens_per_second,
            last_step_ms: stats.last_step_ms,
            running_step_ms: stats.running_step_ms,
        }
    }
}
