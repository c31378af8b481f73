//! What only Rust can set up: a model that stops where a test wants it to, a processor that panics, a count of allocations.
//! C programs that use the library as its users do are in `tests/c`.

mod scripted;

use pyrex::engine::{pyrex_engine_drain, pyrex_engine_free, pyrex_engine_info, pyrex_engine_t};
use pyrex::event::{
    PYREX_EVENT_FAILED, PYREX_EVENT_FINISHED, PYREX_EVENT_STARTED, PYREX_EVENT_TOKEN, PYREX_FINISH_NONE,
    PYREX_FINISH_STOP,
};
use pyrex::request::{
    PYREX_FOREVER, pyrex_request_cancel, pyrex_request_free, pyrex_request_next, pyrex_request_try_next,
};
use pyrex::status::pyrex_status_t::*;
use pyrex::text::pyrex_engine_tokenize;
use pyrex_core::models::scripted::{Permit, Script};
use scripted::{Panicking, engine, engine_of, gated, last_event, last_message, next, options, submit};
use std::{mem, ptr, thread};

fn free(engine: *mut pyrex_engine_t) {
    // SAFETY: from `engine`, and used no more.
    unsafe { pyrex_engine_free(engine) }
}

/// An engine answers "ask" to its end.
fn check_answers(engine: *const pyrex_engine_t) {
    let request = submit(engine, "ask", &options());
    assert_eq!(last_event(request).kind, PYREX_EVENT_FINISHED);
    // SAFETY: a handle of this function, used no more.
    unsafe { pyrex_request_free(request) }
}

#[test]
fn events_say_in_c_what_they_say_in_rust() {
    let engine = engine(Script::of(&[("ask", "ok")]));
    let request = submit(
        engine,
        "ask",
        &pyrex::sampling::pyrex_request_options_t { logprobs: 1, top_logprobs: 2, ..options() },
    );
    let started = next(request);
    // SAFETY: the ids live until the next event.
    let prompt = unsafe { std::slice::from_raw_parts(started.prompt_token_ids, started.num_prompt_tokens) };
    assert_eq!(
        (started.kind, prompt, started.num_image_tokens),
        (PYREX_EVENT_STARTED, &b"ask".map(u32::from)[..], 0)
    );
    for (token_id, text, finish_reason) in [
        (u32::from(b'o'), "o", PYREX_FINISH_NONE),
        (u32::from(b'k'), "k", PYREX_FINISH_NONE),
        (256, "", PYREX_FINISH_STOP),
    ] {
        let token = next(request);
        assert_eq!(
            (token.kind, token.token_id, token.text(), token.finish_reason),
            (PYREX_EVENT_TOKEN, token_id, text, finish_reason)
        );
        // SAFETY: as above.
        let top = unsafe { std::slice::from_raw_parts(token.top_logprobs, token.num_top_logprobs) };
        assert_eq!(
            (top[0].token_id, top[0].logprob),
            (token_id, token.logprob),
            "the likeliest is what was chosen"
        );
    }
    let finished = next(request);
    let usage = (finished.num_prompt_tokens, finished.num_completion_tokens, finished.text());
    assert_eq!(
        (finished.kind, finished.finish_reason, usage),
        (PYREX_EVENT_FINISHED, PYREX_FINISH_STOP, (3, 3, ""))
    );
    assert!(finished.ttft_ms > 0.0 && finished.prompt_token_ids.is_null() && finished.top_logprobs.is_null());
    let mut event = ptr::null();
    // SAFETY: handles and pointers of this test.
    unsafe {
        assert_eq!(pyrex_request_next(request, PYREX_FOREVER, &mut event), PYREX_ENDED);
        assert_eq!(pyrex_request_try_next(request, &mut event), PYREX_ENDED);
        pyrex_request_free(request);
    }
    free(engine);
}

#[test]
fn a_request_is_cancelled_wherever_it_is() {
    let (script, keeper) = gated(Script::of(&[("first", "abcdef"), ("second", "abcdef")]));
    let engine = engine_of(script, |options| options.max_sequences = Some(1));
    let (first, second) = (submit(engine, "first", &options()), submit(engine, "second", &options()));
    // SAFETY: handles of this test.
    let cancel = |request| unsafe { assert_eq!(pyrex_request_cancel(request), PYREX_OK) };
    // In the middle of its prompt.
    keeper.wait().unwrap();
    cancel(first);
    cancel(first);
    // Behind another.
    cancel(second);
    keeper.let_pass(Permit::Answer);
    for request in [first, second] {
        let last = last_event(request);
        assert_eq!((last.kind, last.status), (PYREX_EVENT_FAILED, PYREX_CANCELLED as i32));
        cancel(request);
        // SAFETY: as above.
        unsafe { pyrex_request_free(request) };
    }
    // In the middle of its answer.
    let third = submit(engine, "first", &options());
    assert_eq!(next(third).kind, PYREX_EVENT_STARTED);
    for text in ["a", "b"] {
        keeper.wait().unwrap();
        keeper.let_pass(Permit::Answer);
        assert_eq!(next(third).text(), text);
    }
    keeper.wait().unwrap();
    cancel(third);
    keeper.let_pass(Permit::Answer);
    assert_eq!(last_event(third).status, PYREX_CANCELLED as i32);
    // SAFETY: as above.
    unsafe { pyrex_request_free(third) };
    free(engine);
}

