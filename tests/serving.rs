//! Many requests on one engine: company, limits, priorities, slow readers, shared prefixes, failures. On the scripted model,
//! which fails if any of its layers is shown a wrong token; nothing waits for a clock.

use candle_core::Tensor;
use pyrex_core::batch::{Batch, ImageBatch};
use pyrex_core::kv::KvPool;
use pyrex_core::models::scripted::{Fed, GateKeeper, IMAGE_TOKENS, Permit, Script};
use pyrex_core::models::{LoadedModel, Model, ModelSpec, Processor};
use pyrex_core::prompt::detokenizer::Detokenizer;
use pyrex_core::prompt::{EncodedPrompt, Patches};
use pyrex_core::trace::Tap;
use pyrex_core::{
    Chat, Completion, Constraint, Engine, EngineOptions, EngineStats, ErrorKind, Event, KvCacheSize, Message,
    ModelInput, Next, Part, Prompt, Request, RequestHandle, SamplingParams, TokenConstraint, TokenMask,
};
use pyrex_tests::scripted::{
    answer, events, failure, gated, image, open, open_with, submit, submit_prepared, text, wait_until,
};
use pyrex_tests::{options, runs_ahead};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LONG: &str = "a prompt that is quite a bit longer than two blocks of the cache";

fn done(handle: RequestHandle) -> Completion {
    handle.wait().expect("the request finishes")
}

fn fed(keeper: &GateKeeper) -> Fed {
    keeper.wait().expect("the model is there")
}

