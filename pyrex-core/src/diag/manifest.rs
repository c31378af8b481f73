//! [`Manifest`]: what a dump says about where its numbers come from.
//!
//! Strings in a file's metadata; those that are lists or maps hold JSON, as a dump is a file that Python reads too.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The layout of dumps; another one gets another word.
pub const FORMAT: &str = "pyrex-dump-1";

/// Where the numbers of a dump come from. What a file does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Who computed them, with its version.
    pub producer: String,
    /// Versions of what it is made of.
    pub versions: BTreeMap<String, String>,
    /// What the model was called.
    pub model: String,
    /// Its family.
    pub family: String,
    /// SHA-256 of its `config.json`.
    pub config_sha256: String,
    /// SHA-256 of the bytes of each of its tensors, by name.
    pub weights: BTreeMap<String, String>,
    /// The ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// SHA-256 of the files of its images.
    pub images: Vec<String>,
    /// The dtype of the activations: f32, bf16 or f64.
    pub dtype: String,
    /// The device: cpu or cuda.
    pub device: String,
    /// How attention was computed.
    pub attention: String,
    /// Decode steps after the prefill.
    pub steps: usize,
    /// How far the same model is from itself when it computes in another order.
    pub noise: Option<Noise>,
}

/// The noise of a run: relative L2 between it and the same model run another way, for each tap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noise {
    /// What the other way is, in words.
    pub other: String,
    /// Both run freely.
    pub cumulative: BTreeMap<String, f64>,
    /// The other is given the run's tensor at each tap: what one operation adds.
    pub isolated: BTreeMap<String, f64>,
}

/// Keys that are plain words; all others are JSON.
const WORDS: [&str; 8] =
    ["format", "producer", "model", "family", "config_sha256", "dtype", "device", "attention"];

impl Manifest {
    /// Reads the metadata of a dump. A file of another origin has an empty manifest.
    ///
    /// # Errors
    /// `InvalidRequest` if a value is not what its key asks for.
    pub fn from_metadata(metadata: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut object = Map::new();
        for (key, text) in metadata {
            let value = match WORDS.contains(&key.as_str()) {
                true => Value::String(text),
                false => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            };
            object.insert(key, value);
        }
        Self::from_json(Value::Object(object))
    }

    /// As [`from_metadata`](Self::from_metadata), from an object with whole values.
    ///
    /// # Errors
    /// As [`from_metadata`](Self::from_metadata).
    pub fn from_json(object: Value) -> Result<Self> {
        let wrong = |e| Error::invalid_request(format_args!("the manifest of a dump: {e}"));
        serde_json::from_value(object).map_err(wrong)
    }

    /// One object with whole values.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let (Value::Object(object), None) = (&mut value, &self.noise) {
            object.remove("noise");
        }
        value
    }

    /// The same as strings.
    pub fn to_metadata(&self) -> BTreeMap<String, String> {
        let text = |value: Value| match value {
            Value::String(text) => text,
            value => value.to_string(),
        };
        match self.to_json() {
            Value::Object(object) => object.into_iter().map(|(key, value)| (key, text(value))).collect(),
            _ => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_its_file() {
        let manifest = Manifest {
            format: FORMAT.to_string(),
            model: "12".to_string(),
            prompt_ids: vec![2, 105],
            weights: BTreeMap::from([("a.weight".to_string(), "00ff".to_string())]),
            steps: 3,
            noise: Some(Noise { isolated: BTreeMap::from([("a".to_string(), 1.5e-7)]), ..Noise::default() }),
            ..Manifest::default()
        };
        assert_eq!(Manifest::from_metadata(manifest.to_metadata()).unwrap(), manifest);
        assert_eq!(Manifest::from_metadata([]).unwrap(), Manifest::default());
        let damaged = Manifest::from_metadata([("prompt_ids".to_string(), "[1,".to_string())]);
        assert!(damaged.unwrap_err().message().contains("invalid type"));
    }
}
