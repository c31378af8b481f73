//! The checkpoint: whether it can be read, what of it runs, and what it needs.

use super::check::{Check, bytes};
use super::machine::Memory;
use crate::fail::Failure;
use crate::serve::EngineSettings;
use pyrex_core::{
    ActivationDtype, DeviceChoice, Engine, EngineOptions, ErrorKind, KvCacheSize, ModelDescription,
    ModelSource, describe,
};
use std::time::{Duration, Instant};

/// How long the self-test may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(300);

/// The checks of the checkpoint, none of which loads it.
pub(super) fn checks(settings: &EngineSettings, memory: Memory) -> Vec<Check> {
    let source = match settings.source() {
        Ok(source) => source,
        Err(failure) => return vec![unreadable(said(failure))],
    };
    let model = match describe(&source) {
        Ok(model) => model,
        Err(error) => return vec![unreadable(error.to_string())],
    };
    let mut checks = vec![what_it_is(settings, &model)];
    checks.extend(files(&source));
    checks.extend(needs(settings, &model, memory));
    checks
}

fn unreadable(found: String) -> Check {
    Check::fail(
        "model",
        found,
        "expected a folder as save_pretrained writes it, of an architecture that Pyrex knows",
    )
}

fn what_it_is(settings: &EngineSettings, model: &ModelDescription) -> Check {
    let name =
        settings.model.as_ref().map_or("the bundled model".to_owned(), |path| path.display().to_string());
    let size = format!("{name}: {}, {} of weights", model.architecture, bytes(model.num_bytes()));
    match (model.unsupported.as_slice(), model.components.is_empty()) {
        ([], _) => Check::ok("model", size),
        (what, true) => {
            Check::fail("model", what.join("; "), "this build cannot run it: pyrex inspect shows more")
        }
        (what, false) => Check::warn("model", size, what.join("; ")),
    }
}

/// What else must lie beside the weights.
fn files(source: &ModelSource) -> Vec<Check> {
    let has = |name| source.read(name).is_ok_and(|file| file.is_some());
    let mut checks = Vec::new();
    if !has("tokenizer.json") {
        let advice = "without it nothing can be asked: copy it from where the weights come from";
        checks.push(Check::fail("tokenizer", format!("{source} has no tokenizer.json"), advice));
    }
    let config = source.read("tokenizer_config.json").ok().flatten();
    let inside = config.is_some_and(|config| config.windows(15).any(|text| text == b"\"chat_template\""));
    if !inside && !has("chat_template.jinja") && !has("chat_template.json") {
        let advice =
            "chats are refused, completions are answered: copy chat_template.jinja from the same place";
        checks.push(Check::warn("template", format!("{source} has no chat template"), advice));
    }
    checks
}

/// Whether memory is enough for the weights, and for the longest sequence in the cache.
fn needs(settings: &EngineSettings, model: &ModelDescription, memory: Memory) -> Option<Check> {
    let device = settings.device();
    if device != DeviceChoice::Cpu {
        let advice = "give --kv-cache in bytes";
        return Some(Check::warn("fit", format!("how much memory {device} has is not known"), advice));
    }
    let longest = config_number(model, "max_position_embeddings")?;
    let len = settings.max_model_len.unwrap_or(EngineOptions::DEFAULT_MAX_MODEL_LEN.min(longest));
    if len > longest {
        let found = format!("max_model_len is {len}, the model was made for up to {longest}");
        return Some(Check::fail("fit", found, format!("give --max-model-len {longest} or less")));
    }
    let element: u64 = match settings.dtype() {
        ActivationDtype::F32 => 4,
        ActivationDtype::Bf16 => 2,
    };
    let sequence = model.kv_elements_per_token as u64 * element * len as u64;
    let all =
        sequence.saturating_mul(settings.max_sequences.unwrap_or(device.default_max_sequences()) as u64);
    let cache = match settings.kv_cache.unwrap_or_default().0 {
        KvCacheSize::Auto => all.min((memory.free / 4).max(sequence)),
        KvCacheSize::Bytes(asked) => asked as u64,
        KvCacheSize::FreeFraction(share) => (memory.free as f64 * share) as u64,
    };
    Some(fit(Need { weights: model.num_bytes(), cache, len, sequence }, memory))
}

/// What a model takes, in bytes.
struct Need {
    weights: u64,
    cache: u64,
    /// Tokens of the longest sequence, and what they take at most.
    len: usize,
    sequence: u64,
}

fn fit(need: Need, memory: Memory) -> Check {
    let Need { weights, cache, len, sequence } = need;
    let found = format!(
        "weights {}, cache up to {}; a sequence of {len} tokens takes up to {}",
        bytes(weights),
        bytes(cache),
        bytes(sequence)
    );
    let needed = weights.saturating_add(cache);
    if cache > memory.free || needed > memory.total {
        let advice = "there is less memory than that: ask for a smaller --kv-cache or --max-model-len, or use a smaller model";
        return Check::fail("fit", found, advice);
    }
    match needed > memory.free {
        true => {
            let advice = "that is more than is free now: weights that were dropped are read from the disk again, which is slow";
            Check::warn("fit", found, advice)
        }
        false => Check::ok("fit", found),
    }
}

fn config_number(model: &ModelDescription, name: &str) -> Option<usize> {
    model.config.iter().find(|(field, _)| field == name)?.1.parse().ok()
}

/// Loads the model and lets it answer.
pub(super) fn self_test(settings: &EngineSettings) -> Check {
    let began = Instant::now();
    let tested = settings.options(None).and_then(|options| {
        let engine = Engine::open(options)?;
        engine.probe(PROBE_TIMEOUT)?;
        Ok(engine.load_ms())
    });
    match tested {
        Ok(load_ms) => {
            let ms = began.elapsed().as_secs_f64() * 1e3;
            Check::ok(
                "self-test",
                format!("loaded in {load_ms:.0} ms, and agrees with itself after {ms:.0} ms"),
            )
        }
        Err(failure) => Check::fail("self-test", said(failure), advice()),
    }
}

fn advice() -> String {
    let internal = ErrorKind::Internal.name();
    format!(
        "the model cannot be used here; if the engine contradicts itself ({internal}), see docs/bisecting.md"
    )
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Usage(message) | Failure::Other(message) => message,
        Failure::BrokenPipe | Failure::Findings => "nothing is known".to_owned(),
    }
}