fn pass(keeper: &GateKeeper) -> Fed {
    let fed = fed(keeper);
    keeper.let_pass(Permit::Answer);
    fed
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// A cache of about so many blocks for each of the two layers, and sequences that may fill it.
fn cache_of(options: &mut EngineOptions, num_blocks: usize) {
    // Each layer keeps two f32 per token.
    options.max_model_len = Some(options.max_model_len.unwrap_or(16 * num_blocks));
    options.kv_cache = KvCacheSize::Bytes(num_blocks * 16 * 16);
}

fn all_is_free(engine: &Engine) {
    let stats = engine.stats();
    assert_eq!((stats.num_waiting, stats.num_running, stats.num_leases), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.num_free_blocks, stats.num_blocks, "{stats:?}");
}

#[test]
fn a_step_mixes_decodes_with_chunks_of_prompts_under_the_budget() {
    if runs_ahead() {
        return;
    }
    let (script, keeper) = gated(Script::of(&[("ab", "xyz"), (LONG, "ok")]));
    let engine = open_with(script, |options| options.max_batch_tokens = Some(10));
    let first = submit(&engine, text("ab"));
    assert_eq!(fed(&keeper).input_ids, ids("ab"));
    let second = submit_prepared(&engine, text(LONG));
    keeper.let_pass(Permit::Answer);
    for (decoded, chunk) in [("x", 0..9), ("y", 9..18), ("z", 18..27), ("", 27..37)] {
        assert_eq!(pass(&keeper).input_ids, ids(&format!("{decoded}{}", &LONG[chunk])));
    }
    drop(keeper);
    assert_eq!((done(first).text.as_str(), done(second).text.as_str()), ("xyz", "ok"));
    all_is_free(&engine);
}

#[test]
fn answers_are_the_same_alone_in_company_and_when_blocks_run_out() {
    let pairs: Vec<(String, String)> = (0..24)
        .map(|i| ("p".repeat(1 + i * 5 % 47) + &i.to_string(), "answer ".repeat(1 + i % 5) + &i.to_string()))
        .collect();
    let script = || Script::of(&pairs.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect::<Vec<_>>());
    for (num_blocks, max_sequences, max_batch_tokens) in [(6, 16, 512), (7, 4, 5), (9, 24, 33), (64, 24, 17)]
    {
        let engine = open_with(script(), |options| {
            options.max_model_len = Some(96);
            cache_of(options, num_blocks);
            (options.max_sequences, options.max_batch_tokens) = (Some(max_sequences), Some(max_batch_tokens));
        });
        let handles: Vec<_> = pairs.iter().map(|(prompt, _)| submit(&engine, text(prompt))).collect();
        for (handle, (prompt, expected)) in handles.into_iter().zip(&pairs) {
            assert_eq!(&done(handle).text, expected, "{prompt}, {num_blocks} blocks");
        }
        let preempted = engine.stats().preemptions > 0;
        assert!(preempted || num_blocks > 7, "{num_blocks} blocks are too few for all");
        all_is_free(&engine);
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again() {
    let (script, keeper) = gated(Script::of(&[("p", "q")]));
    let engine = open_with(script, |options| (options.max_sequences, options.max_waiting) = (Some(1), 2));
    let running = submit(&engine, text("p"));
    fed(&keeper);
    let (one, two) = (submit(&engine, text("p")), submit(&engine, text("p")));
    let refused = engine.submit(text("p")).expect_err("two wait already");
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.message().contains("2 requests are waiting"), "{refused}");
    one.cancel();
    keeper.let_pass(Permit::Answer);
    assert_eq!(failure(one).kind(), ErrorKind::Cancelled);
    let three = submit(&engine, text("p"));
    drop(keeper);
    for handle in [running, two, three] {
        assert_eq!(done(handle).text, "q");
    }
    all_is_free(&engine);
}

#[test]
fn a_higher_priority_is_served_first_and_takes_the_place_of_a_lower_one() {
    if runs_ahead() {
        return;
    }
    let (script, keeper) = gated(Script::of(&[("low", "123"), ("later", "4"), ("high", "5")]));
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let low = submit(&engine, text("low"));
    assert_eq!(fed(&keeper).input_ids, ids("low"));
    let later = submit_prepared(&engine, text("later"));
    let high = submit_prepared(&engine, Request { priority: 3, ..text("high") });
    keeper.let_pass(Permit::Answer);
    for expected in ["high", "5", "1", "2", "3", "later", "4"] {
        assert_eq!(pass(&keeper).input_ids, ids(expected));
    }
    drop(keeper);
    for (handle, expected) in [(low, "123"), (later, "4"), (high, "5")] {
        assert_eq!(done(handle).text, expected);
    }
}

#[test]
fn r24_a_deadline_ends_a_request_in_every_phase() {
    let past = Instant::now();
    let engine = open(Script::of(&[("p", "q")]));
    let late = submit(&engine, Request { deadline: Some(past), ..text("p") });
    assert_eq!(failure(late).kind(), ErrorKind::DeadlineExceeded);
    let in_time = Request { deadline: Some(past + Duration::from_secs(3600)), ..text("p") };
    assert_eq!(done(submit(&engine, in_time)).text, "q");
    // While it waits, in a chunk of its prompt, and while it decodes.
    for (num_steps, waiting) in [(0, true), (0, false), (1, false), (4, false)] {
        let (script, keeper) = gated(Script::of(&[("prompt", "answer"), ("p", "q")]));
        let engine = open_with(script, |options| {
            (options.max_batch_tokens, options.max_sequences) = (Some(3), Some(1))
        });
        let other = waiting.then(|| {
            let other = submit(&engine, text("p"));
            fed(&keeper);
            other
        });
        let deadline = Instant::now() + Duration::from_millis(30);
        let late = submit(&engine, Request { deadline: Some(deadline), ..text("prompt") });
        if !waiting {
            (0..num_steps).for_each(|_| drop(pass(&keeper)));
            fed(&keeper);
        }
        wait_until("the deadline has passed", || Instant::now() > deadline);
        keeper.let_pass(Permit::Answer);
        drop(keeper);
        assert_eq!(failure(late).kind(), ErrorKind::DeadlineExceeded, "after {num_steps} steps");
        other.into_iter().for_each(|other| assert_eq!(done(other).text, "q"));
        all_is_free(&engine);
    }
}

#[test]
fn an_idle_engine_wakes_for_the_deadline_of_a_request_that_nobody_reads() {
    let said = "x".repeat(100);
    let engine = open_with(Script::of(&[("p", &said)]), |options| options.max_events = 4);
    let deadline = Instant::now() + Duration::from_millis(40);
    let handle = submit(&engine, Request { deadline: Some(deadline), ..text("p") });
    wait_until("it has ended", || {
        // Both of one moment: between two looks it may go from waiting to running.
        let EngineStats { num_waiting, num_running, .. } = engine.stats();
        num_waiting + num_running == 0
    });
    let (told, last) = events(handle);
    assert!(matches!(last, Event::Failed(error) if error.kind() == ErrorKind::DeadlineExceeded));
    assert!(told.len() < 10, "it paused: {}", told.len());
}

#[test]
fn r24_a_slow_reader_pauses_itself_and_nobody_else() {
    let said = "slow ".repeat(20);
    for reader_timeout in [Duration::ZERO, Duration::from_secs(3600)] {
        let engine = open_with(Script::of(&[("slow", &said), ("quick", "quick")]), |options| {
            (options.max_events, options.max_sequences, options.reader_timeout) =
                (4, Some(1), reader_timeout);
        });
        let mut slow = submit(&engine, text("slow"));
        wait_until("it pauses", || engine.stats().num_paused == 1);
        for _ in 0..5 {
            assert_eq!(answer(&engine, "quick"), "quick");
        }
        let kept = usize::from(reader_timeout > Duration::ZERO);
        wait_until("its blocks are where they should be", || engine.stats().num_leases == kept);
        let mut read = String::new();
        for event in &mut slow {
            match event {
                Event::Token { text, .. } => read.push_str(&text),
                Event::Started { .. } => {}
                last => assert!(matches!(last, Event::Finished { .. }), "{last:?}"),
            }
        }
        assert_eq!(read, said);
        all_is_free(&engine);
    }
}

#[test]
fn paused_requests_give_their_blocks_to_those_who_need_them() {
    let said = "y".repeat(40);
    let script = Script::of(&[("slow", &said), (LONG, &said)]);
    let engine = open_with(script, |options| {
        cache_of(options, 7);
        (options.max_events, options.reader_timeout) = (4, Duration::from_secs(3600));
    });
    let slow = submit(&engine, text("slow"));
    wait_until("it pauses", || engine.stats().num_paused == 1);
    let mut long = submit(&engine, text(LONG));
    let tokens = long.by_ref().filter(|event| matches!(event, Event::Token { .. })).count();
    assert_eq!((tokens, engine.stats().preemptions), (41, 1));
    assert_eq!(done(slow).text, said);
    all_is_free(&engine);
}

#[test]
fn r28_an_abandoned_request_is_gone_even_while_it_is_paused() {
    let said = "z".repeat(100);
    let engine = open_with(Script::of(&[("p", &said)]), |options| options.max_events = 4);
    let handle = submit(&engine, text("p"));
    wait_until("it pauses", || engine.stats().num_paused == 1);
    drop(handle);
    wait_until("it is gone", || engine.stats().num_running == 0);
    all_is_free(&engine);
}

#[test]
fn completions_share_the_prompt_and_begin_from_its_logits() {
    for prompt_len in [1, 15, 16, 17, 40] {
        let prompt = "p".repeat(prompt_len);
        let sampling = |seed| SamplingParams {
            temperature: 3.0,
            seed: Some(seed),
            max_tokens: Some(20),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        let request = |n| Request { num_completions: n, ..text(&prompt).with_sampling(sampling(7)) };
        let (script, keeper) = gated(Script::of(&[(&prompt, "something to say")]));
        let engine = open(script);
        let handle = submit(&engine, request(3));
        assert_eq!(pass(&keeper).input_ids, ids(&prompt), "the prompt is computed once");
        assert_eq!(pass(&keeper).input_ids.len(), 3);
        drop(keeper);
        let all = handle.wait_all().expect("the request finishes");
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].usage.prompt_tokens, all[0].usage.completion_tokens), (prompt_len, 60));
        let alone = done(submit(&engine, request(1)));
        assert_eq!(alone.token_ids, all[0].token_ids, "the first is what one alone would be");
        assert!(all[1].token_ids != all[0].token_ids && all[1].token_ids != all[2].token_ids);
        let greedy = Request { num_completions: 3, ..text(&prompt) };
        let all = submit(&engine, greedy).wait_all().expect("the request finishes");
        assert!(all.iter().all(|completion| completion.text == "something to say"), "{all:?}");
        all_is_free(&engine);
    }
}

