//! Random load: whatever callers do, nothing is left behind. `make soak` runs the second test for half an hour.

use pyrex_core::models::scripted::Script;
use pyrex_core::ops::free_bytes;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_core::{
    Chat, Engine, ErrorKind, Event, KvCacheSize, Message, Next, Part, Prompt, Request, RequestHandle,
    SamplingParams,
};
use pyrex_tests::scripted::{image, open_with, text, wait_until};
use pyrex_tests::{model_dir, options, resident_bytes};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Both tests watch the memory of the process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn check_empty(engine: &Engine) {
    wait_until("nobody is left", || engine.stats().num_waiting + engine.stats().num_running == 0);
    let stats = engine.stats();
    assert_eq!(
        (stats.num_leases, stats.num_paused, stats.num_free_blocks),
        (0, 0, stats.num_blocks),
        "{stats:?}"
    );
}

/// What a caller may do with what it asked.
fn treat(random: &mut Random, held: &mut Vec<RequestHandle>) {
    if held.is_empty() {
        return;
    }
    let index = random.below(held.len());
    match random.below(6) {
        0 => drop(held.swap_remove(index)),
        1 => held[index].cancel(),
        2 => drop(held.swap_remove(index).wait_all()),
        // A stall: it is left alone, and its queue fills up.
        3 => {}
        _ => {
            for _ in 0..random.below(20) {
                if held[index].try_next() == Next::Ended {
                    drop(held.swap_remove(index));
                    break;
                }
            }
        }
    }
}

fn scripted_request(random: &mut Random) -> Request {
    let prompt = ["short", "a prompt that is longer than one block", "unknown", "bad\0"][random.below(4)];
    let mut request = match random.below(3) {
        0 => Request::new(Chat::new(vec![Message::parts(
            "user",
            vec![image(random.below(5) as u8), Part::Text(prompt.into())],
        )])),
        _ => text(prompt),
    };
    request.num_completions = 1 + random.below(3);
    request.priority = random.below(3) as i8;
    request.cache_salt = ["", "tenant"][random.below(2)].into();
    request.deadline =
        random.one_in(4).then(|| Instant::now() + Duration::from_micros(random.below(2000) as u64));
    request.sampling.temperature = random.below(2) as f32;
    request.sampling.max_tokens = Some(random.below(60));
    request
}

/// known-bugs 20 and 24, for blocks: 10,000 requests that are cancelled, dropped, read, left alone, late or refused.
#[test]
fn known_bug_20_ten_thousand_random_requests_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let said = "an answer of some length, so that there is time to do something to it";
    let script = Script::of(&[("short", said), ("a prompt that is longer than one block", said)]);
    let engine = open_with(script, |options| {
        options.max_model_len = Some(128);
        // About three sequences of the longest length, for sixteen that may run.
        (options.kv_cache, options.max_batch_tokens) = (KvCacheSize::Bytes(3 * 128 * 16), Some(40));
        (options.max_events, options.reader_timeout, options.max_waiting) = (8, Duration::from_millis(1), 50);
    });
    let (mut random, mut held) = (Random(11), Vec::new());
    let (mut submitted, mut refused, mut resident) = (0, 0, Vec::new());
    while submitted < 10_000 {
        match engine.submit(scripted_request(&mut random)) {
            Ok(handle) => held.push(handle),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::InvalidRequest), "{error}");
                refused += usize::from(error.kind() == ErrorKind::Overloaded);
            }
        }
        submitted += 1;
        treat(&mut random, &mut held);
        if held.len() > 200 {
            held.clear();
        }
        if submitted % 2_500 == 0 {
            held.clear();
            check_empty(&engine);
            resident.push(resident_bytes());
        }
    }
    let stats = engine.stats();
    assert!(
        stats.preemptions > 0 && stats.prefix_hit_tokens > 0 && refused > 0,
        "{stats:?}, {refused} refused"
    );
    let grown = resident[3].saturating_sub(resident[0]);
    assert!(grown < 8 << 20, "resident memory grew by {grown} bytes: {resident:?}");
}

