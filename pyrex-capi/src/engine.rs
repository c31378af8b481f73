//! `pyrex_engine_t`: a model that answers requests.

use crate::abi::{Growing, Out, array, c_text, object, take_back, write_growing};
use crate::files::{pyrex_file_t, take_files};
use crate::guard::{Home, Result, caught, guard};
use crate::log::Log;
use crate::options::{Opening, opening, pyrex_engine_options_t};
use crate::status::{c_string, pyrex_status_t};
use pyrex_core::{Engine, ModelSource};
use std::ffi::{CString, c_char};
use std::mem;
use std::time::Duration;

/// A model that answers requests, with threads of its own. May be used from any number of threads at once.
pub struct pyrex_engine_t {
    engine: Engine,
    family: CString,
    log: Option<Log>,
    home: Home,
}

impl pyrex_engine_t {
    /// An engine that was opened in Rust.
    pub fn new(engine: Engine) -> Self {
        Self { family: c_string(engine.spec().family.to_owned()), engine, log: None, home: Home::here() }
    }

    fn open(Opening { options, log }: Opening) -> Result<Self> {
        let opened = Engine::open(options).inspect_err(|_| log.iter().for_each(Log::close))?;
        Ok(Self { log, ..Self::new(opened) })
    }
}

/// Runs `body` with the engine behind a handle. A panic closes it: what it was doing is in doubt.
///
/// # Safety
/// As [`object`].
pub(crate) unsafe fn with_engine(
    engine: *const pyrex_engine_t,
    body: impl FnOnce(&Engine) -> Result<()>,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        // SAFETY: the caller's promise.
        let engine = object("engine", engine)?;
        engine.home.check()?;
        caught(|| body(&engine.engine)).inspect_err(|failure| {
            if failure.status == pyrex_status_t::PYREX_PANIC {
                engine.engine.drain(Duration::ZERO);
            }
        })
    })
}

/// As [`with_engine`], for what gives something new: the pointer to it is NULL whatever goes wrong, the engine's refusal included.
///
/// # Safety
/// As [`with_engine`] and [`Out::object`].
pub(crate) unsafe fn with_engine_giving<T>(
    engine: *const pyrex_engine_t,
    (name, pointer): (&str, *mut *mut T),
    body: impl FnOnce(&Engine, Out<*mut T>) -> Result<()>,
) -> pyrex_status_t {
    // SAFETY: the caller's promise.
    unsafe {
        let out = Out::object(name, pointer);
        with_engine(engine, |engine| body(engine, out?))
    }
}

/// Opens the model in the folder `model` (UTF-8), as `save_pretrained` writes it, and starts the engine's threads. `options`
/// may be NULL.
///
/// Blocks until the model is loaded; `progress` in the options can end that. Weight files are mapped, not copied: they must not
/// be rewritten or shortened while the engine lives. `*engine` is to be freed with pyrex_engine_free(), and NULL on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_open(
    model: *const c_char,
    options: *const pyrex_engine_options_t,
    engine: *mut *mut pyrex_engine_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("engine", engine)?;
        let source = ModelSource::Path(c_text("model", model)?.into());
        out.give(pyrex_engine_t::open(opening(source, options)?)?);
        Ok(())
    })
}

/// As pyrex_engine_open(), with the files of the model in memory: `config.json`, `tokenizer.json`, `model.safetensors` and
/// whatever else the folder would have.
///
/// The bytes are not copied. Whether this succeeds or not, the `release` of every file is called exactly once, from any thread,
/// when its bytes are needed no more; that may be a moment after pyrex_engine_free() has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_open_files(
    files: *const pyrex_file_t,
    num_files: usize,
    options: *const pyrex_engine_options_t,
    engine: *mut *mut pyrex_engine_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("engine", engine);
        let files = take_files(array("files", files, num_files)?);
        out?.give(pyrex_engine_t::open(opening(ModelSource::Memory(files?), options)?)?);
        Ok(())
    })
}