#[test]
fn completions_survive_a_cache_that_is_too_small_for_all_of_them() {
    let said = "the same answer for all of them".to_owned();
    let engine = open_with(Script::of(&[(LONG, &said)]), |options| {
        options.max_model_len = Some(112);
        cache_of(options, 9);
    });
    let all = submit(&engine, Request { num_completions: 4, ..text(LONG) })
        .wait_all()
        .expect("the request finishes");
    assert!(all.iter().all(|completion| completion.text == said), "{all:?}");
    assert!(all.len() == 4 && engine.stats().preemptions > 0);
    all_is_free(&engine);
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_is_read_from_the_cache() {
    if runs_ahead() {
        return;
    }
    let (script, keeper) = gated(Script::of(&[(LONG, "one"), (&format!("{LONG} and more"), "two")]));
    let engine = open(script);
    let first = submit(&engine, text(LONG));
    assert_eq!(pass(&keeper).positions.len(), LONG.len());
    (0..3).for_each(|_| drop(pass(&keeper)));
    assert_eq!(done(first).usage.cached_tokens, 0);
    let same = submit(&engine, text(LONG));
    let cached = (LONG.len() - 1) / 16 * 16;
    assert!(
        pass(&keeper).positions.into_iter().eq(cached as u32..LONG.len() as u32),
        "only the rest is computed"
    );
    (0..3).for_each(|_| drop(pass(&keeper)));
    let same = done(same);
    assert_eq!((same.text.as_str(), same.usage.cached_tokens), ("one", cached));
    let salted = submit(&engine, Request { cache_salt: "tenant".into(), ..text(LONG) });
    assert_eq!(pass(&keeper).positions.len(), LONG.len(), "another salt knows nothing of it");
    drop(keeper);
    assert_eq!(done(salted).usage.cached_tokens, 0);
    let longer = done(submit(&engine, text(&format!("{LONG} and more"))));
    assert_eq!((longer.text.as_str(), longer.usage.cached_tokens), ("two", LONG.len() / 16 * 16));
    let stats = engine.stats();
    assert_eq!(stats.prefix_hit_tokens as usize, cached + LONG.len() / 16 * 16);
    all_is_free(&engine);
}

#[test]
fn without_a_prefix_cache_everything_is_computed() {
    let engine = open_with(Script::of(&[(LONG, "one")]), |options| options.prefix_cache = false);
    for _ in 0..2 {
        assert_eq!(done(submit(&engine, text(LONG))).usage.cached_tokens, 0);
    }
    assert_eq!(engine.stats().num_cached_blocks, 0);
}

fn with_image(pixel: u8, question: &str) -> Request {
    let parts = vec![Part::Text("1234567890".into()), image(pixel), Part::Text(question.into())];
    Request::new(Chat::new(vec![Message::parts("user", parts)]))
}

#[test]
fn r22_another_image_is_another_prefix() {
    let engine = open(Script::of(&[]));
    let question = "what is this, and what is beside it?";
    let ask = |pixel| done(submit(&engine, with_image(pixel, question))).usage.cached_tokens;
    let cached = (10 + IMAGE_TOKENS + question.len() - 1) / 16 * 16;
    assert_eq!([ask(1), ask(2), ask(1), ask(2)], [0, 0, cached, cached]);
}

#[test]
fn an_image_is_encoded_once_whoever_asks_about_it() {
    let engine = open(Script::of(&[]));
    let handles: Vec<_> =
        (0..12).map(|i| submit(&engine, with_image(i % 3, &format!("{i} question")))).collect();
    handles.into_iter().for_each(|handle| drop(done(handle)));
    let stats = engine.stats();
    assert_eq!(stats.image_lookups - stats.image_hits, 3, "{stats:?}");
}

#[test]
fn a_step_that_fails_ends_only_the_guilty() {
    let (script, keeper) = gated(Script::of(&[("a", "first"), ("b", "second"), ("c", "third")]));
    let engine = open(script);
    let a = submit(&engine, text("a"));
    fed(&keeper);
    let [b, c] = ["b", "c"].map(|prompt| submit_prepared(&engine, text(prompt)));
    keeper.let_pass(Permit::Answer);
    assert_eq!(fed(&keeper).input_ids, ids("fbc"));
    keeper.let_pass(Permit::Fail);
    for (tried, permit) in [("f", Permit::Answer), ("b", Permit::Fail), ("c", Permit::Answer)] {
        assert_eq!(fed(&keeper).input_ids, ids(tried), "each is tried alone");
        keeper.let_pass(permit);
    }
    drop(keeper);
    assert_eq!((done(a).text.as_str(), done(c).text.as_str()), ("first", "third"));
    assert_eq!(failure(b).kind(), ErrorKind::Device);
    assert_eq!(engine.stats().num_failed_steps, 2);
    all_is_free(&engine);
}

#[test]
fn r24_cancelling_one_of_a_batch_leaves_the_others() {
    let pairs: Vec<(String, String)> = (0..6).map(|i| (format!("p{i}"), format!("answer {i}"))).collect();
    for cancelled in 0..6 {
        let script = Script::of(&pairs.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect::<Vec<_>>());
        let (script, keeper) = gated(script);
        let engine = open(script);
        let first = submit(&engine, text("p0"));
        fed(&keeper);
        let others = pairs[1..].iter().map(|(prompt, _)| submit_prepared(&engine, text(prompt)));
        let handles: Vec<_> = std::iter::once(first).chain(others).collect();
        keeper.let_pass(Permit::Answer);
        assert_eq!(fed(&keeper).num_logit_rows, 6);
        handles[cancelled].cancel();
        drop(keeper);
        for (index, (handle, (_, expected))) in handles.into_iter().zip(&pairs).enumerate() {
            let end = handle.wait().map(|done| done.text).map_err(|error| error.kind());
            assert_eq!(end.as_ref().ok(), (index != cancelled).then_some(expected));
            assert!(index != cancelled || end == Err(ErrorKind::Cancelled));
        }
        all_is_free(&engine);
    }
}

#[test]
fn a_chunk_that_is_most_of_its_step_ends_within_a_layer_when_it_is_cancelled() {
    let prompt = "x".repeat(100);
    let (script, keeper) = gated(Script::of(&[("a", "answer"), (&prompt, "never")]));
    let engine = open_with(script, |options| options.prefix_cache = false);
    let a = submit(&engine, text("a"));
    fed(&keeper);
    let long = submit_prepared(&engine, text(&prompt));
    keeper.let_pass(Permit::Answer);
    assert_eq!(fed(&keeper).positions.len(), 101);
    long.cancel();
    keeper.let_pass(Permit::Answer);
    assert_eq!(fed(&keeper).positions.len(), 1, "the step is given up, and the other goes on alone");
    drop(keeper);
    assert_eq!(failure(long).kind(), ErrorKind::Cancelled);
    assert_eq!(done(a).text, "answer");
    assert_eq!(engine.stats().num_failed_steps, 1);
}

#[test]
fn draining_answers_what_is_there_and_takes_nothing_new() {
    let (script, keeper) = gated(Script::of(&[("p", "q"), ("r", "s")]));
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let handles = ["p", "r"].map(|prompt| submit(&engine, text(prompt)));
    fed(&keeper);
    let drained = thread::scope(|scope| {
        let drained = scope.spawn(|| engine.drain(Duration::from_secs(60)));
        wait_until("it drains", || engine.submit(text("p")).is_err());
        drop(keeper);
        drained.join().expect("drain returns")
    });
    assert_eq!(drained, 0);
    assert_eq!(handles.map(|handle| done(handle).text), ["q", "s"]);
    assert_eq!(engine.submit(text("p")).expect_err("it has closed").kind(), ErrorKind::Closed);
}

#[test]
fn draining_cuts_off_what_takes_too_long() {
    let (script, keeper) = gated(Script::of(&[("p", "q")]));
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let handles = [(); 3].map(|()| submit(&engine, text("p")));
    fed(&keeper);
    assert_eq!(engine.drain(Duration::ZERO), 3);
    drop(keeper);
    for handle in handles {
        assert_eq!(failure(handle).kind(), ErrorKind::Closed);
    }
    all_is_free(&engine);
}

#[test]
fn waiting_for_ever_is_no_overflow() {
    let said = "x".repeat(30);
    let engine = open_with(Script::of(&[("p", &said)]), |options| {
        (options.reader_timeout, options.stuck_after, options.max_events) = (Duration::MAX, Duration::MAX, 4);
    });
    let mut handle = submit(&engine, text("p"));
    wait_until("it pauses", || engine.stats().num_paused == 1);
    while !matches!(handle.next_timeout(Duration::MAX), Next::Event(event) if event.is_final()) {}
    engine.probe(Duration::MAX).expect("the scripted model is sound");
    assert_eq!(engine.drain(Duration::MAX), 0);
}

#[test]
fn a_step_that_hangs_is_noticed() {
    let (script, keeper) = gated(Script::of(&[("p", "q")]));
    let engine = open_with(script, |options| options.stuck_after = Duration::from_millis(20));
    let handle = submit(&engine, text("p"));
    fed(&keeper);
    wait_until("it is stuck", || {
        engine.submit(text("p")).is_err_and(|error| error.kind() == ErrorKind::Device)
    });
    assert!(engine.stats().running_step_ms.is_some_and(|ms| ms >= 20.0));
    drop(keeper);
    assert_eq!(done(handle).text, "q");
    wait_until("it goes on", || engine.submit(text("p")).is_ok());
}

/// The scripted model, changed.
struct Changed {
    inner: Box<dyn Model>,
    change: fn(&Batch, Tensor) -> pyrex_core::Result<Tensor>,
}

impl Model for Changed {
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn image_batch(&self, images: &[&Patches]) -> pyrex_core::Result<ImageBatch> {
        self.inner.image_batch(images)
    }

    fn encode_images(&self, images: &ImageBatch, tap: &mut dyn Tap) -> pyrex_core::Result<Tensor> {
        self.inner.encode_images(images, tap)
    }

    fn forward(&self, batch: &Batch, kv: &mut KvPool, tap: &mut dyn Tap) -> pyrex_core::Result<Tensor> {
        (self.change)(batch, self.inner.forward(batch, kv, tap)?)
    }
}

fn changed(script: Script, change: fn(&Batch, Tensor) -> pyrex_core::Result<Tensor>) -> Engine {
    let LoadedModel { model: inner, processor } = script.load();
    let model = ModelInput::Loaded(LoadedModel { model: Box::new(Changed { inner, change }), processor });
    Engine::open(EngineOptions { num_threads: Some(1), ..options(model) }).expect("the model opens")
}

#[test]
fn a_probe_finds_a_model_that_decodes_otherwise_than_it_reads() {
    let minute = Duration::from_secs(60);
    open(Script::of(&[])).probe(minute).expect("the scripted model is sound");
    let wrong = changed(Script::of(&[]), |batch, logits| match batch.input_ids.dims1()? {
        1 => Ok((logits * 0.5)?),
        _ => Ok(logits),
    });
    let error = wrong.probe(minute).expect_err("decoding is off");
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("contradicts itself"), "{error}");
    assert_eq!(wrong.probe(Duration::ZERO).expect_err("no time").kind(), ErrorKind::DeadlineExceeded);
}

