//! The engine on the scripted model: order, ends, cancels, failures. Nothing waits for a clock.
//! The last test runs the bundled model, whose images cross the borders of chunks.

use pyrex_core::engine::options::ModelInput;
use pyrex_core::models::scripted::{IMAGE_ID, IMAGE_TOKENS, Permit, STOP_ID, Script};
use pyrex_core::{
    Chat, EncodedPrompt, Engine, EngineOptions, Error, ErrorKind, Event, EventSink, FinishReason, Message,
    Next, Part, Request, RequestHandle, SamplingParams,
};
use pyrex_tests::scripted::{answer, events, failure, gated, image, open, open_with, submit, text};
use pyrex_tests::{repository, runs_ahead};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// What the sampling makes of the answer `said` to the prompt `p`.
fn check_end(said: &str, sampling: SamplingParams, expected: &str, reason: FinishReason, num_tokens: usize) {
    let engine = open(Script::of(&[("p", said)]));
    let done =
        submit(&engine, text("p").with_sampling(sampling.clone())).wait().expect("the request finishes");
    assert_eq!((done.text.as_str(), done.finish_reason), (expected, reason), "{sampling:?}");
    assert_eq!(
        (done.token_ids.len(), done.usage.completion_tokens),
        (num_tokens, num_tokens),
        "{sampling:?}"
    );
}

fn stop(strings: &[&str]) -> SamplingParams {
    SamplingParams { stop: strings.iter().map(|s| s.to_string()).collect(), ..SamplingParams::default() }
}

#[test]
fn a_request_is_told_in_order_and_ends_once() {
    let engine = open(Script::of(&[("hello", "hi!")]));
    let (events, last) = events(submit(&engine, text("hello")));
    let Event::Started { prompt_token_ids, image_tokens: 0 } = &events[0] else { panic!("{events:?}") };
    assert_eq!(prompt_token_ids[..], b"hello".map(u32::from));
    let told = events[1..].iter().map(|event| match event {
        Event::Token { token_id, text, .. } => (*token_id, text.as_str()),
        other => panic!("{other:?}"),
    });
    let expected = [(u32::from(b'h'), "h"), (u32::from(b'i'), "i"), (u32::from(b'!'), "!"), (STOP_ID, "")];
    assert!(told.eq(expected), "{events:?}");
    let Event::Finished { reason, usage, timings } = last else { panic!("{last:?}") };
    assert_eq!((reason, usage.prompt_tokens, usage.completion_tokens), (FinishReason::Stop, 5, 4));
    assert!(timings.ttft_ms >= timings.prefill_ms && timings.prefill_ms > 0.0 && timings.decode_ms > 0.0);
}

