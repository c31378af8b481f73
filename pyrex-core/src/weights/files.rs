//! The tensors of a set of safetensors files, by name. Nothing is trusted: every offset is checked before it is used.

use crate::error::{Error, Result};
use crate::ops::Matrix;
use crate::ops::matrix::SharedBytes;
use candle_core::DType;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Where one tensor lies.
pub struct Entry {
    file: usize,
    range: Range<usize>,
    /// Its shape, as the file says.
    pub shape: Vec<usize>,
    /// Its dtype, if it is one a weight can have.
    pub dtype: Option<DType>,
    /// Its dtype as the file names it.
    pub dtype_name: String,
}

/// All files of a checkpoint.
pub struct Files {
    bytes: Vec<SharedBytes>,
    entries: BTreeMap<String, Entry>,
}

/// Bytes for a stand-in.
pub fn no_bytes() -> SharedBytes {
    let empty: &'static [u8] = &[];
    Arc::new(empty)
}

impl Files {
    /// Reads the headers of `files`, given as name and bytes.
    ///
    /// # Errors
    /// `InvalidModel` if a header is damaged, an offset lies outside its file, or two files hold the same tensor.
    pub fn open(files: Vec<(String, SharedBytes)>) -> Result<Self> {
        let mut all = Self { bytes: Vec::new(), entries: BTreeMap::new() };
        for (file_name, bytes) in files {
            all.add(&file_name, bytes)?;
        }
        Ok(all)
    }

    fn add(&mut self, file_name: &str, shared: SharedBytes) -> Result<()> {
        let bytes = (*shared).as_ref();
        let damaged =
            |e| Error::invalid_model(format_args!("{file_name}: not a readable safetensors file: {e}"));
        // `deserialize` checks every offset against the length of the file; the metadata has the offsets themselves.
        SafeTensors::deserialize(bytes).map_err(damaged)?;
        let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let data_start = 8 + header_len;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.bytes.len(),
                range: data_start + start..data_start + end,
                shape: info.shape.clone(),
                dtype: weight_dtype(info.dtype),
                dtype_name: format!("{:?}", info.dtype),
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(Error::invalid_model(format_args!(
                    "{file_name}: {name} is in another file as well"
                )));
            }
        }
        self.bytes.push(shared);
        Ok(())
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.range.len() as u64).sum()
    }

    /// The bytes of the tensor `name`.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let entry = self.entries.get(name)?;
        Some(&(*self.bytes[entry.file]).as_ref()[entry.range.clone()])
    }

    /// Elements and bytes of the tensor `name`.
    pub fn size(&self, name: &str) -> Option<(u64, u64)> {
        let entry = self.entries.get(name)?;
        Some((entry.shape.iter().map(|n| *n as u64).product(), entry.range.len() as u64))
    }

    /// The tensor as a matrix over the file's own bytes.
    ///
    /// # Errors
    /// `InvalidModel` if it has another number of elements.
    pub fn matrix(&self, entry: &Entry, shape: (usize, usize)) -> Result<Matrix> {
        let dtype = entry.dtype.unwrap_or(DType::U8);
        Matrix::from_bytes(Arc::clone(&self.bytes[entry.file]), entry.range.clone(), dtype, shape)
    }
}

fn weight_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}