#[test]
fn logits_that_are_no_numbers_fail_their_request_and_no_other() {
    let engine = changed(Script::of(&[("good", "fine"), ("b", "bad")]), |batch, logits| {
        let ids = batch.input_ids.to_vec1::<u32>()?;
        match ids.contains(&u32::from(b'b')) {
            true => Ok((logits * f64::NAN)?),
            false => Ok(logits),
        }
    });
    assert_eq!(failure(submit(&engine, text("b"))).kind(), ErrorKind::Internal);
    assert_eq!(answer(&engine, "good"), "fine");
}

#[test]
fn r24_a_step_that_runs_out_of_memory_is_done_again_in_parts() {
    // Room for one sequence at a time: company fails, and nobody is guilty.
    let engine =
        changed(Script::of(&[("a", "first"), ("b", "second"), ("c", "third")]), |batch, logits| match batch
            .queries
            .query_start
            .dims1()?
        {
            2 => Ok(logits),
            _ => Err(pyrex_core::Error::out_of_memory("no room for two")),
        });
    let handles = ["a", "b", "c"].map(|prompt| submit(&engine, text(prompt)));
    assert_eq!(handles.map(|handle| done(handle).text), ["first", "second", "third"]);
    // One that fails alone is the guilty one.
    let engine = changed(Script::of(&[("a", "first")]), |batch, logits| {
        match batch.input_ids.to_vec1::<u32>()?.contains(&u32::from(b'b')) {
            true => Err(pyrex_core::Error::out_of_memory("no room for b")),
            false => Ok(logits),
        }
    });
    let [a, b] = ["a", "b"].map(|prompt| submit(&engine, text(prompt)));
    assert_eq!((done(a).text.as_str(), failure(b).kind()), ("first", ErrorKind::OutOfMemory));
    all_is_free(&engine);
}

