//! What a caller may choose when it opens an engine, and what becomes of it.
//!
//! [`EngineOptions`] leaves open what has a default; [`EngineConfig`] is resolved once, against the loaded model, and
//! nothing below sees an `Option`.

use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::models::load::{LoadFormat, LoadOptions, ModelSource, Progress};
use crate::models::{LoadedModel, ModelSpec};
use crate::ops;
use crate::weights::TablePlace;
use candle_core::{DType, Device};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tracing::Dispatch;

/// Where the model comes from.
pub enum ModelInput {
    /// Files, in a folder or in memory.
    Source(ModelSource),
    /// A model that somebody has loaded or written.
    Loaded(LoadedModel),
}

/// The device to run on: `cpu`, `cuda` or `cuda:n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// The CUDA device of this ordinal.
    Cuda(usize),
}

/// The dtype of the activations: `f32` or `bf16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

/// How large the cache of keys and values is. Blocks that were never used take no memory on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum KvCacheSize {
    /// Room for `max_sequences` of the longest length, in up to a quarter of the free memory on the CPU and three quarters
    /// on a GPU; for one in any case.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(usize),
    /// This share of the memory that is free once the model is loaded, above 0 and up to 1.
    FreeFraction(f64),
}

/// How to open an engine. Make one with [`EngineOptions::new`] and change its fields.
pub struct EngineOptions {
    /// The model.
    pub model: ModelInput,
    /// The device to run on.
    pub device: DeviceChoice,
    /// The dtype of the activations; f32 on the CPU and bf16 on CUDA if not given.
    pub dtype: Option<ActivationDtype>,
    /// The dtype of the vision tower's activations: f32 unless speed counts more than the reference's own numbers.
    pub vision_dtype: ActivationDtype,
    /// Where the tables lie of which single rows are read.
    pub tables: TablePlace,
    /// Threads that compute; as many as the machine has cores if not given.
    pub num_threads: Option<usize>,
    /// The longest sequence, prompt and answer together; the model's own limit or 8192 if not given, whichever is less.
    pub max_model_len: Option<usize>,
    /// The most tokens one step computes; 512 on the CPU and 2048 on CUDA if not given. A longer prompt is cut into chunks; the
    /// answer does not depend on it.
    pub max_batch_tokens: Option<usize>,
    /// The most sequences one step computes; 16 on the CPU and 64 on CUDA if not given. Those that come later wait. A request has
    /// one sequence per completion.
    pub max_sequences: Option<usize>,
    /// The most requests that wait; one more is refused as `Overloaded`.
    pub max_waiting: usize,
    /// How large the cache of keys and values is.
    pub kv_cache: KvCacheSize,
    /// Whether a prompt that begins like an earlier one is read from the cache as far as they agree.
    pub prefix_cache: bool,
    /// How many events of one request wait to be read before it pauses.
    pub max_events: usize,
    /// How long a paused request keeps its cache blocks.
    pub reader_timeout: Duration,
    /// How long one step may run before the engine says that it is stuck.
    pub stuck_after: Duration,
    /// Where the weights come from.
    pub load_format: LoadFormat,
    /// Told how far loading is; may end it.
    pub progress: Option<Progress>,
    /// Whom the engine tells of its spans and events; the subscriber of the process if not given.
    pub subscriber: Option<Dispatch>,
    /// Whether a step is launched before the tokens of the last one are read: `None` does so where it saves time.
    #[cfg(feature = "test-util")]
    pub runs_ahead: Option<bool>,
}

impl EngineOptions {
    /// The longest sequence unless the caller asks for more: longer ones cost cache memory.
    pub const DEFAULT_MAX_MODEL_LEN: usize = 8192;
    /// The most requests that wait unless the caller says otherwise.
    pub const DEFAULT_MAX_WAITING: usize = 1024;

    /// The defaults for this model.
    pub fn new(model: impl Into<ModelInput>) -> Self {
        Self {
            model: model.into(),
            device: DeviceChoice::default(),
            dtype: None,
            vision_dtype: ActivationDtype::F32,
            tables: TablePlace::default(),
            num_threads: None,
            max_model_len: None,
            max_batch_tokens: None,
            max_sequences: None,
            max_waiting: Self::DEFAULT_MAX_WAITING,
            kv_cache: KvCacheSize::default(),
            prefix_cache: true,
            max_events: 256,
            reader_timeout: Duration::from_secs(1),
            stuck_after: Duration::from_secs(120),
            load_format: LoadFormat::default(),
            progress: None,
            subscriber: None,
            #[cfg(feature = "test-util")]
            runs_ahead: None,
        }
    }
}

impl From<ModelSource> for ModelInput {
    fn from(source: ModelSource) -> Self {
        Self::Source(source)
    }
}

impl From<LoadedModel> for ModelInput {
    fn from(model: LoadedModel) -> Self {
        Self::Loaded(model)
    }
}

