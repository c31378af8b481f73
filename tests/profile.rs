//! Profiles of real passes: every tap once, no time counted twice, the work that the shapes ask for, and the same logits.

use candle_core::{DType, Device, Tensor};
use pyrex_core::diag::pass::{Pass, Rows};
use pyrex_core::diag::profile::{
    Ceilings, GroupBy, Operation, OperationKind, Profile, ProfileOptions, ProfilePhase, Stopwatch, profile,
};
use pyrex_core::models::{LoadFormat, LoadedModel, Model, ModelSource, describe, load};
use pyrex_core::prompt::{Chat, EncodedPrompt, Message, Part};
use pyrex_core::trace::{NoTap, Origin, Tap};
use pyrex_core::{ErrorKind, Prompt, Result};
use pyrex_tests::{golden_dir, load_model, load_options, model_dir};
use std::time::{Duration, Instant};

/// Given, so that none are measured.
const CEILINGS: Ceilings = Ceilings { flops_per_s: 1e9, bytes_per_s: 1e9 };

fn options(steps: usize, repetitions: usize) -> ProfileOptions {
    ProfileOptions { steps, repetitions, num_threads: Some(2), ceilings: Some(CEILINGS) }
}

fn with_picture(loaded: &LoadedModel) -> EncodedPrompt {
    let image = std::fs::read(golden_dir().join("images/red_circle.png")).unwrap();
    let parts = vec![Part::Image(image.into()), Part::Text("What is it?".into())];
    loaded.processor.encode(&Prompt::Chat(Chat::new(vec![Message::parts("user", parts)]))).unwrap()
}

fn text(loaded: &LoadedModel) -> EncodedPrompt {
    loaded.processor.encode(&Prompt::Text("A red circle and a blue square.".into())).unwrap()
}

/// The names of all taps, in order.
#[derive(Default)]
struct Names(Vec<String>);

impl Tap for Names {
    fn watching(&self) -> bool {
        true
    }

    fn watching_steps(&self) -> bool {
        false
    }

    fn visit(&mut self, name: &str, _: &Tensor, _: Origin) -> Result<Option<Tensor>> {
        self.0.push(name.to_string());
        Ok(None)
    }
}

/// One prompt and one step; returns the logits of both.
fn run(
    model: &dyn Model,
    prompt: &EncodedPrompt,
    mut tap: impl FnMut(&mut Pass<'_>, bool) -> Tensor,
) -> Vec<Tensor> {
    let mut pass = Pass::new(model, prompt.input_ids.len() + 1).unwrap();
    vec![tap(&mut pass, false), tap(&mut pass, true)]
}

fn step(pass: &mut Pass<'_>, tap: &mut dyn Tap, prompt: &EncodedPrompt, decode: bool) -> Tensor {
    match decode {
        true => pass.decode(tap, 7).unwrap(),
        false => pass.prefill(tap, prompt, Rows::Last).unwrap(),
    }
}

fn operation<'a>(phase: &'a ProfilePhase, tap: &str) -> &'a Operation {
    let found: Vec<_> = phase.operations.iter().filter(|operation| operation.tap == tap).collect();
    assert_eq!(found.len(), 1, "{tap}");
    found[0]
}

#[test]
fn every_tap_is_an_operation_once() {
    let mut loaded = load_model("shapes", DType::F32);
    let prompt = with_picture(&loaded);
    let mut names = [Names::default(), Names::default()];
    run(&*loaded.model, &prompt, |pass, decode| step(pass, &mut names[usize::from(decode)], &prompt, decode));
    let found = profile(&mut loaded, &prompt, &options(2, 2)).unwrap();
    let taps = |phase: &ProfilePhase| -> Vec<String> {
        phase.operations.iter().map(|operation| operation.tap.clone()).collect()
    };
    assert_eq!(taps(&found.prompt), names[0].0);
    assert_eq!(taps(found.decode.as_ref().unwrap()), names[1].0);
    assert_eq!((found.image_tokens, found.steps, found.repetitions, found.num_threads), (64, 2, 2, 2));
    for by in [GroupBy::Operation, GroupBy::Layer, GroupBy::Stage] {
        let rows = found.prompt.rows(by, found.ceilings.as_ref());
        assert_eq!(rows.iter().map(|row| row.calls).sum::<usize>(), names[0].0.len(), "{by:?}");
    }
}