#[test]
fn an_engine_can_be_shared_and_a_handle_sent() {
    fn shared<T: Clone + Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Engine>();
    shared::<pyrex_core::RequestControl>();
    shared::<pyrex_core::Session>();
    sent::<RequestHandle>();
}

/// Counts the prompts that were prepared.
struct Counting {
    inner: Arc<dyn Processor>,
    prepared: Arc<AtomicUsize>,
}

impl Processor for Counting {
    fn encode(&self, prompt: &Prompt) -> pyrex_core::Result<EncodedPrompt> {
        self.prepared.fetch_add(1, Ordering::AcqRel);
        self.inner.encode(prompt)
    }

    fn render(&self, chat: &Chat) -> pyrex_core::Result<String> {
        self.inner.render(chat)
    }

    fn tokenize(&self, text: &str) -> pyrex_core::Result<Vec<u32>> {
        self.inner.tokenize(text)
    }

    fn detokenizer(&self) -> Detokenizer {
        self.inner.detokenizer()
    }
}

#[test]
fn a_thousand_waiting_images_are_not_a_thousand_decoded_ones() {
    let (script, keeper) = gated(Script::of(&[]));
    let LoadedModel { model, processor } = script.load();
    let prepared = Arc::new(AtomicUsize::new(0));
    let processor = Arc::new(Counting { inner: processor, prepared: prepared.clone() });
    let model = ModelInput::Loaded(LoadedModel { model, processor });
    let options = EngineOptions { max_sequences: Some(4), num_threads: Some(1), ..options(model) };
    let engine = Engine::open(options).expect("the model opens");
    let handles: Vec<_> = (0..1000).map(|i| submit(&engine, with_image(i as u8, "what is this?"))).collect();
    fed(&keeper);
    wait_until("as many are prepared as may be", || prepared.load(Ordering::Acquire) >= 5);
    assert!(prepared.load(Ordering::Acquire) <= 4 + 4, "four may run, and four may wait for them");
    assert_eq!(engine.stats().num_waiting + engine.stats().num_running, 1000);
    handles[500].cancel();
    // A higher priority does not wait behind those that are prepared.
    let before = prepared.load(Ordering::Acquire);
    let urgent = submit(&engine, Request { priority: 1, ..with_image(1, "quick!") });
    wait_until("the urgent one is prepared", || prepared.load(Ordering::Acquire) > before);
    drop(keeper);
    drop(done(urgent));
    for (index, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.wait().is_ok(), index != 500, "{index}");
    }
    all_is_free(&engine);
}

