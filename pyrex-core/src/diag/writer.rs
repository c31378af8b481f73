//! [`DumpWriter`]: tensors to disk as they come, so that a dump may be larger than memory.
//!
//! The header of a safetensors file stands before its data and names everything, so the data waits in a file of its own
//! until the last tensor is there. A raw dump is that file, with an index beside it.

use super::file::{RawEntry, RawIndex};
use super::manifest::Manifest;
use crate::error::{Error, Result};
use crate::ops::host::host_view;
use candle_core::{DType, Device, Tensor};
use half::bf16;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpSummary {
    /// Tensors.
    pub num_tensors: usize,
    /// Bytes of their elements.
    pub num_bytes: usize,
}

/// Writes a dump: every float as f32, every integer as i64, in the order in which they come.
pub struct DumpWriter {
    out: PathBuf,
    layout: Layout,
    data: BufWriter<File>,
    data_path: PathBuf,
    entries: Vec<Written>,
    names: BTreeSet<String>,
    num_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Safetensors,
    /// Raw f32 with an index.
    Raw,
}

struct Written {
    name: String,
    shape: Vec<usize>,
    dtype: &'static str,
    start: usize,
}

impl DumpWriter {
    /// Begins a dump at `out`: raw if its name ends in `.bin`, else safetensors. Nothing stands there until it is finished.
    ///
    /// # Errors
    /// `Io` if the folder cannot be written to.
    pub fn create(out: &Path) -> Result<Self> {
        // What is renamed to a device or a folder would take its place.
        if fs::metadata(out).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::io(format_args!("{}: expected a file or nothing there", out.display())));
        }
        let raw = out.extension().is_some_and(|extension| extension == "bin");
        let data_path = beside(out, "partial");
        let open = File::options().read(true).write(true).create(true).truncate(true).open(&data_path);
        Ok(Self {
            out: out.to_owned(),
            layout: if raw { Layout::Raw } else { Layout::Safetensors },
            data: BufWriter::with_capacity(1 << 20, open.map_err(|e| io(&data_path, &e))?),
            data_path,
            entries: Vec::new(),
            names: BTreeSet::new(),
            num_bytes: 0,
        })
    }

    /// Writes one tensor.
    ///
    /// # Errors
    /// `Internal` if there is one of that name already, `Io` if the disk refuses it.
    pub fn put(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        if !self.names.insert(name.to_string()) {
            return Err(Error::internal(format_args!("two tensors are named {name}")));
        }
        let integers = matches!(tensor.dtype(), DType::U8 | DType::U32 | DType::I64);
        let dtype = if integers && self.layout == Layout::Safetensors { "I64" } else { "F32" };
        self.entries.push(Written {
            name: name.to_string(),
            shape: tensor.dims().to_vec(),
            dtype,
            start: self.num_bytes,
        });
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        match (tensor.dtype(), dtype) {
            (DType::F32, _) => self.write(host_view(&tensor)?.slice::<f32>()?),
            (DType::BF16, _) => self.write_widened(host_view(&tensor)?.slice::<bf16>()?),
            (_, "I64") => self.write(&tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?),
            _ => self.write(&tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?),
        }
    }

    fn write<T: bytemuck::NoUninit>(&mut self, elements: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        self.num_bytes += bytes.len();
        self.data.write_all(bytes).map_err(|e| io(&self.data_path, &e))
    }

    fn write_widened(&mut self, elements: &[bf16]) -> Result<()> {
        const PIECE_LEN: usize = 1 << 14;
        let mut wide = Vec::with_capacity(PIECE_LEN);
        for piece in elements.chunks(PIECE_LEN) {
            wide.clear();
            wide.extend(piece.iter().map(|x| x.to_f32()));
            self.write(&wide)?;
        }
        Ok(())
    }

    /// Ends the dump: from here on it stands where it was asked for.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub fn finish(mut self, manifest: &Manifest) -> Result<DumpSummary> {
        let summary = DumpSummary { num_tensors: self.entries.len(), num_bytes: self.num_bytes };
        self.data.flush().map_err(|e| io(&self.data_path, &e))?;
        match self.layout {
            Layout::Raw => self.finish_raw(manifest)?,
            Layout::Safetensors => self.finish_safetensors(manifest)?,
        }
        Ok(summary)
    }

    fn finish_raw(&self, manifest: &Manifest) -> Result<()> {
        let entry = |Written { name, shape, start, .. }: &Written| RawEntry {
            name: name.clone(),
            shape: shape.clone(),
            dtype: "f32".to_string(),
            offset: *start,
        };
        let tensors = self.entries.iter().map(entry).collect();
        let index = RawIndex { metadata: manifest.to_json(), tensors };
        let index_path = self.out.with_extension("json");
        let text = serde_json::to_vec_pretty(&index).map_err(|e| Error::internal(format_args!("{e}")))?;
        fs::write(&index_path, text).map_err(|e| io(&index_path, &e))?;
        fs::rename(&self.data_path, &self.out).map_err(|e| io(&self.out, &e))
    }

    fn finish_safetensors(&mut self, manifest: &Manifest) -> Result<()> {
        let whole_path = beside(&self.out, "whole");
        let copied = self.copy_behind(self.header(manifest).as_bytes(), &whole_path);
        let moved = copied.and_then(|()| fs::rename(&whole_path, &self.out));
        moved.map_err(|e| {
            drop(fs::remove_file(&whole_path));
            io(&self.out, &e)
        })
    }

    fn copy_behind(&mut self, header: &[u8], whole_path: &Path) -> std::io::Result<()> {
        let mut whole = File::create(whole_path)?;
        whole.write_all(&(header.len() as u64).to_le_bytes())?;
        whole.write_all(header)?;
        let data = self.data.get_mut();
        data.seek(SeekFrom::Start(0))?;
        std::io::copy(data, &mut whole).map(drop)
    }

    fn header(&self, manifest: &Manifest) -> String {
        let mut header = Map::new();
        header.insert("__metadata__".to_string(), json!(manifest.to_metadata()));
        let ends = self.entries.iter().skip(1).map(|next| next.start).chain([self.num_bytes]);
        for (entry, end) in self.entries.iter().zip(ends) {
            let value: Value =
                json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [entry.start, end]});
            header.insert(entry.name.clone(), value);
        }
        let mut text = Value::Object(header).to_string();
        // The format lets a header end in spaces; the data behind it is then aligned.
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        text
    }
}

impl Drop for DumpWriter {
    /// What was not finished leaves nothing behind.
    fn drop(&mut self) {
        drop(fs::remove_file(&self.data_path));
    }
}

/// `out` with `.suffix` behind its name.
fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    out.with_file_name(name)
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::io(format_args!("{}: {error}", path.display()))
}