#[test]
fn operations_and_watching_take_no_longer_than_the_pass() {
    let mut loaded = load_model("shapes", DType::F32);
    let prompt = with_picture(&loaded);
    // A median of one is a pass that happened.
    let found = profile(&mut loaded, &prompt, &options(1, 1)).unwrap();
    for phase in [&found.prompt, found.decode.as_ref().unwrap()] {
        let (explained, wall) = (phase.operations_ms() + phase.overhead_ms, phase.wall_ms);
        // Milliseconds are sums of rounded nanoseconds.
        assert!(explained <= wall + 1e-6, "{explained} ms of {wall}");
        assert!((phase.explained - phase.operations_ms() / wall).abs() < 1e-6, "{}", phase.explained);
        assert!(phase.overhead_ms > 0.0 && phase.operations.iter().any(|operation| operation.time_ms > 0.0));
    }
}

#[test]
fn the_stopwatch_leaves_out_names_and_what_comes_before_a_layer() {
    const LONG: Duration = Duration::from_millis(40);
    let take_long = |name: &str| {
        let started = Instant::now();
        while started.elapsed() < LONG {}
        name.to_string()
    };
    let mut watch = Stopwatch::start(&Device::Cpu);
    let tap: &mut dyn Tap = &mut watch;
    let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let x = tap.see(|| take_long("a"), x).unwrap();
    take_long("between");
    tap.proceed().unwrap();
    let x = tap.see(|| "b".to_string(), x).unwrap();
    take_long("c");
    tap.see(|| "c".to_string(), (x + 1.0).unwrap()).unwrap();
    let lap = watch.stop();
    let [a, b, c] = &lap.visits[..] else { panic!("{lap:?}") };
    assert!(a.time < LONG && b.time < LONG && c.time >= LONG && lap.overhead >= LONG, "{lap:?}");
    assert!(lap.wall >= 3 * LONG, "{lap:?}");
    assert_eq!([a, b, c].map(|visit| visit.shown_before), [false, true, false]);
    assert_eq!((&c.shape[..], c.dtype), (&[2, 3][..], DType::F32));
}

#[test]
fn watching_changes_no_bit_of_the_logits() {
    for dtype in [DType::F32, DType::BF16] {
        let loaded = load_model("shapes", dtype);
        let prompt = with_picture(&loaded);
        let unwatched = run(&*loaded.model, &prompt, |pass, decode| step(pass, &mut NoTap, &prompt, decode));
        let watched = run(&*loaded.model, &prompt, |pass, decode| {
            let mut watch = Stopwatch::start(&Device::Cpu);
            let logits = step(pass, &mut watch, &prompt, decode);
            assert!(watch.stop().visits.len() > 50);
            logits
        });
        let bits = |logits: &Tensor| -> Vec<u32> {
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        for (a, b) in unwatched.iter().zip(&watched) {
            assert_eq!(bits(a), bits(b), "{dtype:?}");
        }
    }
}

#[test]
fn known_operations_of_the_bundled_model_cost_what_they_should() {
    let mut loaded = load_model("shapes", DType::F32);
    let prompt = with_picture(&loaded);
    let found = profile(&mut loaded, &prompt, &options(3, 1)).unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(model_dir("shapes").join("config.json")).unwrap()).unwrap();
    let size = |part: &str, field: &str| config[part][field].as_u64().unwrap();
    let (text, vision) = (|field| size("text_config", field), |field| size("vision_config", field));
    let (hidden, vocab, mlp) = (text("hidden_size"), text("vocab_size"), text("intermediate_size"));
    let decode = found.decode.as_ref().unwrap();
    let head = operation(decode, "lm_head");
    assert_eq!(
        (head.stage, head.kind, head.cost.flops),
        ("head", OperationKind::Product, 2 * vocab * hidden)
    );
    let gate = operation(decode, "model.language_model.layers.0.mlp.gate_proj");
    assert_eq!((gate.layer, gate.operation.as_str()), (Some(0), "mlp.gate_proj"));
    assert_eq!(gate.origin.short_function(), "Linear::forward");
    assert_eq!(gate.cost.flops, 2 * mlp * hidden);
    // The window of 64 is full at the middle step, the second: position 80.
    let (heads, head_dim) = (text("num_attention_heads"), text("head_dim"));
    let attention = operation(decode, "model.language_model.layers.0.self_attn.o_proj.input");
    assert_eq!((attention.kind, attention.cost.flops), (OperationKind::Attention, 4 * heads * head_dim * 64));
    // Vision: 24 × 24 patches, open.
    let width = vision("num_attention_heads") * vision("head_dim");
    let attention = operation(&found.prompt, "model.vision_tower.encoder.layers.0.self_attn.o_proj.input");
    assert_eq!(attention.cost.flops, 4 * width * 576 * 576);
    assert_eq!(attention.cost.bytes, 4 * 576 * width * 4);
    let shown = operation(decode, "model.language_model.layers.0.self_attn");
    assert_eq!((shown.kind, shown.cost.bytes), (OperationKind::Shown, 0));
}

