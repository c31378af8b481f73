//! Gemma 4 against tensors of the reference: every tap of every case, within what the reference's own rounding leaves open.
//!
//! The goldens are the reference run in f64. Beside each stands how far the reference's own f32 and bf16 runs are from it.

use candle_core::DType;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_tests::{ALL, CHECKPOINTS, Golden, Recorder, Run, chat_prompt, load_model};

/// Our f32 error may be this many times the reference's own. Both are rounding noise of another summation order, estimated
/// from as few as six rows, so single taps scatter around a ratio of one; a wrong constant shows as hundreds.
const F32_FACTOR: f64 = 3.0;
/// Where the reference has no noise (a copy, a table) ours may have a rounding: two units in the last place.
const F32_FLOOR: f64 = 1.2e-7;
/// Our bf16 error may be this many times the reference's own bf16 error.
const BF16_FACTOR: f64 = 1.5;

fn cases(checkpoint: &str) -> &'static [&'static str] {
    match checkpoint {
        "shapes" => &["text", "image", "two_images", "red_circle"],
        "text-only" => &["text"],
        _ => &["text", "image", "two_images"],
    }
}

/// Runs a case with every tap open and hands each golden tap's error to `bound`.
fn compare(checkpoint: &str, case: &str, dtype: DType, bound: impl Fn(&pyrex_tests::GoldenTap) -> f64) {
    let golden = Golden::read(checkpoint, case);
    let loaded = load_model(checkpoint, dtype);
    let prompt: EncodedPrompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
    assert_eq!(prompt.input_ids, golden.input_ids);
    let mut tap = Recorder::default();
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
    let soft = run.encode_images(&mut tap, &prompt);
    run.forward(&mut tap, &prompt.input_ids, soft.as_ref(), ALL);
    let (mut compared, mut worst) = (0, (0.0f64, ""));
    let mut failures = Vec::new();
    for (name, golden) in golden.taps.iter().filter(|(name, _)| !name.starts_with("prep.")) {
        let ours = tap.seen.get(name).unwrap_or_else(|| panic!("{checkpoint} {case}: no tap {name}"));
        let (error, bound) = (golden.rel_l2(ours), bound(golden));
        compared += 1;
        if error / bound > worst.0 {
            worst = (error / bound, name);
        }
        if error.is_nan() || error > bound {
            failures.push(format!("{name}: {error:.2e} > {bound:.2e}"));
        }
    }
    println!("{checkpoint} {case} {dtype:?}: {compared} taps, worst {:.2} of its bound at {}", worst.0, worst.1);
    assert!(compared >= 27, "only {compared} taps");
    assert!(failures.is_empty(), "{checkpoint} {case}: {} taps differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn f32_taps_are_as_close_to_the_oracle_as_the_reference_is() {
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            compare(checkpoint, case, DType::F32, |tap| F32_FACTOR * tap.f32_noise.max(F32_FLOOR));
        }
    }
}

#[test]
fn bf16_taps_are_as_close_to_the_oracle_as_the_reference_is() {
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            compare(checkpoint, case, DType::BF16, |tap| BF16_FACTOR * tap.bf16_noise.max(F32_FLOOR));
        }
    }
}