#[test]
fn one_thread_reads_and_another_is_told_that_it_does() {
    let (script, keeper) = gated(Script::of(&[("ask", "yes")]));
    let engine = engine_of(script, |_| {});
    let request = submit(engine, "ask", &options());
    assert_eq!(next(request).kind, PYREX_EVENT_STARTED);
    keeper.wait().unwrap();
    let shared = request as usize;
    let reader = thread::spawn(move || next(shared as *mut _).text().to_owned());
    let mut event = ptr::null();
    // SAFETY: handles and pointers of this test.
    let mut try_next = || unsafe { pyrex_request_try_next(request, &mut event) };
    while try_next() != PYREX_BUSY {
        thread::yield_now();
    }
    assert_eq!(last_message(), "another thread reads this request");
    keeper.let_pass(Permit::Answer);
    assert_eq!(reader.join().unwrap(), "y");
    drop(keeper);
    // SAFETY: as above.
    unsafe { pyrex_request_free(request) };
    free(engine);
}

#[test]
fn a_panic_in_a_call_closes_the_engine_that_was_called_and_no_other() {
    let (broken, sound) = (scripted::engine_with(Panicking::load()), engine(Script::of(&[("ask", "yes")])));
    let mut num_tokens = 0;
    // SAFETY: handles and pointers of this test.
    let mut tokenize = |engine, text: &std::ffi::CStr| unsafe {
        let none = ptr::null_mut();
        pyrex_engine_tokenize(
            engine,
            text.as_ptr(),
            pyrex::abi::PYREX_NUL_TERMINATED,
            none,
            0,
            &mut num_tokens,
        )
    };
    assert_eq!(tokenize(broken, c"panic"), PYREX_PANIC);
    assert_eq!(last_message(), "a panic in Pyrex: as the test wants it");
    assert_eq!(tokenize(sound, c"panic"), PYREX_OK);
    assert_eq!(
        scripted::try_submit(broken, "ask", &options()).map_err(|status| status as i32),
        Err(PYREX_CLOSED as i32)
    );
    check_answers(sound);
    free(broken);
    free(sound);
}

#[test]
fn a_panic_in_a_step_ends_its_requests_and_closes_their_engine() {
    let (script, keeper) = gated(Script::of(&[("ask", "yes")]));
    let (broken, sound) = (engine_of(script, |_| {}), engine(Script::of(&[("ask", "yes")])));
    let request = submit(broken, "ask", &options());
    keeper.wait().unwrap();
    keeper.let_pass(Permit::Panic);
    let last = last_event(request);
    assert_eq!((last.kind, last.status), (PYREX_EVENT_FAILED, PYREX_INTERNAL as i32), "{}", last.text());
    // SAFETY: handles of this test.
    unsafe { pyrex_request_free(request) };
    scripted::wait_until(|| {
        scripted::try_submit(broken, "ask", &options()).is_err_and(|status| status == PYREX_CLOSED)
    });
    check_answers(sound);
    free(broken);
    free(sound);
}

#[test]
fn a_drained_engine_says_how_many_it_cut_off() {
    let (script, keeper) = gated(Script::of(&[("ask", "yes")]));
    let engine = engine_of(script, |_| {});
    let request = submit(engine, "ask", &options());
    keeper.wait().unwrap();
    let mut num_cut_off = 7;
    // SAFETY: handles and pointers of this test.
    assert_eq!(unsafe { pyrex_engine_drain(engine, 0, &mut num_cut_off) }, PYREX_OK);
    assert_eq!(num_cut_off, 1);
    keeper.let_pass(Permit::Answer);
    assert_eq!(last_event(request).status, PYREX_CLOSED as i32);
    // SAFETY: as above.
    unsafe { pyrex_request_free(request) };
    free(engine);
}

#[test]
fn an_older_and_a_newer_program_pass_structs_of_other_sizes() {
    let engine = engine(Script::of(&[]));
    // SAFETY: numbers and pointers may be zero.
    let mut info: pyrex::engine::pyrex_engine_info_t = unsafe { mem::zeroed() };
    // One that knows the family and the vocabulary alone.
    info.struct_size = 24;
    info.max_model_len = 12345;
    // SAFETY: handles and pointers of this test.
    assert_eq!(unsafe { pyrex_engine_info(engine, &mut info) }, PYREX_OK);
    assert_eq!(
        (info.struct_size, info.vocab_size, info.max_model_len),
        (24, 258, 12345),
        "what it does not know is left alone"
    );
    for struct_size in [0, 7, 12, 4104, usize::MAX] {
        info.struct_size = struct_size;
        // SAFETY: as above.
        assert_eq!(unsafe { pyrex_engine_info(engine, &mut info) }, PYREX_INVALID_REQUEST);
        let size = size_of::<pyrex::engine::pyrex_engine_info_t>();
        assert_eq!(
            last_message(),
            format!(
                "pyrex_engine_info_t.struct_size is {struct_size}, expected sizeof(pyrex_engine_info_t), which is {size} in this version"
            )
        );
    }
    free(engine);
}
