//! From a folder, or bytes in memory, to a model: `config.json` names the architecture, the architecture the family.

use super::{FAMILIES, LoadedModel};
use crate::error::{Error, Result};
use crate::ops::matrix::SharedBytes;
use candle_core::{DType, Device};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the files of a checkpoint come from.
#[derive(Clone)]
pub enum ModelSource {
    /// A folder as `save_pretrained` writes it; or, for dummy weights, a lone `config.json`.
    Path(PathBuf),
    /// Named files in memory.
    Memory(BTreeMap<String, SharedBytes>),
}

/// Where the weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadFormat {
    /// The safetensors of the checkpoint.
    #[default]
    Safetensors,
    /// Pseudo-random numbers of the right shapes, the same at every load: to measure real sizes without a download.
    Dummy,
}

/// Called while weights load, with the bytes taken so far and in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What to load, and for where.
#[derive(Clone)]
pub struct LoadOptions {
    /// The checkpoint.
    pub source: ModelSource,
    /// The device to run on.
    pub device: Device,
    /// The dtype of the activations: f32 or bf16.
    pub dtype: DType,
    /// Where the weights come from.
    pub format: LoadFormat,
    /// Told how far the weights are.
    pub progress: Option<Progress>,
}

impl ModelSource {
    /// The bytes of a small text file such as `config.json`, or `None` if the checkpoint has no such file.
    ///
    /// # Errors
    /// `Io` if it is there and cannot be read; `InvalidModel` if it is larger than 64 MiB.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        const MAX_BYTES: u64 = 64 << 20;
        match self {
            Self::Memory(files) => Ok(files.get(name).map(|bytes| Cow::Borrowed((**bytes).as_ref()))),
            Self::Path(path) => {
                let path =
                    if path.is_file() && name == "config.json" { path.clone() } else { path.join(name) };
                let metadata = match std::fs::metadata(&path) {
                    Ok(metadata) => metadata,
                    Err(error) if is_absence(&error) => return Ok(None),
                    Err(error) => return Err(Error::io(format_args!("{}: {error}", path.display()))),
                };
                if metadata.len() > MAX_BYTES {
                    return Err(Error::invalid_model(format_args!(
                        "{name} has {} bytes, expected at most {MAX_BYTES}",
                        metadata.len()
                    )));
                }
                let bytes =
                    std::fs::read(&path).map_err(|e| Error::io(format_args!("{}: {e}", path.display())))?;
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }

    /// As [`read`](Self::read), for a file that must be there.
    ///
    /// # Errors
    /// `InvalidModel` if it is not.
    pub fn require(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        self.read(name)?.ok_or_else(|| Error::invalid_model(format_args!("{self} has no {name}")))
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Memory(_) => f.write_str("the model in memory"),
        }
    }
}

/// Loads the checkpoint with the family its `config.json` names.
///
/// # Errors
/// `InvalidModel` if a file is missing or wrong, `Unsupported` if no family answers to the architecture.
pub fn load(options: &LoadOptions) -> Result<LoadedModel> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        architectures: Vec<String>,
    }
    let bytes = options.source.require("config.json")?;
    let named: Named =
        serde_json::from_slice(&bytes).map_err(|e| Error::invalid_model(format_args!("config.json: {e}")))?;
    let answers =
        |name: &String| FAMILIES.iter().find(|family| family.architectures.contains(&name.as_str()));
    match named.architectures.iter().find_map(answers) {
        Some(family) => (family.load)(options),
        None => Err(Error::unsupported(format_args!(
            "config.json names the architectures {:?}, expected one of {:?}",
            named.architectures,
            FAMILIES.iter().flat_map(|family| family.architectures).collect::<Vec<_>>()
        ))),
    }
}