#[test]
fn a_cancelled_request_ends_though_it_waits_behind_a_full_room() {
    let (script, keeper) = gated(Script::of(&[("p", "q")]));
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let handles: Vec<_> = (0..9).map(|_| submit(&engine, text("p"))).collect();
    fed(&keeper);
    handles[8].cancel();
    keeper.let_pass(Permit::Answer);
    fed(&keeper);
    let mut last = handles.into_iter().next_back().expect("nine were sent");
    assert!(matches!(last.next(), Some(Event::Failed(error)) if error.kind() == ErrorKind::Cancelled));
}

#[test]
fn a_session_reads_its_earlier_turns_from_the_cache() {
    let turn = "tell me something that fills a block or two";
    let engine = open(Script::of(&[(turn, "once upon a time there was a cache")]));
    let mut session = engine.session();
    let first = session.ask(Message::text("user", turn)).expect("the request finishes");
    assert_eq!((first.text.as_str(), session.chat.messages.len()), ("once upon a time there was a cache", 2));
    let second = session.ask(Message::text("user", " and then?")).expect("the request finishes");
    let so_far = turn.len() + first.text.len();
    assert_eq!(second.usage.cached_tokens, so_far / 16 * 16);
    assert_eq!(session.chat.messages.len(), 4);
}

