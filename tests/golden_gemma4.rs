//! Gemma 4 against tensors of the reference: every tap of every case, within what the reference's own rounding leaves open.
//!
//! The goldens are the reference run in f64. Beside each stands how far the reference's own f32 and bf16 runs are from it.

use candle_core::DType;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_tests::{ALL, CHECKPOINTS, F32_FACTOR, Golden, GoldenTap, Recorder, Run, chat_prompt, load_model};
use std::collections::BTreeMap;

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

/// Runs a case with every tap open; `(name, golden, our error)` of each golden tap.
fn errors(checkpoint: &str, case: &str, dtype: DType) -> Vec<(String, GoldenTap, f64)> {
    let golden = Golden::read(checkpoint, case);
    let loaded = load_model(checkpoint, dtype);
    let prompt: EncodedPrompt = loaded.processor.encode(&chat_prompt(&golden.messages)).unwrap();
    assert_eq!(prompt.input_ids, golden.input_ids);
    let mut tap = Recorder::default();
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
    let soft = run.encode_images(&mut tap, &prompt);
    run.forward(&mut tap, &prompt.input_ids, soft.as_ref(), ALL);
    let taps = golden.taps.into_iter().filter(|(name, _)| !name.starts_with("prep."));
    let errors = taps.map(|(name, golden)| {
        let ours = tap.seen.get(&name).unwrap_or_else(|| panic!("{checkpoint} {case}: no tap {name}"));
        let error = golden.rel_l2(ours);
        assert!(error.is_finite(), "{checkpoint} {case}: {name} is {error}");
        (name, golden, error)
    });
    let errors: Vec<_> = errors.collect();
    assert!(errors.len() >= 20, "only {} taps", errors.len());
    errors
}

#[test]
fn f32_taps_are_as_close_to_the_oracle_as_the_reference_is() {
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            let bound = |golden: &GoldenTap| F32_FACTOR * golden.f32_noise.max(F32_FLOOR);
            let mut errors = errors(checkpoint, case, DType::F32);
            errors.sort_by(|(_, a, a_error), (_, b, b_error)| {
                (b_error / bound(b)).total_cmp(&(a_error / bound(a)))
            });
            let (name, golden, error) = &errors[0];
            let bound = bound(golden);
            println!("{checkpoint} {case}: worst {error:.2e} of {bound:.2e} at {name}");
            assert!(
                *error <= bound,
                "{checkpoint} {case}: {name} is {error:.2e} from the oracle, bound {bound:.2e}"
            );
        }
    }
}

/// bf16 noise has heavy tails: one tap of one case says little, so the squares are summed over the layers and cases
/// that have a tap in common. A rounding in the wrong place shows in its own kind of tap.
#[test]
fn bf16_taps_are_as_close_to_the_oracle_as_the_reference_is() {
    let mut kinds: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            for (name, golden, error) in errors(checkpoint, case, DType::BF16) {
                let sums = kinds.entry(kind_of(&name)).or_default();
                sums.0 += error * error;
                sums.1 += golden.bf16_noise * golden.bf16_noise;
            }
        }
    }
    let ratio = |(ours, theirs): (f64, f64)| (ours / theirs.max(F32_FLOOR * F32_FLOOR)).sqrt();
    for (kind, sums) in &kinds {
        println!("{:.2} {kind}", ratio(*sums));
    }
    let failures: Vec<_> = kinds.iter().filter(|(_, sums)| ratio(**sums) > BF16_FACTOR).collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// The name of a tap without the number of its layer.
fn kind_of(name: &str) -> String {
    name.split('.')
        .map(|part| if part.parse::<usize>().is_ok() { "N" } else { part })
        .collect::<Vec<_>>()
        .join(".")
}

/// bf16 weights under f32 activations, the CPU's default: no rounding of ours comes near the reference's bf16.
#[test]
fn f32_activations_over_bf16_weights_are_a_hundred_times_closer_than_the_references_bf16() {
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            for (name, golden, error) in
                errors(checkpoint, case, DType::F32).iter().filter(|(name, ..)| name == "logits")
            {
                assert!(100.0 * error < golden.bf16_noise, "{checkpoint} {case} {name}: {error:.2e}");
            }
        }
    }
}
