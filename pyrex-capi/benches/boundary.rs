//! What C pays for being C: `cargo bench -p pyrex-capi --bench boundary`.
//!
//! First reading events that are there, of the scripted model, through the handle of Rust and through
//! `pyrex_request_try_next`: the difference is the boundary. Then the first token of the bundled model about a picture, from
//! both sides in turn: the median of the ratios of pairs, for other work on the machine mostly slows both of a pair.

#[path = "../tests/scripted/mod.rs"]
mod scripted;

use pyrex::engine::{pyrex_engine_free, pyrex_engine_t};
use pyrex::event::PYREX_EVENT_TOKEN;
use pyrex::prompt::{
    pyrex_prompt_add_image, pyrex_prompt_add_text, pyrex_prompt_add_turn, pyrex_prompt_free, pyrex_prompt_new,
};
use pyrex::request::{pyrex_engine_submit, pyrex_request_free, pyrex_request_t, pyrex_request_try_next};
use pyrex::status::pyrex_status_t::{PYREX_ENDED, PYREX_OK};
use pyrex_core::models::scripted::Script;
use pyrex_core::{
    Chat, Engine, EngineOptions, Event, Message, Next, Part, Prompt, Request, RequestHandle, Result,
};
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

const NUM_EVENTS: usize = 10_000;
const NUM_ROUNDS: usize = 21;
const NUM_PAIRS: usize = 100;

fn main() -> Result<()> {
    let (rust, c): (Vec<f64>, Vec<f64>) = (0..NUM_ROUNDS).map(|_| (rust_event_ns(), c_event_ns())).unzip();
    let (rust, c) = (median(rust), median(c));
    println!("reading an event in Rust, ns  {rust:8.1}");
    println!("reading an event in C, ns     {c:8.1}");
    println!("  the boundary, ns            {:8.1}", c - rust);
    let engine = Engine::open(EngineOptions {
        num_threads: Some(2),
        prefix_cache: false,
        ..EngineOptions::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shapes"))
    })?;
    let handle = Box::into_raw(Box::new(pyrex_engine_t::new(engine.clone())));
    let pairs: Vec<(f64, f64)> = (0..NUM_PAIRS)
        .map(|idx| match idx % 2 {
            0 => (rust_first_token_ms(&engine), c_first_token_ms(handle)),
            _ => {
                let c = c_first_token_ms(handle);
                (rust_first_token_ms(&engine), c)
            }
        })
        .collect();
    // SAFETY: used no more.
    unsafe { pyrex_engine_free(handle) };
    println!("first token in Rust, ms       {:8.3}", median(pairs.iter().map(|pair| pair.0).collect()));
    println!("first token in C, ms          {:8.3}", median(pairs.iter().map(|pair| pair.1).collect()));
    let more = median(pairs.iter().map(|pair| pair.1 / pair.0).collect()) - 1.0;
    println!("  C more than Rust, %         {:8.2}", more * 100.0);
    Ok(())
}

/// A script whose answer is long, and room for all its events.
fn long_answer() -> Engine {
    let answer = "a".repeat(NUM_EVENTS);
    let script = Script { max_position_embeddings: NUM_EVENTS + 100, ..Script::of(&[("ask", &answer)]) };
    scripted::open(script.load(), |options| {
        (options.max_events, options.max_model_len) = (2 * NUM_EVENTS, Some(NUM_EVENTS + 100));
    })
}

/// Waits until all events of the one request are there to be read.
fn wait_for_all(engine: &Engine) {
    scripted::wait_until(|| {
        let stats = engine.stats();
        stats.generated_tokens > 0 && stats.num_running + stats.num_waiting == 0
    });
    std::thread::sleep(Duration::from_millis(20));
}

fn rust_event_ns() -> f64 {
    let engine = long_answer();
    let mut handle =
        engine.submit(Request::new(Prompt::Text("ask".to_owned()))).expect("the engine takes it");
    wait_for_all(&engine);
    let started = Instant::now();
    let mut num_events = 0;
    while let Next::Event(event) = handle.try_next() {
        black_box(event);
        num_events += 1;
    }
    started.elapsed().as_nanos() as f64 / f64::from(num_events)
}

fn c_event_ns() -> f64 {
    let engine = long_answer();
    let handle = Box::into_raw(Box::new(pyrex_engine_t::new(engine.clone())));
    let request = scripted::submit(handle, "ask", &scripted::options());
    wait_for_all(&engine);
    let started = Instant::now();
    let (mut num_events, mut event) = (0, ptr::null());
    // SAFETY: handles and pointers of this function.
    while unsafe { pyrex_request_try_next(request, &mut event) } != PYREX_ENDED {
        black_box(event);
        num_events += 1;
    }
    let per_event = started.elapsed().as_nanos() as f64 / f64::from(num_events);
    // SAFETY: as above.
    unsafe {
        pyrex_request_free(request);
        pyrex_engine_free(handle);
    }
    per_event
}

const PICTURE: &[u8] = include_bytes!("../../models/shapes/examples/red_circle.png");
const QUESTION: &str = "Describe this image.";

fn rust_first_token_ms(engine: &Engine) -> f64 {
    let started = Instant::now();
    let parts = vec![Part::Image(PICTURE.into()), Part::Text(QUESTION.to_owned())];
    let chat = Chat::new(vec![Message::parts("user", parts)]);
    let mut handle: RequestHandle = engine.submit(Request::new(chat)).expect("the engine takes it");
    while !matches!(handle.next(), Some(Event::Token { .. })) {}
    let elapsed = started.elapsed();
    handle.for_each(drop);
    elapsed.as_secs_f64() * 1e3
}

fn c_first_token_ms(engine: *const pyrex_engine_t) -> f64 {
    let started = Instant::now();
    let (mut prompt, mut request): (_, *mut pyrex_request_t) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: handles and pointers of this function.
    unsafe {
        pyrex_prompt_new(&mut prompt);
        pyrex_prompt_add_turn(prompt, c"user".as_ptr());
        pyrex_prompt_add_image(prompt, PICTURE.as_ptr(), PICTURE.len());
        pyrex_prompt_add_text(prompt, QUESTION.as_ptr().cast(), QUESTION.len());
        assert_eq!(pyrex_engine_submit(engine, prompt, ptr::null(), &mut request), PYREX_OK);
        while scripted::next(request).kind != PYREX_EVENT_TOKEN {}
        let elapsed = started.elapsed();
        scripted::last_event(request);
        pyrex_request_free(request);
        pyrex_prompt_free(prompt);
        elapsed.as_secs_f64() * 1e3
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