struct Only(&'static [u8], usize);

impl TokenConstraint for Only {
    fn allowed(&mut self, mask: &mut TokenMask) -> pyrex_core::Result<()> {
        self.0.get(self.1).into_iter().for_each(|byte| mask.allow(u32::from(*byte)));
        Ok(())
    }

    fn accept(&mut self, token_id: u32) -> pyrex_core::Result<()> {
        assert_eq!(token_id, u32::from(self.0[self.1]));
        self.1 += 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.1 == self.0.len()
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        Box::new(Only(self.0, self.1))
    }
}

#[test]
fn a_constraint_decides_what_is_said_whatever_the_model_wants() {
    let engine = open(Script::of(&[("p", "unwanted")]));
    let request = |said: &'static [u8]| {
        let constraint = Constraint::Custom(Arc::new(move || Box::new(Only(said, 0))));
        Request { num_completions: 2, ..text("p").with_constraint(constraint) }
    };
    let handles =
        [submit(&engine, request(b"yes")), submit(&engine, text("p")), submit(&engine, request(b"no"))];
    let texts: Vec<Vec<String>> = handles
        .into_iter()
        .map(|handle| {
            handle.wait_all().expect("the request finishes").into_iter().map(|done| done.text).collect()
        })
        .collect();
    assert_eq!(texts, [vec!["yes"; 2], vec!["unwanted"], vec!["no"; 2]]);
}

#[test]
fn logprobs_come_with_their_tokens() {
    let engine = open(Script::of(&[("p", "q")]));
    let sampling = SamplingParams { logprobs: Some(2), ..SamplingParams::default() };
    let done = done(submit(&engine, text("p").with_sampling(sampling)));
    assert_eq!(done.logprobs.len(), done.token_ids.len());
    for (token_id, logprobs) in done.token_ids.iter().zip(&done.logprobs) {
        assert_eq!((logprobs.top.len(), logprobs.top[0]), (2, (*token_id, logprobs.logprob)));
    }
}

