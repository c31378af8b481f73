//! Engines on the scripted model, for the tests of the Elixir package: as slow as a test wants, and it may break them.

use crate::atoms;
use crate::engine::{EngineResource, Refused, engine_options};
use crate::error::Told;
use crate::terms::required;
use pyrex_core::{Engine, EngineOptions, Gate, GateKeeper, ModelInput, Permit, Script};
use rustler::{Atom, Binary, Env, LocalPid, NifResult, ResourceArc, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

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
    let script = Script { answers, max_position_embeddings, gate: Some(gate) };
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