/// Bytes of weights that `phase` reads, those that it looks up aside.
fn weight_bytes(phase: &ProfilePhase) -> u64 {
    let read = phase.operations.iter().filter(|operation| operation.kind != OperationKind::Lookup);
    read.map(|operation| operation.cost.weight_bytes).sum()
}

/// The figure that `describe` has covers every weight of a step: products, norms and the layers' scalars; of the two
/// embedding tables a step reads a row each, which are in the profile and not in that figure.
#[test]
fn a_decode_step_reads_the_weights_that_the_description_says() {
    for (name, format) in [
        ("shapes", LoadFormat::Safetensors),
        ("shapes", LoadFormat::Dummy),
        ("e2b-like", LoadFormat::Safetensors),
        ("e4b-like", LoadFormat::Dummy),
        ("text-only", LoadFormat::Safetensors),
    ] {
        let source = ModelSource::Path(model_dir(name));
        let mut loaded = load(&load_options(source.clone(), DType::F32, format)).unwrap();
        let prompt = text(&loaded);
        let found = profile(&mut loaded, &prompt, &options(1, 1)).unwrap();
        let decode = found.decode.as_ref().unwrap();
        assert_eq!(weight_bytes(decode), expected_bytes(&source, format), "{name} {format:?}");
    }
}

/// What a token reads: as the description says; dummy weights take two bytes an element whatever the files have.
fn expected_bytes(source: &ModelSource, format: LoadFormat) -> u64 {
    let described = match format {
        LoadFormat::Safetensors => source.clone(),
        LoadFormat::Dummy => {
            let config = source.require("config.json").unwrap().into_owned();
            pyrex_tests::in_memory([("config.json".to_string(), config)].into())
        }
    };
    describe(&described).unwrap().decode_bytes
}

#[test]
fn a_prompt_alone_is_measured_without_steps() {
    let mut loaded = load_model("text-only", DType::F32);
    let prompt = text(&loaded);
    let found: Profile = profile(&mut loaded, &prompt, &options(0, 1)).unwrap();
    assert!(found.decode.is_none() && found.image_tokens == 0);
    assert!(found.prompt.operations.iter().all(|operation| operation.stage != "vision tower"));
    let total = found.prompt.total(found.ceilings.as_ref());
    assert!(total.share_of_ceiling().is_some_and(|share| share > 0.0), "{total:?}");
}

#[test]
fn nothing_to_measure_is_an_error() {
    let mut loaded = load_model("text-only", DType::F32);
    let prompt = text(&loaded);
    let kind = |options, loaded: &mut LoadedModel| profile(loaded, &prompt, &options).unwrap_err().kind();
    assert_eq!(kind(options(1, 0), &mut loaded), ErrorKind::InvalidRequest);
    assert_eq!(
        kind(ProfileOptions { num_threads: Some(0), ..options(1, 1) }, &mut loaded),
        ErrorKind::InvalidRequest
    );
    assert_eq!(kind(options(1 << 30, 1), &mut loaded), ErrorKind::InvalidRequest);
}
