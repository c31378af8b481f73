//! Gemma 4 through the engine: the reference's tokens for every request, whatever runs beside it, however its prompt is cut,
//! and whatever of it the cache still holds.

use pyrex_core::prompt::EncodedPrompt;
use pyrex_core::{Completion, Engine, EngineOptions, KvCacheSize, Request, RequestHandle, SamplingParams};
use pyrex_tests::{CHECKPOINTS, chat_prompt, golden_json, ids, model_dir, options};
use serde_json::Value;

/// How far two log-probabilities of one token may lie apart when only the order of sums differs: the tiny models' logits are
/// as large as 30, and some hundreds of them, so that f32 leaves about this much.
const NOISE: f32 = 1e-3;

/// A request and the reference's answer to it.
struct Case {
    request: Request,
    expected: Vec<u32>,
    has_image: bool,
}

fn cases(checkpoint: &str) -> Vec<Case> {
    let case = |golden: &Value| {
        let ignore_eos = golden["ignore_eos"].as_bool().unwrap();
        let sampling = SamplingParams { max_tokens: Some(64), ignore_eos, ..SamplingParams::default() };
        Case {
            request: Request::new(chat_prompt(&golden["messages"])).with_sampling(sampling),
            expected: ids(&golden["f32"]["ids"]),
            has_image: golden["messages"].to_string().contains("\"path\""),
        }
    };
    golden_json(&format!("{checkpoint}/greedy.json")).as_array().unwrap().iter().map(case).collect()
}

fn open(checkpoint: &str, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = options(model_dir(checkpoint));
    options.max_model_len = Some(512);
    change(&mut options);
    Engine::open(options).unwrap()
}

fn submit(engine: &Engine, request: Request) -> RequestHandle {
    engine.submit(request).unwrap()
}

/// Asks everything at once, and compares every answer with the reference's.
fn check(checkpoint: &str, engine: &Engine, cases: &[Case], what: &str) -> Vec<Completion> {
    let handles: Vec<_> = cases.iter().map(|case| submit(engine, case.request.clone())).collect();
    let answers: Vec<Completion> = handles.into_iter().map(|handle| handle.wait().unwrap()).collect();
    for (index, (answer, case)) in answers.iter().zip(cases).enumerate() {
        assert_eq!(answer.token_ids, case.expected, "{checkpoint}, case {index}, {what}");
    }
    let stats = engine.stats();
    assert_eq!((stats.num_leases, stats.num_free_blocks), (0, stats.num_blocks), "{checkpoint}, {what}");
    answers
}

/// known-bugs 6 and 7: per-layer embeddings in a batched prefill, batches of four and more, one request after another.
#[test]
fn known_bug_06_07_batches_of_any_size_say_what_the_reference_says() {
    for checkpoint in CHECKPOINTS {
        let cases = cases(checkpoint);
        for max_sequences in [1, 4, 16] {
            let engine = open(checkpoint, |options| options.max_sequences = Some(max_sequences));
            check(checkpoint, &engine, &cases, &format!("{max_sequences} at a time"));
        }
    }
}

/// known-bugs 5 and 12, in company: chunks of any size, at the borders of windows, blocks and images.
#[test]
fn known_bug_05_12_chunks_of_any_size_say_what_the_reference_says() {
    for checkpoint in CHECKPOINTS {
        let cases = cases(checkpoint);
        for max_batch_tokens in [1, 2, 5, 15, 16, 17, 33, 64, 127, 256, 512] {
            // One token per step is a long way for images: a few will do.
            let cases = if max_batch_tokens < 5 { &cases[..4] } else { &cases[..] };
            let engine = open(checkpoint, |options| options.max_batch_tokens = Some(max_batch_tokens));
            check(checkpoint, &engine, cases, &format!("{max_batch_tokens} tokens per step"));
        }
    }
}

/// known-bugs 10 and 23: images of one prompt, and of prompts beside each other, are not mixed up.
#[test]
fn known_bug_10_23_images_in_company_are_seen_as_alone() {
    for checkpoint in ["shapes", "e2b-like", "e4b-like"] {
        let cases: Vec<Case> = cases(checkpoint).into_iter().filter(|case| case.has_image).collect();
        assert!(cases.len() >= 4);
        let engine = open(checkpoint, |options| options.max_batch_tokens = Some(40));
        check(checkpoint, &engine, &cases, "images");
    }
}

/// A prefix that the cache remembers is as good as one that was computed.
#[test]
fn a_prefix_that_is_remembered_changes_no_token() {
    for checkpoint in CHECKPOINTS {
        let cases = cases(checkpoint);
        let engine = open(checkpoint, |_| {});
        check(checkpoint, &engine, &cases, "cold");
        let warm = check(checkpoint, &engine, &cases, "warm");
        assert!(
            warm.iter()
                .all(|answer| { answer.usage.cached_tokens == (answer.usage.prompt_tokens - 1) / 16 * 16 })
        );
    }
}