#[test]
fn r24_r27_zero_negative_and_huge_parameters_are_refused_with_their_names() {
    let engine = open(Script::of(&[("p", "q")]));
    let refused = |request: Request, name: &str| {
        let error = engine.submit(request).expect_err(name);
        assert!(error.kind() == ErrorKind::InvalidRequest && error.message().contains(name), "{error}");
    };
    refused(Request { num_completions: 0, ..text("p") }, "num_completions is 0");
    refused(Request { num_completions: usize::MAX, ..text("p") }, "num_completions is 18446744073709551615");
    let sampling = |sampling| text("p").with_sampling(sampling);
    refused(sampling(SamplingParams { temperature: -0.1, ..Default::default() }), "temperature");
    refused(sampling(SamplingParams { max_tokens: Some(0), ..Default::default() }), "max_tokens");
    refused(sampling(SamplingParams { logit_bias: vec![(999, 1.0)], ..Default::default() }), "logit_bias");
    refused(
        sampling(SamplingParams { repetition_penalty: f32::NAN, ..Default::default() }),
        "repetition_penalty",
    );
    for (priority, deadline) in
        [(i8::MIN, None), (i8::MAX, Some(Instant::now() + Duration::from_secs(1 << 30)))]
    {
        assert_eq!(done(submit(&engine, Request { priority, deadline, ..text("p") })).text, "q");
    }
    all_is_free(&engine);
}

#[test]
fn a_cache_too_small_for_one_sequence_is_refused_with_the_numbers() {
    let options = |kv_cache| EngineOptions {
        kv_cache,
        ..EngineOptions::new(ModelInput::Loaded(Script::of(&[]).load()))
    };
    for kv_cache in [KvCacheSize::Bytes(0), KvCacheSize::Bytes(1000), KvCacheSize::FreeFraction(1e-9)] {
        let error = Engine::open(options(kv_cache)).err().expect("it is too small");
        assert!(
            error.kind() == ErrorKind::InvalidRequest && error.message().contains("256 tokens"),
            "{error}"
        );
    }
    for share in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(Engine::open(options(KvCacheSize::FreeFraction(share))).is_err(), "{share}");
    }
    assert!(Engine::open(options(KvCacheSize::FreeFraction(0.01))).is_ok());
}

/// The tensor library would end the process.
#[test]
fn r27_a_cache_larger_than_what_is_free_is_refused_with_the_numbers() {
    for bytes in [1_000_000_000_000, 1 << 50, usize::MAX] {
        let model = ModelInput::Loaded(Script::of(&[]).load());
        let options = EngineOptions { kv_cache: KvCacheSize::Bytes(bytes), ..EngineOptions::new(model) };
        let error = Engine::open(options).err().expect("no machine has so much");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert!(
            error.message().starts_with(&format!("kv_cache is {bytes} bytes, expected at most")),
            "{error}"
        );
    }
}

#[test]
fn an_asynchronous_reader_sees_what_a_blocking_one_sees() {
    use futures_core::Stream;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake};

    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let said = "a long answer ".repeat(10);
    let engine = open_with(Script::of(&[("p", &said)]), |options| options.max_events = 3);
    let mut stream = submit(&engine, text("p")).into_stream();
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut read = String::new();
    loop {
        match Pin::new(&mut stream).poll_next(&mut context) {
            Poll::Pending => thread::park(),
            Poll::Ready(Some(Event::Token { text, .. })) => read.push_str(&text),
            Poll::Ready(Some(_)) => {}
            Poll::Ready(None) => break,
        }
    }
    assert_eq!(read, said);
    drop(submit(&engine, text("p")).into_stream());
    wait_until("the dropped stream is cancelled", || {
        engine.stats().num_running + engine.stats().num_waiting == 0
    });
}

#[test]
fn polling_a_paused_request_resumes_it() {
    let said = "x".repeat(60);
    let engine = open_with(Script::of(&[("p", &said)]), |options| options.max_events = 2);
    let mut handle = submit(&engine, text("p"));
    let mut num_tokens = 0;
    loop {
        match handle.try_next() {
            Next::Event(event) => num_tokens += usize::from(matches!(event, Event::Token { .. })),
            Next::Pending => thread::yield_now(),
            Next::Ended => break,
        }
    }
    assert_eq!(num_tokens, 61);
}
