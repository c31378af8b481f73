//! From a folder, or bytes in memory, to a model: `config.json` names the architecture, the architecture the family.

use super::{FAMILIES, Family, LoadedModel, SamplingDefaults};
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ops::matrix::SharedBytes;
use crate::weights::{TablePlace, mmap};
use candle_core::{DType, Device};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
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

/// Called while weights load, with the bytes taken so far and in all. An error ends the loading with it.
pub type Progress = Arc<dyn Fn(u64, u64) -> Result<()> + Send + Sync>;

/// What to load, and for where.
#[derive(Clone)]
pub struct LoadOptions {
    /// The checkpoint.
    pub source: ModelSource,
    /// The device to run on.
    pub device: Device,
    /// The dtype of the activations: f32 or bf16.
    pub dtype: DType,
    /// The dtype of the vision tower's activations.
    pub vision_dtype: DType,
    /// Where the tables lie of which single rows are read.
    pub tables: TablePlace,
    /// Where the weights come from.
    pub format: LoadFormat,
    /// Told how far the weights are; may end the loading.
    pub progress: Option<Progress>,
    /// Mistakes to plant: none outside of tests.
    pub faults: Faults,
}

impl LoadOptions {
    /// A checkpoint's own weights, for `device`, with activations in `dtype` and whatever else is usual.
    pub fn new(source: ModelSource, device: Device, dtype: DType) -> Self {
        Self {
            source,
            device,
            dtype,
            vision_dtype: DType::F32,
            tables: TablePlace::default(),
            format: LoadFormat::default(),
            progress: None,
            faults: Faults::default(),
        }
    }
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

    /// The safetensors files, mapped or from memory: those an index names, else `model.safetensors`.
    ///
    /// # Errors
    /// `InvalidModel` if there are none or the index names a file outside the folder; `Io` if one cannot be mapped.
    pub fn weight_files(&self) -> Result<Vec<(String, SharedBytes)>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        const INDEX: &str = "model.safetensors.index.json";
        let names: BTreeSet<String> = match self.read(INDEX)? {
            None => BTreeSet::from(["model.safetensors".to_string()]),
            Some(bytes) => parse_json::<Index>(INDEX, &bytes)?.weight_map.into_values().collect(),
        };
        names.into_iter().map(|name| Ok((name.clone(), self.weight_file(&name)?))).collect()
    }

    fn weight_file(&self, name: &str) -> Result<SharedBytes> {
        if name.contains(['/', '\\']) || name == ".." {
            return Err(Error::invalid_model(format_args!(
                "the index names {name:?}, expected a file beside it"
            )));
        }
        let missing = || Error::invalid_model(format_args!("{self} has no {name}"));
        match self {
            Self::Memory(files) => files.get(name).cloned().ok_or_else(missing),
            Self::Path(path) if path.join(name).is_file() => mmap::map(&path.join(name)),
            Self::Path(_) => Err(missing()),
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
    (family_of(&options.source)?.load)(options)
}

/// The family that answers to the architecture in `config.json`.
///
/// # Errors
/// `InvalidModel` if there is no `config.json`, `Unsupported` if no family answers.
pub fn family_of(source: &ModelSource) -> Result<&'static Family> {
    let architectures = architectures(source)?;
    let answers =
        |name: &String| FAMILIES.iter().find(|family| family.architectures.contains(&name.as_str()));
    architectures.iter().find_map(answers).ok_or_else(|| {
        Error::unsupported(format_args!(
            "config.json names the architectures {architectures:?}, expected one of {:?}",
            FAMILIES.iter().flat_map(|family| family.architectures).collect::<Vec<_>>()
        ))
    })
}

/// The architectures that `config.json` names.
///
/// # Errors
/// `InvalidModel` if the file is missing or damaged.
pub fn architectures(source: &ModelSource) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        architectures: Vec<String>,
    }
    let named: Named = parse_json("config.json", &source.require("config.json")?)?;
    Ok(named.architectures)
}

/// Reads a JSON file of a checkpoint.
///
/// # Errors
/// `InvalidModel` naming the file and the place in it.
pub fn parse_json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid_model(format_args!("{name}: {e}")))
}

/// A field that is a number or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(u32),
    /// A list.
    Many(Vec<u32>),
}

impl OneOrMany {
    /// The list.
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// What `generation_config.json` says.
#[derive(Clone, Debug)]
pub struct GenerationDefaults {
    /// Ids that end a generation.
    pub stop_ids: Vec<u32>,
    /// How the checkpoint wants to be sampled.
    pub sampling: SamplingDefaults,
}

/// Reads `generation_config.json`; without one, or without ids in it, `eos_token_ids` of `config.json` end a generation.
///
/// # Errors
/// `InvalidModel` if the file is damaged or asks for a temperature or mass that no request may ask for.
pub fn generation_defaults(source: &ModelSource, eos_token_ids: &[u32]) -> Result<GenerationDefaults> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Raw {
        eos_token_id: Option<OneOrMany>,
        do_sample: bool,
        temperature: Option<f32>,
        top_k: Option<usize>,
        top_p: Option<f32>,
    }
    const NAME: &str = "generation_config.json";
    let raw = match source.read(NAME)? {
        Some(bytes) => parse_json(NAME, &bytes)?,
        None => Raw::default(),
    };
    let sampling = match raw.do_sample {
        true => SamplingDefaults {
            temperature: Some(raw.temperature.unwrap_or(1.0)),
            top_k: raw.top_k.filter(|k| *k > 0),
            top_p: raw.top_p,
        },
        false => SamplingDefaults::default(),
    };
    check_sampling(&sampling).map_err(|e| e.context(NAME))?;
    let stop_ids = raw.eos_token_id.map_or_else(|| eos_token_ids.to_vec(), OneOrMany::into_vec);
    Ok(GenerationDefaults { stop_ids, sampling })
}

/// What a request without parameters of its own is sampled with must not be what no request may ask for.
fn check_sampling(sampling: &SamplingDefaults) -> Result<()> {
    match *sampling {
        SamplingDefaults { temperature: Some(t), .. } if !(t.is_finite() && t >= 0.0) => {
            Err(Error::invalid_model(format_args!("temperature is {t}, expected a number of at least 0")))
        }
        SamplingDefaults { top_p: Some(p), .. } if !(p > 0.0 && p <= 1.0) => {
            Err(Error::invalid_model(format_args!("top_p is {p}, expected a number above 0 and up to 1")))
        }
        _ => Ok(()),
    }
}