/// known-bugs 12: a prompt of every length around window and block begins on a remembered prefix of every length.
#[test]
fn known_bug_12_every_length_goes_on_from_a_remembered_prefix() {
    for checkpoint in CHECKPOINTS {
        let golden = golden_json(&format!("{checkpoint}/long.json"));
        let all = ids(&golden["ids"]);
        let lengths: Vec<usize> = golden["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["length"].as_u64().unwrap() as usize)
            .collect();
        let ask = |engine: &Engine, length: usize| {
            let sampling = SamplingParams {
                max_tokens: Some(3),
                ignore_eos: true,
                logprobs: Some(0),
                ..SamplingParams::default()
            };
            let prompt = EncodedPrompt { input_ids: all[..length].to_vec(), images: Vec::new() };
            submit(engine, Request::new(prompt).with_sampling(sampling)).wait().unwrap()
        };
        let fresh = open(checkpoint, |options| options.prefix_cache = false);
        let cold: Vec<Completion> = lengths.iter().map(|length| ask(&fresh, *length)).collect();
        for first in [16, 33, 64] {
            let engine = open(checkpoint, |_| {});
            ask(&engine, first.min(all.len()));
            for (length, cold) in lengths.iter().zip(&cold) {
                let warm = ask(&engine, *length);
                assert!(warm.usage.cached_tokens > 0 || *length <= 16, "{checkpoint}, {length} tokens");
                assert_eq!(warm.token_ids, cold.token_ids, "{checkpoint}, {length} tokens");
                for (warm, cold) in warm.logprobs.iter().zip(&cold.logprobs) {
                    let error = (warm.logprob - cold.logprob).abs();
                    assert!(error < NOISE, "{checkpoint}, {length} tokens: {error:.1e}");
                }
            }
        }
    }
}

/// known-bugs 25: who gave its blocks away computes them again, in its old place, and says the same.
#[test]
fn known_bug_25_a_cache_that_is_too_small_changes_no_token() {
    for checkpoint in CHECKPOINTS {
        let cases = cases(checkpoint);
        let spec = open(checkpoint, |_| {}).spec().clone();
        for prefix_cache in [true, false] {
            // Room for one of the longest and a little more, where sixteen want to run.
            let engine = open(checkpoint, |options| {
                let bytes = 1.3 * 512.0 * pyrex_core::engine::kv_bytes_per_token(&spec) as f64;
                (options.kv_cache, options.prefix_cache) = (KvCacheSize::Bytes(bytes as usize), prefix_cache);
                options.max_batch_tokens = Some(64);
            });
            check(checkpoint, &engine, &cases, "a small cache");
        }
    }
}

#[test]
fn the_same_seed_says_the_same_whatever_the_load() {
    for checkpoint in ["shapes", "e2b-like"] {
        let cases = cases(checkpoint);
        let sampled = |engine: &Engine, index: usize| {
            let sampling = SamplingParams {
                temperature: 1.0,
                seed: Some(index as u64),
                max_tokens: Some(40),
                ignore_eos: true,
                ..SamplingParams::default()
            };
            submit(engine, cases[index].request.clone().with_sampling(sampling))
        };
        let alone = open(checkpoint, |options| options.max_sequences = Some(1));
        let crowd = open(checkpoint, |options| options.max_batch_tokens = Some(50));
        let indices = 0..cases.len().min(12);
        let handles: Vec<_> = indices.clone().map(|index| sampled(&crowd, index)).collect();
        for (index, handle) in indices.zip(handles) {
            let expected = sampled(&alone, index).wait().unwrap();
            assert_eq!(handle.wait().unwrap().token_ids, expected.token_ids, "{checkpoint}, case {index}");
        }
    }
}

#[test]
fn several_completions_are_each_what_they_would_be_alone() {
    let engine = open("shapes", |_| {});
    for case in cases("shapes").iter().take(6) {
        let request = Request { num_completions: 4, ..case.request.clone() };
        let all = submit(&engine, request).wait_all().unwrap();
        assert!(all.len() == 4 && all.iter().all(|completion| completion.token_ids == case.expected));
    }
}

/// The self-test is passed by every checkpoint, in both dtypes of activations.
#[test]
fn every_checkpoint_passes_its_probe() {
    for checkpoint in CHECKPOINTS {
        for dtype in [pyrex_core::ActivationDtype::F32, pyrex_core::ActivationDtype::Bf16] {
            let engine = open(checkpoint, |options| options.dtype = Some(dtype));
            engine
                .probe(std::time::Duration::from_secs(60))
                .unwrap_or_else(|e| panic!("{checkpoint}, {dtype}: {e}"));
        }
    }
}
