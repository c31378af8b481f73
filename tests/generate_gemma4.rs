//! Gemma 4 as the engine runs it: the reference's tokens, whatever the length of the prompt and however it is cut.

use candle_core::{DType, Tensor};
use pyrex_core::batch::{PromptDepth, Wanted};
use pyrex_core::models::LoadedModel;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_core::trace::NoTap;
use pyrex_core::{Engine, Request, SamplingParams};
use pyrex_tests::{
    CHECKPOINTS, How, LAST, NOTHING, Run, chat_prompt, golden_json, greedy, ids, load_model, model_dir,
    options, rel_l2, reordered,
};

fn text_prompt(input_ids: &[u32]) -> EncodedPrompt {
    EncodedPrompt { input_ids: input_ids.to_vec(), images: Vec::new() }
}

/// The last row's logits of a prompt fed in chunks of `chunk_len`.
fn prefill(loaded: &LoadedModel, prompt: &EncodedPrompt, chunk_len: usize, depth: PromptDepth) -> Tensor {
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
    let soft = run.encode_images(&mut NoTap, prompt);
    let chunks: Vec<&[u32]> = prompt.input_ids.chunks(chunk_len).collect();
    let (last, rest) = chunks.split_last().unwrap();
    for chunk in rest {
        let logits = run.forward(&mut NoTap, chunk, soft.as_ref(), How { depth, ..NOTHING });
        assert_eq!(logits.dim(0).unwrap(), 0);
    }
    run.forward(&mut NoTap, last, soft.as_ref(), How { wanted: Wanted::Last, depth })
}