/// What an engine is made of. Written by pyrex_engine_info(); set `struct_size` before.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_engine_info_t {
    /// sizeof(pyrex_engine_info_t).
    pub struct_size: usize,
    /// The family of the model, such as "gemma4". Lives as long as the engine.
    pub family: *const c_char,
    /// Entries of the vocabulary.
    pub vocab_size: u64,
    /// The longest sequence, prompt and answer together.
    pub max_model_len: u64,
    /// The most tokens one step computes.
    pub max_batch_tokens: u64,
    /// The most sequences one step computes.
    pub max_sequences: u64,
    /// The most requests that wait.
    pub max_waiting: u64,
    /// How many events of one request wait to be read before it pauses.
    pub max_events: u64,
    /// How long loading took.
    pub load_ms: f64,
    /// 1 if the model reads images, else 0.
    pub reads_images: i32,
    /// The id that stands where an image is, if it does.
    pub image_token_id: u32,
    /// How the checkpoint wants to be sampled; 0 where it says nothing.
    pub recommended_temperature: f32,
    /// As above.
    pub recommended_top_p: f32,
    /// As above.
    pub recommended_top_k: u64,
}

// SAFETY: numbers and a pointer, 4-byte fields in pairs.
unsafe impl Growing for pyrex_engine_info_t {
    const NAME: &str = "pyrex_engine_info_t";
}

/// Tells what an engine is made of.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_info(
    engine: *const pyrex_engine_t,
    info: *mut pyrex_engine_info_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let engine = object("engine", engine)?;
        engine.home.check()?;
        let (spec, config) = (engine.engine.spec(), engine.engine.config());
        let value = pyrex_engine_info_t {
            struct_size: 0,
            family: engine.family.as_ptr(),
            vocab_size: spec.vocab_size as u64,
            max_model_len: config.max_model_len as u64,
            max_batch_tokens: config.max_batch_tokens as u64,
            max_sequences: config.max_sequences as u64,
            max_waiting: config.max_waiting as u64,
            max_events: config.max_events as u64,
            load_ms: engine.engine.load_ms(),
            reads_images: spec.image_token_id.is_some().into(),
            image_token_id: spec.image_token_id.unwrap_or(0),
            recommended_temperature: spec.sampling.temperature.unwrap_or(0.0),
            recommended_top_p: spec.sampling.top_p.unwrap_or(0.0),
            recommended_top_k: spec.sampling.top_k.unwrap_or(0) as u64,
        };
        write_growing("info", info, &value)
    })
}

/// Tests the engine by a real forward pass: it answers a prompt twice, once token by token and once reading its own answer
/// back, and both must agree. Blocks, for up to `timeout_ms`.
///
/// PYREX_INTERNAL if the two disagree, PYREX_DEADLINE_EXCEEDED if it took too long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_probe(
    engine: *const pyrex_engine_t,
    timeout_ms: u64,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    unsafe { with_engine(engine, |engine| Ok(engine.probe(Duration::from_millis(timeout_ms))?)) }
}

/// Takes no more requests, waits up to `timeout_ms` until those that are live have ended, and closes the engine. Those that are
/// cut off end with PYREX_CLOSED; how many they are goes to `*num_cut_off`, which may be NULL. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_drain(
    engine: *const pyrex_engine_t,
    timeout_ms: u64,
    num_cut_off: *mut u64,
) -> pyrex_status_t {
    let drain = |engine: &Engine| {
        let num_left = engine.drain(Duration::from_millis(timeout_ms));
        // SAFETY: what the header asks of every caller.
        if let Ok(out) = unsafe { Out::new("num_cut_off", num_cut_off) } {
            out.set(num_left as u64);
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { with_engine(engine, drain) }
}

/// Frees an engine; NULL is fine. Does not wait for its requests: those that are live end with PYREX_CLOSED, and are still to be
/// freed, before or after. No other thread may be in a call on this engine. In a forked process it does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_engine_free(engine: *mut pyrex_engine_t) {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let Some(engine) = take_back(engine) else { return Ok(()) };
        if !engine.home.is_here() {
            // Its threads are not here, and may have held its locks when the process was forked.
            mem::forget(engine);
            return Ok(());
        }
        let pyrex_engine_t { engine, log, .. } = *engine;
        drop(engine);
        log.iter().for_each(Log::close);
        Ok(())
    });
}
