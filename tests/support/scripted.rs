//! Engines on the scripted model, for the tests that need no weights.

use crate::options;
use pyrex_core::models::scripted::{Gate, GateKeeper, Script};
use pyrex_core::{Engine, EngineOptions, Error, Event, ModelInput, Part, Prompt, Request, RequestHandle};
use std::thread;
use std::time::{Duration, Instant};

/// The engine of this script, on one thread.
pub fn open(script: Script) -> Engine {
    open_with(script, |_| {})
}

/// The engine of this script, with changed options.
pub fn open_with(script: Script, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions { num_threads: Some(1), ..options(ModelInput::Loaded(script.load())) };
    change(&mut options);
    Engine::open(options).expect("the scripted model opens")
}

/// The same script, held at every forward pass.
pub fn gated(script: Script) -> (Script, GateKeeper) {
    let (gate, keeper) = Gate::new();
    (Script { gate: Some(gate), ..script }, keeper)
}

/// A request for the answer to a text.
pub fn text(prompt: &str) -> Request {
    Request::new(Prompt::Text(prompt.to_owned()))
}

/// Submits what the engine must take.
pub fn submit(engine: &Engine, request: Request) -> RequestHandle {
    engine.submit(request).expect("the engine takes the request")
}

/// Reads to the end: all but the last event, and the last. There must be one final event, and it must be the last.
pub fn events(handle: RequestHandle) -> (Vec<Event>, Event) {
    let mut events: Vec<Event> = handle.collect();
    let last = events.pop().expect("a request has a final event");
    assert!(last.is_final(), "{last:?}");
    assert!(!events.iter().any(Event::is_final), "{events:?}");
    (events, last)
}

/// The error a request fails with.
pub fn failure(handle: RequestHandle) -> Error {
    match events(handle) {
        (_, Event::Failed(error)) => error,
        (_, last) => panic!("expected a failure, found {last:?}"),
    }
}

/// The whole answer to a text.
pub fn answer(engine: &Engine, prompt: &str) -> String {
    submit(engine, text(prompt)).wait().expect("the request finishes").text
}

/// An image file that the scripted model reads: five soft tokens of this value.
pub fn image(pixel: u8) -> Part {
    Part::Image([pixel].into())
}

/// Submits a request, and waits until the core will hear of it before its next step.
pub fn submit_prepared(engine: &Engine, request: Request) -> RequestHandle {
    let mut handle = submit(engine, request);
    assert!(matches!(handle.next(), Some(Event::Started { .. })));
    // The next one is prepared when the first is on its way; this one fails there.
    drop(failure(submit(engine, Request { priority: i8::MAX, ..text("\0") })));
    handle
}

/// Waits until something holds that another thread brings about.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
        thread::yield_now();
    }
}