fn values(logits: &Tensor) -> Vec<f32> {
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn greedy_tokens_and_text_are_the_references() {
    let mut prompts = 0;
    for checkpoint in CHECKPOINTS {
        let loaded = load_model(checkpoint, DType::F32);
        for golden in golden_json(&format!("{checkpoint}/greedy.json")).as_array().unwrap() {
            let prompt = loaded.processor.encode(&chat_prompt(&golden["messages"])).unwrap();
            assert_eq!(prompt.input_ids, ids(&golden["prompt_ids"]), "{checkpoint}: {}", golden["messages"]);
            let stop_ids = match golden["ignore_eos"].as_bool().unwrap() {
                true => Vec::new(),
                false => loaded.model.spec().stop_ids.clone(),
            };
            let expected = ids(&golden["f32"]["ids"]);
            let ours = greedy(&loaded, &prompt, 64, &stop_ids);
            assert_eq!(ours, expected, "{checkpoint}: {}", golden["messages"]);
            let mut detokenizer = loaded.processor.detokenizer();
            let mut text: String = ours.iter().map(|id| detokenizer.push(*id)).collect();
            text += &detokenizer.finish();
            assert_eq!(text, golden["f32"]["text"].as_str().unwrap());
            prompts += 1;
        }
    }
    assert!(prompts >= 60, "{prompts} prompts");
}

/// known-bugs 12: lengths at the window ± 1, at a block ± 1, and across several of each.
#[test]
fn known_bug_12_every_length_around_window_and_block_gives_the_oracles_logits() {
    for checkpoint in CHECKPOINTS {
        let loaded = load_model(checkpoint, DType::F32);
        let golden = golden_json(&format!("{checkpoint}/long.json"));
        let all = ids(&golden["ids"]);
        for golden in golden["prompts"].as_array().unwrap() {
            let length = golden["length"].as_u64().unwrap() as usize;
            let top_ids = ids(&golden["top_ids"]);
            let top: Vec<f32> =
                golden["top_values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let logits =
                values(&prefill(&loaded, &text_prompt(&all[..length]), length, PromptDepth::CacheOnly));
            let ours: Vec<f32> = top_ids.iter().map(|id| logits[*id as usize]).collect();
            let error = rel_l2(&ours, &top);
            assert!(error < reordered(checkpoint), "{checkpoint}, {length} tokens: {error:.2e}");
        }
    }
}

/// known-bugs 5: what a shared layer reads, and so every logit, does not depend on how the prompt is cut.
#[test]
fn known_bug_05_the_chunk_size_changes_no_logit() {
    for checkpoint in CHECKPOINTS {
        let loaded = load_model(checkpoint, DType::F32);
        let all = ids(&golden_json(&format!("{checkpoint}/long.json"))["ids"]);
        let prompt = text_prompt(&all[..all.len().min(100)]);
        let whole = values(&prefill(&loaded, &prompt, usize::MAX, PromptDepth::CacheOnly));
        for chunk_len in [1, 2, 7, 15, 16, 17, 31, 33, 64, 99] {
            let cut = values(&prefill(&loaded, &prompt, chunk_len, PromptDepth::CacheOnly));
            let error = rel_l2(&cut, &whole);
            assert!(error < reordered(checkpoint), "{checkpoint}, chunks of {chunk_len}: {error:.2e}");
        }
    }
}

/// An image may lie across any number of chunks.
#[test]
fn the_chunk_size_changes_no_logit_of_a_prompt_with_two_images() {
    for checkpoint in ["shapes", "e2b-like", "e4b-like"] {
        let loaded = load_model(checkpoint, DType::F32);
        let goldens = golden_json(&format!("{checkpoint}/greedy.json"));
        let with_images = goldens
            .as_array()
            .unwrap()
            .iter()
            .filter(|golden| golden["messages"].to_string().matches("\"path\"").count() >= 1);
        for golden in with_images.take(3) {
            let prompt = loaded.processor.encode(&chat_prompt(&golden["messages"])).unwrap();
            let whole = values(&prefill(&loaded, &prompt, usize::MAX, PromptDepth::CacheOnly));
            for chunk_len in [1, 16, 50] {
                let cut = values(&prefill(&loaded, &prompt, chunk_len, PromptDepth::CacheOnly));
                let error = rel_l2(&cut, &whole);
                assert!(error < reordered(checkpoint), "{checkpoint}, chunks of {chunk_len}: {error:.2e}");
            }
        }
    }
}

/// Prompt tokens that nobody samples from may stop at the last layer that owns keys and values.
#[test]
fn the_prompt_shortcut_changes_no_logit() {
    for checkpoint in CHECKPOINTS {
        let loaded = load_model(checkpoint, DType::F32);
        let all = ids(&golden_json(&format!("{checkpoint}/long.json"))["ids"]);
        let prompt = text_prompt(&all[..64]);
        for chunk_len in [64, 10] {
            let short = values(&prefill(&loaded, &prompt, chunk_len, PromptDepth::CacheOnly));
            let deep = values(&prefill(&loaded, &prompt, chunk_len, PromptDepth::AllLayers));
            let error = rel_l2(&short, &deep);
            assert!(error < reordered(checkpoint), "{checkpoint}, chunks of {chunk_len}: {error:.2e}");
        }
    }
}

#[test]
fn decoding_token_by_token_gives_the_logits_of_one_prefill() {
    for checkpoint in CHECKPOINTS {
        let loaded = load_model(checkpoint, DType::F32);
        let all = ids(&golden_json(&format!("{checkpoint}/long.json"))["ids"]);
        let mut run = Run::new(loaded.model.as_ref(), all.len());
        run.forward(&mut NoTap, &all[..40], None, LAST);
        for end in 41..=90 {
            let step = values(&run.forward(&mut NoTap, &all[end - 1..end], None, LAST));
            if end % 7 == 0 {
                let whole =
                    values(&prefill(&loaded, &text_prompt(&all[..end]), usize::MAX, PromptDepth::CacheOnly));
                let error = rel_l2(&step, &whole);
                assert!(error < reordered(checkpoint), "{checkpoint}, {end} tokens: {error:.2e}");
            }
        }
    }
}

/// known-bugs 10: two images in one prompt do not mix: changing the second changes no row before it.
#[test]
fn known_bug_10_the_second_image_does_not_reach_the_first() {
    let loaded = load_model("shapes", DType::F32);
    let prompt = |second: &str| {
        let messages = serde_json::json!([{"role": "user", "content": [
            {"type": "image", "path": "images/red_circle.png"},
            {"type": "text", "text": "and"},
            {"type": "image", "path": second},
        ]}]);
        loaded.processor.encode(&chat_prompt(&messages)).unwrap()
    };
    let (a, b) = (prompt("images/pink_square.png"), prompt("images/gray_triangle.png"));
    assert_eq!(a.input_ids, b.input_ids);
    let second = a.images[1].tokens.clone();
    let logits = |prompt: &EncodedPrompt| -> Vec<Vec<f32>> {
        let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
        let soft = run.encode_images(&mut NoTap, prompt);
        run.forward(&mut NoTap, &prompt.input_ids, soft.as_ref(), pyrex_tests::ALL).to_vec2().unwrap()
    };
    let (a, b) = (logits(&a), logits(&b));
    assert!(rel_l2(&a[..second.start].concat(), &b[..second.start].concat()) < reordered("shapes"));
    assert!(rel_l2(&a[second.clone()].concat(), &b[second].concat()) > 1e-3);
}

/// A prompt after others, on the cache they used, gives the tokens it gives alone. (known-bugs 7)
#[test]
fn known_bug_07_sequential_requests_on_one_engine_do_not_disturb_each_other() {
    let engine = Engine::open(options(model_dir("shapes"))).unwrap();
    let goldens = golden_json("shapes/greedy.json");
    let goldens = goldens.as_array().unwrap();
    for golden in goldens.iter().chain(goldens.iter().rev().take(5)) {
        let sampling = SamplingParams { max_tokens: Some(64), ..SamplingParams::default() };
        let request = Request::new(chat_prompt(&golden["messages"])).with_sampling(sampling);
        let answer = engine.submit(request).unwrap().wait().unwrap();
        assert_eq!(answer.text, golden["f32"]["text"].as_str().unwrap());
        assert_eq!(answer.token_ids, ids(&golden["f32"]["ids"]));
    }
}
