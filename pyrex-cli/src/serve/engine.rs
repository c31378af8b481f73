//! [`EngineSettings`]: which model, and how it runs; flags, and the table `[engine]` of the file.

use super::cache_size::CacheSize;
use crate::bundled;
use crate::fail::Failure;
use crate::options::{at_least_one, folder};
use clap::Args;
use pyrex_core::{ActivationDtype, DeviceChoice, EngineOptions, ModelSource, Progress, TablePlace};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Which model, and how it runs. What is not given has the core's default.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EngineSettings {
    /// Folder of a checkpoint [default: the small bundled model]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// cpu, cuda or cuda:n [default: cpu]
    #[arg(long)]
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceChoice>,
    /// Dtype of the activations, f32 or bf16 [default: f32 on the CPU, bf16 on CUDA]
    #[arg(long)]
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<ActivationDtype>,
    /// Dtype of the vision tower, f32 or bf16 [default: f32]
    #[arg(long)]
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) vision_dtype: Option<ActivationDtype>,
    /// Where large tables such as the per-layer embeddings lie, device or host [default: device]
    #[arg(long)]
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) tables: Option<TablePlace>,
    /// Threads that compute [default: one per core]
    #[arg(long, visible_alias = "threads", value_name = "N", value_parser = at_least_one)]
    pub(crate) num_threads: Option<usize>,
    /// The longest sequence, prompt and answer together [default: 8192, or the model's own if that is less]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_model_len: Option<usize>,
    /// The most tokens one step computes [default: 512 on the CPU, 2048 on CUDA]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_batch_tokens: Option<usize>,
    /// The most sequences one step computes [default: 16 on the CPU, 64 on CUDA]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_sequences: Option<usize>,
    /// The most requests that wait; one more is told 429 [default: 1024]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_waiting: Option<usize>,
    /// The cache of keys and values: auto, bytes such as 512MiB, or a share of the free memory such as 50% [default: auto]
    #[arg(long, value_name = "SIZE")]
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) kv_cache: Option<CacheSize>,
    /// Whether a prompt that begins like an earlier one is read from the cache [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) prefix_cache: Option<bool>,
    /// A step that runs for so long hangs [default: 120000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stuck_after_ms: Option<u64>,
}

impl EngineSettings {
    /// What is given here, and else there.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            device: self.device.or(other.device),
            dtype: self.dtype.or(other.dtype),
            vision_dtype: self.vision_dtype.or(other.vision_dtype),
            tables: self.tables.or(other.tables),
            num_threads: self.num_threads.or(other.num_threads),
            max_model_len: self.max_model_len.or(other.max_model_len),
            max_batch_tokens: self.max_batch_tokens.or(other.max_batch_tokens),
            max_sequences: self.max_sequences.or(other.max_sequences),
            max_waiting: self.max_waiting.or(other.max_waiting),
            kv_cache: self.kv_cache.or(other.kv_cache),
            prefix_cache: self.prefix_cache.or(other.prefix_cache),
            stuck_after_ms: self.stuck_after_ms.or(other.stuck_after_ms),
        }
    }

    /// The defaults that are the same for every model and machine with such a device.
    pub(super) fn defaults(device: DeviceChoice) -> Self {
        let options = EngineOptions::new("");
        Self {
            model: None,
            device: Some(device),
            dtype: options.dtype,
            vision_dtype: Some(options.vision_dtype),
            tables: Some(options.tables),
            num_threads: options.num_threads,
            max_model_len: options.max_model_len,
            max_batch_tokens: Some(device.default_max_batch_tokens()),
            max_sequences: Some(device.default_max_sequences()),
            max_waiting: Some(options.max_waiting),
            kv_cache: Some(CacheSize(options.kv_cache)),
            prefix_cache: Some(options.prefix_cache),
            stuck_after_ms: Some(options.stuck_after.as_millis() as u64),
        }
    }

    /// The checkpoint they mean.
    pub(crate) fn source(&self) -> Result<ModelSource, Failure> {
        self.model.as_deref().map_or_else(|| Ok(bundled::source()), folder)
    }

    pub(crate) fn device(&self) -> DeviceChoice {
        self.device.unwrap_or_default()
    }

    /// The dtype of the activations.
    pub(crate) fn dtype(&self) -> ActivationDtype {
        self.dtype.unwrap_or(self.device().default_dtype())
    }

    pub(super) fn stuck_after(&self) -> Duration {
        self.stuck_after_ms.map_or(EngineOptions::new("").stuck_after, Duration::from_millis)
    }

    /// How the core calls all this.
    pub(crate) fn options(&self, progress: Option<Progress>) -> Result<EngineOptions, Failure> {
        let defaults = EngineOptions::new(self.source()?);
        Ok(EngineOptions {
            device: self.device(),
            dtype: self.dtype,
            vision_dtype: self.vision_dtype.unwrap_or(defaults.vision_dtype),
            tables: self.tables.unwrap_or(defaults.tables),
            num_threads: self.num_threads,
            max_model_len: self.max_model_len,
            max_batch_tokens: self.max_batch_tokens,
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting.unwrap_or(defaults.max_waiting),
            kv_cache: self.kv_cache.unwrap_or_default().0,
            prefix_cache: self.prefix_cache.unwrap_or(defaults.prefix_cache),
            stuck_after: self.stuck_after(),
            progress,
            ..defaults
        })
    }
}

/// Values that a flag and a file spell alike.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
    }
}
