//! `pyrex_engine_options_t`: how to open an engine.

use crate::abi::{Growing, optional_text, read_growing};
use crate::callback::HostData;
use crate::guard::Result;
use crate::log::{Log, pyrex_log_fn};
use crate::status::Failure;
use pyrex_core::{EngineOptions, Error, KvCacheSize, ModelSource, Progress};
use std::ffi::{c_char, c_void};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Told how many bytes of the weights were taken, and how many there are. Anything but 0 ends the opening, with
/// PYREX_CANCELLED. Called on a thread of the engine while the caller waits; must not unwind.
pub type pyrex_progress_fn =
    Option<unsafe extern "C" fn(progress_data: *mut c_void, done: u64, total: u64) -> i32>;

/// How to open an engine. Zero means the default everywhere: begin with a zeroed struct and set `struct_size`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_engine_options_t {
    /// sizeof(pyrex_engine_options_t).
    pub struct_size: usize,
    /// The device: "cpu", "cuda" or "cuda:1". NULL: "cpu".
    pub device: *const c_char,
    /// The dtype of the activations: "f32" or "bf16". NULL: f32 on the CPU and bf16 on CUDA.
    pub dtype: *const c_char,
    /// Threads that compute. 0: as many as there are cores.
    pub num_threads: u64,
    /// The longest sequence, prompt and answer together, in tokens. 0: the model's own limit or 8192, whichever is less.
    pub max_model_len: u64,
    /// The most tokens one step computes; a longer prompt is cut into chunks. 0: 512 on the CPU and 2048 on CUDA.
    pub max_batch_tokens: u64,
    /// The most sequences one step computes; later ones wait. 0: 16 on the CPU and 64 on CUDA.
    pub max_sequences: u64,
    /// The most requests that wait; one more is refused with PYREX_OVERLOADED. 0: 1024.
    pub max_waiting: u64,
    /// How many events of one request wait to be read before it pauses. 0: 256.
    pub max_events: u64,
    /// Bytes of the cache of keys and values. 0: by `kv_cache_fraction`.
    pub kv_cache_bytes: u64,
    /// The share of the memory, free once the model is loaded, that the cache may take: above 0 and up to 1.
    /// 0: room for `max_sequences` of the longest length, in up to a quarter of it on the CPU and
    /// three quarters on a GPU.
    pub kv_cache_fraction: f64,
    /// Anything but 0: a prompt that begins like an earlier one is computed anew.
    pub no_prefix_cache: i32,
    /// The most detailed level that `log` is told. 0: PYREX_LOG_INFO.
    pub log_level: i32,
    /// How long a request that nobody reads keeps its part of the cache, in milliseconds. 0: 1000.
    pub reader_timeout_ms: u64,
    /// How long one step may run before the engine counts as stuck, in milliseconds. 0: 120000.
    pub stuck_after_ms: u64,
    /// Told how far loading is; may end it. NULL: nobody.
    pub progress: pyrex_progress_fn,
    /// Handed to `progress`.
    pub progress_data: *mut c_void,
    /// Told the log of this engine. NULL: nobody. Not called any more once pyrex_engine_free() has returned.
    pub log: pyrex_log_fn,
    /// Handed to `log`.
    pub log_data: *mut c_void,
    /// The dtype of the vision tower's activations: "f32" or "bf16", which is faster on a GPU and less exact. NULL: "f32".
    pub vision_dtype: *const c_char,
    /// Where tables lie of which single rows are read, such as the per-layer embeddings: "device", or "host" to spare memory of a
    /// GPU. NULL: "device".
    pub tables: *const c_char,
}

// SAFETY: numbers and pointers, 4-byte fields in pairs.
unsafe impl Growing for pyrex_engine_options_t {
    const NAME: &str = "pyrex_engine_options_t";
}

/// What became of the options.
pub(crate) struct Opening {
    pub(crate) options: EngineOptions,
    pub(crate) log: Option<Log>,
}

/// Reads the options of a caller.
///
/// # Safety
/// `options` is NULL or points to a struct as the header describes it.
pub(crate) unsafe fn opening(source: ModelSource, options: *const pyrex_engine_options_t) -> Result<Opening> {
    // SAFETY: the caller's promise.
    let given = unsafe { read_growing(options)? };
    // SAFETY: the same: texts that end in 0, or NULL.
    let (device, tables, dtype, vision_dtype) = unsafe {
        (
            parsed("device", given.device)?,
            parsed("tables", given.tables)?,
            parsed("dtype", given.dtype)?,
            parsed("vision_dtype", given.vision_dtype)?,
        )
    };
    let defaults = EngineOptions::new(source);
    let log = Log::new(given.log, given.log_data);
    let options = EngineOptions {
        device: device.unwrap_or_default(),
        dtype,
        vision_dtype: vision_dtype.unwrap_or(defaults.vision_dtype),
        tables: tables.unwrap_or(defaults.tables),
        num_threads: some(given.num_threads),
        max_model_len: some(given.max_model_len),
        max_batch_tokens: some(given.max_batch_tokens),
        max_sequences: some(given.max_sequences),
        max_waiting: some(given.max_waiting).unwrap_or(defaults.max_waiting),
        max_events: some(given.max_events).unwrap_or(defaults.max_events),
        kv_cache: kv_cache(&given)?,
        prefix_cache: given.no_prefix_cache == 0,
        reader_timeout: millis(given.reader_timeout_ms).unwrap_or(defaults.reader_timeout),
        stuck_after: millis(given.stuck_after_ms).unwrap_or(defaults.stuck_after),
        progress: progress(&given),
        subscriber: log.as_ref().map(|log| log.subscriber(given.log_level)).transpose()?,
        ..defaults
    };
    Ok(Opening { options, log })
}

/// # Safety
/// As [`optional_text`].
pub(crate) unsafe fn parsed<T: FromStr<Err = Error>>(name: &str, text: *const c_char) -> Result<Option<T>> {
    // SAFETY: the caller's promise.
    let text = unsafe { optional_text(name, text)? };
    Ok(text.map(str::parse).transpose()?)
}

/// 0 is what nobody has set.
pub(crate) fn some(count: u64) -> Option<usize> {
    (count != 0).then(|| usize::try_from(count).unwrap_or(usize::MAX))
}

pub(crate) fn millis(count: u64) -> Option<Duration> {
    (count != 0).then(|| Duration::from_millis(count))
}

fn kv_cache(given: &pyrex_engine_options_t) -> Result<KvCacheSize> {
    match (some(given.kv_cache_bytes), given.kv_cache_fraction) {
        (None, 0.0) => Ok(KvCacheSize::Auto),
        (Some(bytes), 0.0) => Ok(KvCacheSize::Bytes(bytes)),
        (None, fraction) => Ok(KvCacheSize::FreeFraction(fraction)),
        (Some(bytes), fraction) => Err(Failure::invalid(format!(
            "kv_cache_bytes is {bytes} and kv_cache_fraction is {fraction}, expected one of them to be 0"
        ))),
    }
}

fn progress(given: &pyrex_engine_options_t) -> Option<Progress> {
    let (tell, data) = (given.progress?, HostData::new(given.progress_data));
    Some(Arc::new(move |done, total| {
        // SAFETY: a function of this type, as the header asks. Its data is there while the caller of `open` waits, and
        // nobody loads any more once that has returned.
        match unsafe { tell(data.pointer(), done, total) } {
            0 => Ok(()),
            _ => Err(Error::cancelled("opening was cancelled by its progress function")),
        }
    }))
}
