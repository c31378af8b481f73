//! [`DumpFile`]: a dump on disk, mapped and read tensor by tensor.
//!
//! A safetensors file, or raw f32 (`.bin`) with an index (`.json`) beside it. Anybody's safetensors file will do; what
//! it does not say about itself is empty in its manifest.

use super::elements::Elements;
use super::manifest::Manifest;
use crate::error::{Error, Result};
use crate::ops::matrix::SharedBytes;
use crate::weights::mmap;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// A dump.
pub struct DumpFile {
    bytes: SharedBytes,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// Where its numbers come from.
    pub manifest: Manifest,
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    range: Range<usize>,
}

/// One tensor of a dump.
#[derive(Clone, Debug)]
pub struct DumpTensor<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements.
    pub elements: Elements<'a>,
}

/// The index beside a raw dump.
#[derive(Serialize, Deserialize)]
pub(super) struct RawIndex {
    pub(super) metadata: Value,
    pub(super) tensors: Vec<RawEntry>,
}

/// One tensor of a raw dump.
#[derive(Serialize, Deserialize)]
pub(super) struct RawEntry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Always `f32`.
    pub(super) dtype: String,
    /// Of its first byte.
    pub(super) offset: usize,
}

impl DumpFile {
    /// Opens the dump at `path`.
    ///
    /// # Errors
    /// `Io` if it cannot be mapped; `InvalidRequest` if it is no dump or damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = match path.extension().is_some_and(|extension| extension == "bin") {
            true => Self::open_raw(path),
            false => Self::from_safetensors(mmap::map(path)?),
        };
        opened.map_err(|e| e.context(path.display()))
    }

    /// A dump in memory, as safetensors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_safetensors(bytes: SharedBytes) -> Result<Self> {
        let damaged = |e| Error::invalid_request(format_args!("not a readable safetensors file: {e}"));
        // `deserialize` checks every offset against the length of the file; the metadata has the offsets themselves.
        SafeTensors::deserialize((*bytes).as_ref()).map_err(damaged)?;
        let (header_len, header) = SafeTensors::read_metadata((*bytes).as_ref()).map_err(damaged)?;
        let manifest = Manifest::from_metadata(header.metadata().clone().unwrap_or_default())?;
        let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            let range = 8 + header_len + start..8 + header_len + end;
            Entry { name, shape: info.shape.clone(), dtype: info.dtype, range }
        };
        let mut entries: Vec<Entry> = header.tensors().into_iter().map(entry).collect();
        // What was written first was computed first.
        entries.sort_by_key(|entry| entry.range.start);
        Ok(Self::new(bytes, entries, manifest))
    }

    fn open_raw(path: &Path) -> Result<Self> {
        let index_path = path.with_extension("json");
        let index = std::fs::read(&index_path);
        let index = index.map_err(|e| Error::io(format_args!("{}: {e}", index_path.display())))?;
        let damaged = |what: String| Error::invalid_request(format_args!("{}: {what}", index_path.display()));
        let index: RawIndex = serde_json::from_slice(&index).map_err(|e| damaged(e.to_string()))?;
        let bytes = mmap::map(path)?;
        let total = (*bytes).as_ref().len();
        let mut entries = Vec::with_capacity(index.tensors.len());
        for RawEntry { name, shape, dtype, offset } in index.tensors {
            let len = shape.iter().try_fold(4usize, |len, n| len.checked_mul(*n));
            let end = len.and_then(|len| offset.checked_add(len)).filter(|end| *end <= total);
            let (Some(end), "f32") = (end, dtype.as_str()) else {
                return Err(damaged(format!(
                    "{name}: {shape:?} {dtype} at {offset}, expected f32 inside {total} bytes"
                )));
            };
            entries.push(Entry { name, shape, dtype: Dtype::F32, range: offset..end });
        }
        Ok(Self::new(bytes, entries, Manifest::from_json(index.metadata)?))
    }

    fn new(bytes: SharedBytes, entries: Vec<Entry>, manifest: Manifest) -> Self {
        let by_name = entries.iter().enumerate().map(|(idx, entry)| (entry.name.clone(), idx)).collect();
        Self { bytes, entries, by_name, manifest }
    }

    /// The names of its tensors, in the order in which they were computed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// `Unsupported` if its elements are of a type that no dump has.
    pub fn tensor(&self, name: &str) -> Result<Option<DumpTensor<'_>>> {
        let Some(&idx) = self.by_name.get(name) else { return Ok(None) };
        let Entry { shape, dtype, range, .. } = &self.entries[idx];
        let elements = Elements::from_bytes(&(*self.bytes).as_ref()[range.clone()], *dtype);
        Ok(Some(DumpTensor { shape, elements: elements.map_err(|e| e.context(name))? }))
    }

    /// Bytes of all tensors.
    pub fn num_bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.range.len()).sum()
    }
}