impl From<PathBuf> for ModelInput {
    fn from(path: PathBuf) -> Self {
        Self::Source(ModelSource::Path(path))
    }
}

impl From<&str> for ModelInput {
    fn from(path: &str) -> Self {
        Self::from(PathBuf::from(path))
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// `Unsupported` if this build has no CUDA, `Device` if there is no such device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => ops::cuda_device(ordinal),
        }
    }

    /// The most tokens one step computes where the caller does not say: a GPU is busy with more of them.
    pub fn default_max_batch_tokens(self) -> usize {
        match self {
            Self::Cpu => 512,
            Self::Cuda(_) => 2048,
        }
    }

    /// The most sequences one step computes where the caller does not say.
    pub fn default_max_sequences(self) -> usize {
        match self {
            Self::Cpu => 16,
            Self::Cuda(_) => 64,
        }
    }

    /// The dtype of the activations where the caller names none.
    pub fn default_dtype(self) -> ActivationDtype {
        match self {
            Self::Cpu => ActivationDtype::F32,
            Self::Cuda(_) => ActivationDtype::Bf16,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown =
            || Error::invalid_request(format_args!("device {text:?}, expected cpu, cuda or cuda:n"));
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl ActivationDtype {
    /// The tensor library's word for it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl FromStr for ActivationDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::invalid_request(format_args!("dtype {text:?}, expected f32 or bf16"))),
        }
    }
}

impl fmt::Display for ActivationDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// The limits an engine runs under, all defaults resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// The longest sequence, prompt and answer together.
    pub max_model_len: usize,
    /// The most tokens one step computes.
    pub max_batch_tokens: usize,
    /// The most sequences one step computes.
    pub max_sequences: usize,
    /// The most requests that wait.
    pub max_waiting: usize,
    /// How many events of one request wait to be read before it pauses.
    pub max_events: usize,
}

/// The options that are limits, before the model is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    max_model_len: Option<usize>,
    max_batch_tokens: usize,
    pub(crate) max_sequences: usize,
    max_waiting: usize,
    max_events: usize,
}

impl EngineOptions {
    pub(crate) fn limits(&self) -> Limits {
        let Self { max_model_len, max_waiting, max_events, .. } = *self;
        let max_batch_tokens = self.max_batch_tokens.unwrap_or(self.device.default_max_batch_tokens());
        let max_sequences = self.max_sequences.unwrap_or(self.device.default_max_sequences());
        Limits { max_model_len, max_batch_tokens, max_sequences, max_waiting, max_events }
    }
}

impl Limits {
    /// # Errors
    /// `InvalidRequest` if a limit is zero or beyond the model's own.
    pub(crate) fn resolve(self, spec: &ModelSpec) -> Result<EngineConfig> {
        let Self { max_model_len, max_batch_tokens, max_sequences, max_waiting, max_events } = self;
        let longest = spec.max_position_embeddings;
        let max_model_len = max_model_len.unwrap_or(longest.min(EngineOptions::DEFAULT_MAX_MODEL_LEN));
        if max_model_len == 0 || max_model_len > longest {
            return Err(Error::invalid_request(format_args!(
                "max_model_len is {max_model_len}, expected 1 to {longest} (max_position_embeddings)"
            )));
        }
        let counts = [
            ("max_batch_tokens", max_batch_tokens),
            ("max_sequences", max_sequences),
            ("max_waiting", max_waiting),
            ("max_events", max_events),
        ];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((name, _)) => Err(Error::invalid_request(format_args!("{name} is 0, expected at least 1"))),
            None => {
                Ok(EngineConfig { max_model_len, max_batch_tokens, max_sequences, max_waiting, max_events })
            }
        }
    }
}

/// What the core thread needs to get its model.
pub(crate) enum ModelLoad {
    Load(LoadOptions),
    Take(LoadedModel),
}

impl EngineOptions {
    /// The part of the options that says how to load. Opens the device.
    pub(crate) fn model_load(self) -> Result<ModelLoad> {
        match self.model {
            ModelInput::Loaded(model) => Ok(ModelLoad::Take(model)),
            ModelInput::Source(source) => Ok(ModelLoad::Load(LoadOptions {
                source,
                device: self.device.open()?,
                dtype: self.dtype.unwrap_or(self.device.default_dtype()).dtype(),
                vision_dtype: self.vision_dtype.dtype(),
                tables: self.tables,
                format: self.load_format,
                progress: self.progress,
                faults: Faults::default(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written_alike() {
        for (text, expected) in [
            ("cpu", Some(DeviceChoice::Cpu)),
            ("cuda", Some(DeviceChoice::Cuda(0))),
            ("cuda:3", Some(DeviceChoice::Cuda(3))),
            ("cuda:", None),
            ("gpu", None),
            ("cpu:0", None),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().ok(), expected, "{text}");
        }
        assert_eq!(DeviceChoice::Cuda(3).to_string(), "cuda:3");
    }
}