#[test]
fn a_character_split_over_tokens_is_never_told_in_halves() {
    let engine = open(Script::of(&[("p", "é€!")]));
    let (events, _) = events(submit(&engine, text("p")));
    let told = events.iter().filter_map(|event| match event {
        Event::Token { text, .. } if !text.is_empty() => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(told.collect::<String>(), "é€!");
}

#[test]
fn an_answer_ends_at_a_stop_id_a_stop_string_or_max_tokens() {
    let max_tokens = |n| SamplingParams { max_tokens: Some(n), ..SamplingParams::default() };
    check_end("abcdef", SamplingParams::default(), "abcdef", FinishReason::Stop, 7);
    check_end("abcdef", max_tokens(3), "abc", FinishReason::Length, 3);
    check_end("abcdef", max_tokens(7), "abcdef", FinishReason::Stop, 7);
    check_end("abcdef", stop(&["cd"]), "ab", FinishReason::Stop, 4);
    check_end("abcdef", stop(&["zz", "def", "ef"]), "abc", FinishReason::Stop, 6);
    check_end("abcdef", stop(&["fg"]), "abcdef", FinishReason::Stop, 7);
    check_end(
        "abcdef",
        SamplingParams { max_tokens: Some(4), ..stop(&["de"]) },
        "abcd",
        FinishReason::Length,
        4,
    );
    check_end("one\n\ntwo", stop(&["\n\n"]), "one", FinishReason::Stop, 5);
    check_end("café", stop(&["é"]), "caf", FinishReason::Stop, 6);
    let past = SamplingParams { ignore_eos: true, max_tokens: Some(9), ..SamplingParams::default() };
    check_end("abcdef", past, "abcdef", FinishReason::Length, 9);
}

#[test]
fn an_answer_without_max_tokens_fills_the_longest_sequence() {
    let said = "x".repeat(400);
    let engine = open_with(Script::of(&[("p", &said)]), |options| options.max_model_len = Some(40));
    let done = submit(&engine, text("p")).wait().expect("the request finishes");
    assert_eq!((done.finish_reason, done.token_ids.len()), (FinishReason::Length, 39));
}

#[test]
fn context_overflow_is_an_invalid_request_with_the_numbers_in_it() {
    let engine = open_with(Script::of(&[("p", "q")]), |options| options.max_model_len = Some(20));
    for (prompt_len, max_tokens) in
        [(20, None), (500, None), (10, Some(11)), (20, Some(1)), (3, Some(usize::MAX))]
    {
        let request = text(&"x".repeat(prompt_len));
        let error = failure(submit(
            &engine,
            request.with_sampling(SamplingParams { max_tokens, ..SamplingParams::default() }),
        ));
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains(&format!("{prompt_len} tokens")), "{error}");
    }
    assert_eq!(answer(&engine, "p"), "q");
}

#[test]
fn bad_requests_fail_alone() {
    let engine = open(Script::of(&[("p", "q")]));
    let bad = SamplingParams { temperature: -1.0, ..SamplingParams::default() };
    let refused =
        engine.submit(text("p").with_sampling(bad)).expect_err("a bad parameter is refused at submit");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    let encoded = |input_ids| Request::new(EncodedPrompt { input_ids, images: Vec::new() });
    for request in [text("a\0b"), text(""), encoded(vec![1, 99_999])] {
        assert_eq!(failure(submit(&engine, request)).kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(answer(&engine, "p"), "q");
}

#[test]
fn prefill_feeds_each_position_once_in_order_whatever_the_chunk() {
    if runs_ahead() {
        return;
    }
    let prompt = "a prompt that is longer than two blocks of the cache";
    for max_batch_tokens in [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 51, 52, 53, 512] {
        let (script, keeper) = gated(Script::of(&[(prompt, "yes")]));
        let engine = open_with(script, |options| options.max_batch_tokens = Some(max_batch_tokens));
        let handle = submit(&engine, text(prompt));
        let mut positions = Vec::new();
        while positions.len() < prompt.len() + 3 {
            let fed = keeper.wait().expect("the model is there");
            assert!(fed.input_ids.len() <= max_batch_tokens);
            positions.extend(fed.positions);
            assert_eq!(
                fed.num_logit_rows,
                usize::from(positions.len() >= prompt.len()),
                "{max_batch_tokens}"
            );
            keeper.let_pass(Permit::Answer);
        }
        assert!(positions.iter().copied().eq(0..prompt.len() as u32 + 3), "{positions:?}");
        assert_eq!(handle.wait().expect("the request finishes").text, "yes", "chunks of {max_batch_tokens}");
    }
}

#[test]
fn image_features_land_on_their_rows_whatever_the_chunk() {
    if runs_ahead() {
        return;
    }
    let parts = [
        Part::Text("ab".into()),
        image(7),
        Part::Text("c".into()),
        image(9),
        image(11),
        Part::Text("d".into()),
    ];
    let chat = || Request::new(Chat::new(vec![Message::parts("user", parts.to_vec())]));
    let num_tokens = 4 + 3 * IMAGE_TOKENS;
    let expected: Vec<(u32, f32)> = [(2, 7.0), (8, 9.0), (13, 11.0)]
        .iter()
        .flat_map(|&(at, pixel)| (at..at + 5).map(move |row| (row, pixel)))
        .collect();
    for max_batch_tokens in 1..=num_tokens + 1 {
        let (script, keeper) = gated(Script::of(&[]));
        let engine = open_with(script, |options| options.max_batch_tokens = Some(max_batch_tokens));
        let handle = submit(&engine, chat());
        let (mut found, mut first) = (Vec::new(), 0);
        while first < num_tokens {
            let fed = keeper.wait().expect("the model is there");
            for (row, feature) in &fed.soft_tokens {
                assert_eq!(fed.input_ids[*row as usize], IMAGE_ID);
                assert_eq!(feature[1], (found.len() % IMAGE_TOKENS) as f32, "features come in order");
                found.push((first as u32 + row, feature[0]));
            }
            first += fed.input_ids.len();
            keeper.let_pass(Permit::Answer);
        }
        assert_eq!(found, expected, "chunks of {max_batch_tokens}");
        let usage = handle.wait().expect("the request finishes").usage;
        assert_eq!((usage.prompt_tokens, usage.image_tokens), (num_tokens, 3 * IMAGE_TOKENS));
    }
}

#[test]
fn r24_cancel_while_queued() {
    let (script, keeper) = gated(Script::of(&[("first", "1"), ("second", "2"), ("third", "3")]));
    let engine = open(script);
    let first = submit(&engine, text("first"));
    keeper.wait().expect("the first is running");
    let (second, third) = (submit(&engine, text("second")), submit(&engine, text("third")));
    second.cancel();
    drop(keeper);
    assert_eq!(failure(second).kind(), ErrorKind::Cancelled);
    assert_eq!(first.wait().expect("the first finishes").text, "1");
    assert_eq!(third.wait().expect("the third finishes").text, "3");
    assert_eq!(engine.stats().num_free_blocks, engine.stats().num_blocks);
}

/// Cancels a request that waits in its `n`th forward pass: it ends, nothing more of it is fed, and the next one runs.
fn check_cancel_at(n: usize, end: impl FnOnce(RequestHandle) -> Option<RequestHandle>) {
    let (script, keeper) = gated(Script::of(&[("prefill", "decode"), ("next", "ok")]));
    let engine = open_with(script, |options| options.max_batch_tokens = Some(3));
    let handle = submit(&engine, text("prefill"));
    for _ in 0..n {
        keeper.wait().expect("the model is there");
        keeper.let_pass(Permit::Answer);
    }
    keeper.wait().expect("the model is there");
    let handle = end(handle);
    keeper.let_pass(Permit::Answer);
    if let Some(handle) = handle {
        assert_eq!(failure(handle).kind(), ErrorKind::Cancelled);
        assert_eq!(engine.stats().num_free_blocks, engine.stats().num_blocks);
    }
    let next = submit(&engine, text("next"));
    assert_eq!(keeper.wait().expect("the model is there").input_ids, b"nex".map(u32::from));
    drop(keeper);
    assert_eq!(next.wait().expect("the next finishes").text, "ok");
}

#[test]
fn r24_cancel_during_prefill() {
    for step in 0..3 {
        check_cancel_at(step, |handle| {
            handle.cancel();
            Some(handle)
        });
    }
}

#[test]
fn r24_cancel_during_decode() {
    for step in 3..6 {
        check_cancel_at(step, |handle| {
            handle.cancel();
            Some(handle)
        });
    }
}

#[test]
fn r28_dropping_the_handle_cancels() {
    for step in [0, 1, 4] {
        check_cancel_at(step, |handle| {
            drop(handle);
            None
        });
    }
}

#[test]
fn a_cancel_ends_the_pass_between_two_layers() {
    let (script, keeper) = gated(Script::of(&[("p", "qrs")]));
    let engine = open(script);
    let mut handle = submit(&engine, text("p"));
    for _ in 0..2 {
        keeper.wait().expect("the model is there");
        keeper.let_pass(Permit::Answer);
    }
    keeper.wait().expect("the third token is under way");
    handle.cancel();
    drop(keeper);
    let tokens = handle.by_ref().filter(|event| matches!(event, Event::Token { .. })).count();
    assert_eq!(tokens, 2, "the pass that was cancelled chose no token");
}

#[test]
fn cancelling_what_has_ended_does_nothing() {
    let engine = open(Script::of(&[("p", "q")]));
    let mut handle = submit(&engine, text("p"));
    assert!(handle.by_ref().last().is_some_and(|last| matches!(last, Event::Finished { .. })));
    handle.cancel();
    assert_eq!(
        (handle.try_next(), handle.next_timeout(Duration::ZERO), handle.next()),
        (Next::Ended, Next::Ended, None)
    );
    assert_eq!(answer(&engine, "p"), "q");
}

#[test]
fn polling_says_pending_until_something_happens() {
    let (script, keeper) = gated(Script::of(&[("p", "")]));
    let engine = open(script);
    let mut handle = submit(&engine, text("p"));
    keeper.wait().expect("the model is there");
    assert!(matches!(handle.try_next(), Next::Event(Event::Started { .. })));
    assert_eq!(handle.try_next(), Next::Pending);
    assert_eq!(handle.next_timeout(Duration::from_millis(1)), Next::Pending);
    drop(keeper);
    assert!(matches!(handle.next_timeout(Duration::from_secs(60)), Next::Event(Event::Token { .. })));
}

#[test]
fn whoever_is_notified_finds_an_event() {
    let engine = open(Script::of(&[("ask", "yes")]));
    let (notify, notified) = channel();
    let mut handle = engine
        .submit_notifying(text("ask"), Box::new(move || notify.send(()).expect("somebody listens")))
        .unwrap();
    let mut num_events = 0;
    // The sender goes with the request, and with it the notifications end.
    for () in notified {
        assert!(handle.has_event());
        assert!(matches!(handle.try_next(), Next::Event(_)));
        num_events += 1;
    }
    assert_eq!((num_events, handle.has_event(), handle.try_next()), (6, false, Next::Ended));
}

#[test]
fn text_and_ids_become_each_other_without_a_step() {
    let engine = open(Script::of(&[]));
    let ids = engine.tokenize("grüß").unwrap();
    assert_eq!((ids.len(), engine.detokenize(&ids)), (6, "grüß".to_owned()));
    assert_eq!(engine.detokenize(&[STOP_ID, u32::MAX, 97]), "a", "what is no text says nothing");
    let chat = Chat::new(vec![Message::text("user", "ab"), Message::text("user", "c")]);
    assert_eq!(engine.render(&chat).unwrap(), "abc");
    assert_eq!(engine.stats().num_steps, 0);
}

#[test]
fn loading_can_be_ended_by_its_progress() {
    let progress = |done, total| match done * 2 > total {
        true => Err(Error::cancelled(format_args!("after {done} of {total} bytes"))),
        false => Ok(()),
    };
    let model = repository().join("models/shapes");
    let opened =
        Engine::open(EngineOptions { progress: Some(Arc::new(progress)), ..EngineOptions::new(model) });
    let error = opened.err().expect("the progress ends it");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(error.message().starts_with("after "), "{error}");
}

#[test]
fn a_failing_step_fails_its_request_and_no_other() {
    let (script, keeper) = gated(Script::of(&[("bad", "x"), ("good", "y")]));
    let engine = open(script);
    let bad = submit(&engine, text("bad"));
    keeper.wait().expect("the model is there");
    let good = submit(&engine, text("good"));
    keeper.let_pass(Permit::Fail);
    assert_eq!(failure(bad).kind(), ErrorKind::Device);
    drop(keeper);
    assert_eq!(good.wait().expect("the good one finishes").text, "y");
    assert_eq!(engine.stats().num_free_blocks, engine.stats().num_blocks);
}

#[test]
fn r27_a_panic_fails_its_request_and_closes_the_engine() {
    let (script, keeper) = gated(Script::of(&[("bad", "x"), ("waiting", "y")]));
    let engine = open(script);
    let bad = submit(&engine, text("bad"));
    keeper.wait().expect("the model is there");
    let waiting = submit(&engine, text("waiting"));
    keeper.let_pass(Permit::Panic);
    let error = failure(bad);
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("the script says that this step panics"), "{error}");
    assert_eq!(failure(waiting).kind(), ErrorKind::Closed);
    let closed = engine.submit(text("late")).expect_err("a closed engine takes nothing");
    assert_eq!(closed.kind(), ErrorKind::Closed);
    assert!(closed.message().contains("panic"), "{closed}");
}

#[test]
fn dropping_the_last_engine_ends_what_lives_and_does_not_wait() {
    let (script, keeper) = gated(Script::of(&[("running", "x"), ("waiting", "y")]));
    let engine = open(script);
    let running = submit(&engine, text("running"));
    keeper.wait().expect("the model is there");
    let waiting = submit(&engine, text("waiting"));
    drop(engine.clone());
    drop(engine);
    keeper.let_pass(Permit::Answer);
    assert_eq!(failure(running).kind(), ErrorKind::Closed);
    assert_eq!(failure(waiting).kind(), ErrorKind::Closed);
    assert_eq!(keeper.wait(), None, "the core thread has ended and let go of the model");
}

#[test]
fn the_same_seed_gives_the_same_tokens_whatever_else_runs() {
    let sampled = |engine: &Engine, seed, prompt: &str| {
        let sampling = SamplingParams {
            temperature: 1.5,
            seed: Some(seed),
            max_tokens: Some(30),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        submit(engine, text(prompt).with_sampling(sampling))
    };
    let script = || Script::of(&[("p", "something to say, if nobody interferes")]);
    let tokens = |handle: RequestHandle| handle.wait().expect("the request finishes").token_ids;
    let alone = tokens(sampled(&open(script()), 42, "p"));
    let engine = open_with(script(), |options| options.max_batch_tokens = Some(1));
    let others: Vec<_> = (0..5).map(|seed| sampled(&engine, seed, "other")).collect();
    let in_company = sampled(&engine, 42, "p");
    assert_eq!(tokens(in_company), alone);
    assert_ne!(tokens(sampled(&engine, 43, "p")), alone);
    others.into_iter().for_each(|other| drop(tokens(other)));
}

#[test]
fn many_threads_submit_and_each_gets_its_own_answer() {
    let answers: Vec<(String, String)> =
        (0..40).map(|i| (format!("prompt {i}"), format!("answer {i}"))).collect();
    let pairs: Vec<(&str, &str)> = answers.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect();
    let engine = open(Script::of(&pairs));
    thread::scope(|scope| {
        for chunk in answers.chunks(5) {
            let engine = engine.clone();
            scope.spawn(move || {
                for (prompt, expected) in chunk {
                    assert_eq!(&answer(&engine, prompt), expected);
                }
            });
        }
    });
    let stats = engine.stats();
    assert_eq!((stats.num_waiting, stats.num_running, stats.num_free_blocks), (0, 0, stats.num_blocks));
}

#[test]
fn requests_are_answered_in_the_order_they_came() {
    if runs_ahead() {
        return;
    }
    let (script, keeper) = gated(Script::of(&[("a", ""), ("b", ""), ("c", "")]));
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let handles = ["a", "b", "c"].map(|prompt| submit(&engine, text(prompt)));
    for expected in [b'a', b'b', b'c'] {
        assert_eq!(keeper.wait().expect("the model is there").input_ids, [u32::from(expected)]);
        keeper.let_pass(Permit::Answer);
    }
    handles.into_iter().for_each(|handle| assert!(handle.wait().is_ok()));
}

struct Forward(Sender<Event>);

impl EventSink for Forward {
    fn send(&mut self, event: Event) {
        self.0.send(event).expect("the test reads to the end");
    }
}

#[test]
fn a_sink_sees_what_a_handle_sees_and_may_panic() {
    let engine = open(Script::of(&[("p", "q")]));
    let (sender, receiver) = channel();
    engine.submit_to(text("p"), Box::new(Forward(sender))).expect("the engine takes the request");
    assert!(receiver.iter().last().is_some_and(|last| last.is_final()));
    let (sender, receiver) = channel();
    drop(receiver);
    engine.submit_to(text("p"), Box::new(Forward(sender))).expect("the engine takes the request");
    assert_eq!(answer(&engine, "p"), "q");
}

#[test]
fn bad_options_are_refused() {
    let refused = |change: fn(&mut EngineOptions)| {
        let mut options = EngineOptions::new(ModelInput::Loaded(Script::of(&[]).load()));
        change(&mut options);
        Engine::open(options).err().expect("the option is refused").kind()
    };
    assert_eq!(refused(|options| options.max_model_len = Some(0)), ErrorKind::InvalidRequest);
    assert_eq!(refused(|options| options.max_model_len = Some(257)), ErrorKind::InvalidRequest);
    assert_eq!(refused(|options| options.max_batch_tokens = Some(0)), ErrorKind::InvalidRequest);
    assert_eq!(refused(|options| options.num_threads = Some(0)), ErrorKind::InvalidRequest);
}

#[test]
fn r05_the_bundled_model_answers_alike_whatever_the_chunk() {
    let shapes = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shapes");
    let picture = |name: &str| {
        Part::Image(std::fs::read(format!("{shapes}/examples/{name}")).expect("it is there").into())
    };
    let parts = vec![
        picture("red_circle.png"),
        picture("pink_square.png"),
        Part::Text("Describe these images.".into()),
    ];
    let answers = [1, 7, 16, 64, 100, 512].map(|max_batch_tokens| {
        let mut options = EngineOptions::new(shapes);
        options.max_batch_tokens = Some(max_batch_tokens);
        options.max_model_len = Some(256);
        let engine = Engine::open(options).expect("the bundled model opens");
        let chat = Chat::new(vec![Message::parts("user", parts.clone())]);
        let done = submit(&engine, Request::new(chat)).wait().expect("the request finishes");
        assert_eq!(done.usage.image_tokens, 128);
        done.token_ids
    });
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}
