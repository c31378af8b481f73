//! Engines on the scripted model behind C handles, and what Rust says more shortly than C.

#![allow(dead_code, reason = "each of the binaries uses its own half")]

use pyrex::engine::pyrex_engine_t;
use pyrex::event::pyrex_event_t;
use pyrex::prompt::{pyrex_prompt_free, pyrex_prompt_from_text};
use pyrex::request::{PYREX_FOREVER, pyrex_engine_submit, pyrex_request_next, pyrex_request_t};
use pyrex::sampling::pyrex_request_options_t;
use pyrex::status::{pyrex_last_error_message, pyrex_status_t};
use pyrex_core::models::Processor;
use pyrex_core::models::scripted::{Gate, GateKeeper, Script};
use pyrex_core::prompt::detokenizer::Detokenizer;
use pyrex_core::{Chat, EncodedPrompt, Engine, EngineOptions, LoadedModel, ModelInput, Prompt, Result};
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{mem, ptr, thread};

/// An engine of this script, on one thread.
pub fn engine(script: Script) -> *mut pyrex_engine_t {
    engine_of(script, |_| {})
}

/// As [`engine`], with changed options.
pub fn engine_of(script: Script, change: impl FnOnce(&mut EngineOptions)) -> *mut pyrex_engine_t {
    Box::into_raw(Box::new(pyrex_engine_t::new(open(script.load(), change))))
}

/// An engine of this model.
pub fn engine_with(model: LoadedModel) -> *mut pyrex_engine_t {
    Box::into_raw(Box::new(pyrex_engine_t::new(open(model, |_| {}))))
}

/// The same in Rust.
pub fn open(model: LoadedModel, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions { num_threads: Some(1), ..EngineOptions::new(ModelInput::Loaded(model)) };
    change(&mut options);
    Engine::open(options).unwrap()
}

/// The same script, held at every forward pass.
pub fn gated(script: Script) -> (Script, GateKeeper) {
    let (gate, keeper) = Gate::new();
    (Script { gate: Some(gate), ..script }, keeper)
}

/// What a C program begins with.
pub fn options() -> pyrex_request_options_t {
    // SAFETY: numbers and pointers may be zero.
    pyrex_request_options_t { struct_size: size_of::<pyrex_request_options_t>(), ..unsafe { mem::zeroed() } }
}

/// Submits a text.
pub fn try_submit(
    engine: *const pyrex_engine_t,
    text: &str,
    options: &pyrex_request_options_t,
) -> std::result::Result<*mut pyrex_request_t, pyrex_status_t> {
    let (mut prompt, mut request) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `engine` is a handle of the test, the pointers are to what stands above.
    let status = unsafe {
        pyrex_prompt_from_text(text.as_ptr().cast(), text.len(), &mut prompt);
        let status = pyrex_engine_submit(engine, prompt, options, &mut request);
        pyrex_prompt_free(prompt);
        status
    };
    if status == pyrex_status_t::PYREX_OK { Ok(request) } else { Err(status) }
}

/// Submits a text that the engine must take.
pub fn submit(
    engine: *const pyrex_engine_t,
    text: &str,
    options: &pyrex_request_options_t,
) -> *mut pyrex_request_t {
    try_submit(engine, text, options).unwrap()
}

/// An event that is there until the next one is read.
pub struct Event(*const pyrex_event_t);

impl std::ops::Deref for Event {
    type Target = pyrex_event_t;

    fn deref(&self) -> &pyrex_event_t {
        // SAFETY: tests look at an event before they read the next.
        unsafe { &*self.0 }
    }
}

impl Event {
    /// Its text, by its NUL and by its length.
    pub fn text(&self) -> &str {
        // SAFETY: text of an event ends in a NUL.
        let text = unsafe { CStr::from_ptr(self.text) }.to_str().unwrap();
        assert_eq!(text.len(), self.text_len);
        text
    }
}

/// The next event, however long it takes.
pub fn next(request: *mut pyrex_request_t) -> Event {
    let mut event = ptr::null();
    // SAFETY: a handle of the test, and a pointer to what stands above.
    assert_eq!(unsafe { pyrex_request_next(request, PYREX_FOREVER, &mut event) }, pyrex_status_t::PYREX_OK);
    Event(event)
}

/// Reads to the end.
pub fn last_event(request: *mut pyrex_request_t) -> Event {
    loop {
        let event = next(request);
        if event.kind >= pyrex::event::PYREX_EVENT_FINISHED {
            return event;
        }
    }
}

/// What the last failure on this thread has to say.
pub fn last_message() -> String {
    // SAFETY: a C string that lives until the next failure on this thread.
    unsafe { CStr::from_ptr(pyrex_last_error_message()) }.to_str().unwrap().to_owned()
}

/// Waits until something holds that another thread brings about.
pub fn wait_until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute");
        thread::yield_now();
    }
}

/// A processor that panics on the text "panic".
pub struct Panicking(Arc<dyn Processor>);

impl Panicking {
    /// The scripted model with this processor.
    pub fn load() -> LoadedModel {
        let LoadedModel { model, processor } = Script::of(&[]).load();
        LoadedModel { model, processor: Arc::new(Self(processor)) }
    }
}

impl Processor for Panicking {
    fn encode(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        self.0.encode(prompt)
    }

    fn render(&self, chat: &Chat) -> Result<String> {
        self.0.render(chat)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        assert!(text != "panic", "as the test wants it");
        self.0.tokenize(text)
    }

    fn detokenizer(&self) -> Detokenizer {
        self.0.detokenizer()
    }
}