fn model_request(random: &mut Random, pictures: &[Part]) -> Request {
    let sampling = SamplingParams {
        temperature: random.below(2) as f32,
        max_tokens: Some(1 + random.below(50)),
        ignore_eos: random.one_in(2),
        logprobs: random.one_in(5).then_some(3),
        ..SamplingParams::default()
    };
    let words = ["circle", "square", "red", "blue", "what", "is", "this", "describe", "the", "picture"];
    let mut question = String::new();
    for _ in 0..random.below(60) {
        question = question + words[random.below(words.len())] + " ";
    }
    let mut parts: Vec<Part> =
        (0..random.below(3)).map(|_| pictures[random.below(pictures.len())].clone()).collect();
    parts.push(Part::Text(question.clone()));
    let input: pyrex_core::Input = match random.below(4) {
        0 => Prompt::Text(question).into(),
        1 => EncodedPrompt { input_ids: (0..=random.below(200) as u32).collect(), images: Vec::new() }.into(),
        _ => Chat::new(vec![Message::parts("user", parts)]).into(),
    };
    let mut request = Request::new(input).with_sampling(sampling);
    request.num_completions = 1 + random.below(2);
    request.priority = random.below(3) as i8;
    request.deadline =
        random.one_in(8).then(|| Instant::now() + Duration::from_millis(random.below(100) as u64));
    request
}

/// Opens the bundled model, asks it at random for so long, and closes it. What the process held five times over, when it had nothing
/// to do.
fn load(seconds: f64) -> Vec<usize> {
    let pictures: Vec<Part> = std::fs::read_dir(model_dir("shapes").join("examples"))
        .expect("the examples are there")
        .filter_map(|entry| Some(Part::Image(std::fs::read(entry.ok()?.path()).ok()?.into())))
        .collect();
    let mut options = options(model_dir("shapes"));
    (options.max_model_len, options.max_events) = (Some(400), 16);
    (options.max_waiting, options.reader_timeout) = (60, Duration::from_millis(20));
    options.kv_cache = KvCacheSize::FreeFraction(0.001);
    let engine = Engine::open(options).expect("the bundled model opens");
    let (mut random, mut held) = (Random(5), Vec::new());
    let (started, mut resident, mut ends) = (Instant::now(), Vec::new(), [0usize; 3]);
    // On a machine that is busy with others it takes longer until every end was seen.
    let seen_all = |ends: &[usize; 3]| ends.iter().all(|count| *count > 0);
    while started.elapsed().as_secs_f64() < if seen_all(&ends) { seconds } else { 10.0 * seconds } {
        match engine.submit(model_request(&mut random, &pictures)) {
            Ok(handle) => held.push(handle),
            // The queue is full: wait for somebody.
            Err(error) if error.kind() == ErrorKind::Overloaded && !held.is_empty() => {
                ends[0] += 1;
                match held.swap_remove(random.below(held.len())).last() {
                    Some(Event::Finished { .. }) => ends[1] += 1,
                    _ => ends[2] += 1,
                }
            }
            Err(error) => panic!("{error}"),
        }
        treat(&mut random, &mut held);
        if resident.len() < 5 && started.elapsed().as_secs_f64() * 5.0 > seconds * (resident.len() + 1) as f64
        {
            held.clear();
            check_empty(&engine);
            resident.push(resident_bytes());
        }
    }
    held.clear();
    check_empty(&engine);
    resident.push(resident_bytes());
    let stats = engine.stats();
    assert!(seen_all(&ends), "full, finished, failed: {ends:?}");
    assert!(stats.num_failed_steps < stats.num_steps / 2, "{stats:?}");
    println!(
        "{} steps, {} tokens, full, finished, failed {ends:?}, resident {resident:?}",
        stats.num_steps, stats.generated_tokens
    );
    resident
}

/// known-bugs 26: the bundled model under random load, for ten seconds or for `SOAK_SECONDS`.
#[test]
fn known_bug_26_memory_stays_flat_under_random_load() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(10.0);
    let device = pyrex_tests::device();
    // A device keeps the code of kernels it has run.
    if !device.is_cpu() {
        load(seconds / 2.0);
    }
    let free = || free_bytes(&device).expect("the device says what is free");
    let before = free();
    let resident = load(seconds);
    if !device.is_cpu() {
        // Its threads end by themselves. Libraries may have loaded more kernels; an engine has more than that beside its cache.
        wait_until("an engine that is gone keeps nothing of the device", || free() + (24 << 20) >= before);
    }
    // The first fifth fills caches, pools and the allocator's arenas.
    let grown = resident[resident.len() - 1].saturating_sub(resident[1]);
    assert!(grown < 24 << 20, "resident memory grew by {grown} bytes: {resident:?}");
}
