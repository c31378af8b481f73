//! Engines on the scripted model, for the tests of the Elixir package: as slow as a test wants, and it may break them.

use crate::atoms;
use crate::engine::{EngineResource, Refused, engine_options};
use crate::error::Told;
use crate::mailbox::{Mailbox, Slot};
use crate::terms::required;
use pyrex_core::{
    Engine, EngineOptions, Event, EventSink, FinishReason, Gate, GateKeeper, ModelInput, Permit, Script,
    Timings, Usage,
};
use rustler::{Atom, Binary, Env, LocalPid, NifResult, OwnedEnv, ResourceArc, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a test does to an engine of its own.
#[derive(Default)]
pub(crate) struct Switches {
    panics: AtomicBool,
}

/// `script`: `answers`, a list of pairs of binaries; `max_position_embeddings`; `delay_us`, slept in every forward pass.
#[rustler::nif]
fn test_open<'a>(
    env: Env<'a>,
    script: Term<'a>,
    options: Term<'a>,
    id: u64,
    owner: LocalPid,
) -> NifResult<Result<ResourceArc<EngineResource>, Told>> {
    let answers: Vec<(Binary<'_>, Binary<'_>)> = required(script, "answers")?;
    let ids = |text: Binary<'_>| text.as_slice().iter().map(|byte| u32::from(*byte)).collect();
    let delay = Duration::from_micros(required(script, "delay_us")?);
    let max_position_embeddings = required(script, "max_position_embeddings")?;
    let answers = answers.into_iter().map(|(prompt, answer)| (ids(prompt), ids(answer))).collect();
    let (gate, keeper) = Gate::new();
    let script = Script { answers, max_position_embeddings, gate: Some(gate), marks: false };
    let defaults =
        EngineOptions { num_threads: Some(1), ..EngineOptions::new(ModelInput::Loaded(script.load())) };
    let options = match engine_options(defaults, options) {
        Err(Refused::Term(error)) => return Err(error),
        Err(Refused::Value(error)) => return Ok(Err(error.into())),
        Ok(options) => options,
    };
    let switches = Arc::new(Switches::default());
    let kept = switches.clone();
    thread::spawn(move || keep(&keeper, delay, &kept));
    let engine = EngineResource::start(env, (id, owner), move |_| Engine::open(options));
    Ok(engine.inspect(|engine| engine.set_switches(switches)).map_err(Told::from))
}

/// Lets forward passes through, each after its time.
fn keep(keeper: &GateKeeper, delay: Duration, switches: &Switches) {
    while keeper.wait().is_some() {
        thread::sleep(delay);
        let panics = switches.panics.load(Ordering::Acquire);
        keeper.let_pass(if panics { Permit::Panic } else { Permit::Answer });
    }
}

/// The next step of this engine panics.
#[rustler::nif]
fn test_panic(engine: ResourceArc<EngineResource>) -> Atom {
    if let Some(switches) = engine.switches() {
        switches.panics.store(true, Ordering::Release);
    }
    atoms::ok()
}

/// Says tokens that no model chose, as an engine without a model would: a thread that goes round all streams and gives each
/// that has room one token. A token's text is the time at which it was said, in nanoseconds of the system's clock.
pub(crate) struct Flooder {
    streams: Sender<Stream>,
}

struct Stream {
    sink: Box<dyn EventSink>,
    mailbox: Option<Arc<Mailbox>>,
    num_tokens: usize,
    num_left: usize,
    every: Duration,
    next: Instant,
}

impl Flooder {
    pub(crate) fn start() -> Self {
        let (streams, arrivals) = channel();
        thread::spawn(move || flood(&arrivals));
        Self { streams }
    }

    pub(crate) fn flood(&self, mailbox: Arc<Mailbox>, num_tokens: usize, every_us: u64) {
        self.say(Box::new(Slot(mailbox.clone())), Some(mailbox), num_tokens, every_us);
    }

    fn say(&self, sink: Box<dyn EventSink>, mailbox: Option<Arc<Mailbox>>, num_tokens: usize, every_us: u64) {
        let every = Duration::from_micros(every_us);
        let stream = Stream { sink, mailbox, num_tokens, num_left: num_tokens, every, next: Instant::now() };
        // The thread is there as long as this is.
        let _ = self.streams.send(stream);
    }
}

/// What the BEAM is measured against: threads that block until a token comes, as readers of a handle in Rust do. Sends
/// `{:pyrex_reply, id, nanoseconds}`, how late each of the tokens was.
#[rustler::nif]
fn test_lateness(num_streams: usize, num_tokens: usize, every_us: u64, id: u64, owner: LocalPid) -> Atom {
    thread::spawn(move || {
        let flooder = Flooder::start();
        let readers: Vec<_> = (0..num_streams)
            .map(|_| {
                let (sender, inbox) = channel();
                flooder.say(Box::new(Line(sender)), None, num_tokens, every_us);
                thread::spawn(move || {
                    inbox.into_iter().filter_map(|event| late_ns(&event)).collect::<Vec<u64>>()
                })
            })
            .collect();
        let late: Vec<u64> =
            readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect();
        let _ = OwnedEnv::new().send_and_clear(&owner, |_| (atoms::pyrex_reply(), id, late));
    });
    atoms::ok()
}

/// The way to a thread.
struct Line(Sender<Event>);

impl EventSink for Line {
    fn send(&mut self, event: Event) {
        // A reader that is gone is a test's failure.
        let _ = self.0.send(event);
    }

    fn has_room(&self) -> bool {
        true
    }
}

fn late_ns(event: &Event) -> Option<u64> {
    let Event::Token { text, .. } = event else { return None };
    let said: u128 = text.parse().ok()?;
    u64::try_from(now_ns().saturating_sub(said)).ok()
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn flood(arrivals: &Receiver<Stream>) {
    let mut streams: Vec<Stream> = Vec::new();
    loop {
        if streams.is_empty() {
            match arrivals.recv() {
                Ok(stream) => streams.push(stream),
                Err(_) => return,
            }
        }
        loop {
            match arrivals.try_recv() {
                Ok(stream) => streams.push(stream),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let said = streams.iter_mut().filter_map(Stream::say).count();
        streams.retain(|stream| !stream.ended());
        if said == 0 {
            thread::sleep(Duration::from_micros(20));
        }
    }
}

impl Stream {
    /// Says one more token, or that there are no more. `None` if there is no room, or it is not time.
    fn say(&mut self) -> Option<()> {
        let now = Instant::now();
        if now < self.next || !self.sink.has_room() {
            return None;
        }
        self.next = (self.next + self.every).max(now);
        if self.num_left == 0 {
            let usage = Usage { completion_tokens: self.num_tokens, ..Usage::default() };
            let (reason, timings) = (FinishReason::Length, Timings::default());
            self.sink.send(Event::Finished { reason, usage, timings });
            self.num_left = usize::MAX;
            return Some(());
        }
        self.num_left -= 1;
        let text = now_ns().to_string();
        self.sink.send(Event::Token { index: 0, token_id: 97, text, logprobs: None, finish: None });
        Some(())
    }

    fn ended(&self) -> bool {
        self.num_left == usize::MAX || self.mailbox.as_ref().is_some_and(|mailbox| mailbox.is_cancelled())
    }
}
