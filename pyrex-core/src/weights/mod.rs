//! Weights: walk a checkpoint's names like folders, and hear about every wrong tensor at once.
//!
//! A part of a model asks for its tensors by name and shape. What is missing, misshaped or of a wrong dtype is
//! noted, an empty stand-in is returned, and [`Store::finish`] turns all notes, and every tensor nobody asked for,
//! into one error: a model is never built from half a checkpoint. Sequences and requests are not known here.

pub mod asked;
pub mod digest;
pub mod dummy;
pub mod files;
pub mod mmap;

pub use asked::{Asked, UsedWeight, WeightUse};

use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ops::Matrix;
use crate::ops::matrix::{Placement, SharedBytes};
use candle_core::{DType, Device, Tensor};
use files::{Entry, Files};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Bytes of an element where no file says: dummy weights and published checkpoints are bf16.
const BF16_BYTES: u64 = 2;

/// A checkpoint's tensors, and what was found wrong so far.
pub struct Store<'a> {
    source: Source,
    device: Device,
    placement: OnceCell<Placement>,
    seen: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
    asked: RefCell<Vec<Asked>>,
    taken_bytes: RefCell<u64>,
    progress: Option<&'a dyn Fn(u64, u64) -> Result<()>>,
    faults: Faults,
    tables: TablePlace,
}

/// Where the tables lie of which single rows are read, such as the per-layer embeddings: nearly half of E2B's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TablePlace {
    /// With all other weights.
    #[default]
    Device,
    /// In host memory, from where a device reads the rows that it needs. On the CPU it is the same.
    Host,
}

impl FromStr for TablePlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "device" => Ok(Self::Device),
            "host" => Ok(Self::Host),
            _ => Err(Error::invalid_request(format_args!("tables {text:?}, expected device or host"))),
        }
    }
}

impl Display for TablePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Host => "host",
        })
    }
}

enum Source {
    Files(Files),
    Dummy,
    Shapes,
}

/// A place in the tree of names, such as `model.language_model.layers.3`.
#[derive(Clone)]
pub struct Weights<'a> {
    store: &'a Store<'a>,
    path: String,
}

impl<'a> Store<'a> {
    /// The tensors of these safetensors files, given as name and bytes.
    ///
    /// # Errors
    /// `InvalidModel` if a file is damaged or two of them hold the same tensor.
    pub fn from_files(files: Vec<(String, SharedBytes)>, device: &Device) -> Result<Self> {
        Ok(Self::new(Source::Files(Files::open(files)?), device))
    }

    /// Pseudo-random tensors of whatever shape is asked for, the same at every load.
    pub fn dummy(device: &Device) -> Self {
        Self::new(Source::Dummy, device)
    }

    /// Tensors without elements: a model built from them cannot run, but [`asked`](Self::asked) tells what it is made of.
    pub fn shapes() -> Self {
        Self::new(Source::Shapes, &Device::Cpu)
    }

    /// Every tensor that was asked for, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    fn new(source: Source, device: &Device) -> Self {
        Self {
            source,
            device: device.clone(),
            placement: OnceCell::new(),
            seen: RefCell::default(),
            problems: RefCell::default(),
            asked: RefCell::default(),
            taken_bytes: RefCell::default(),
            progress: None,
            faults: Faults::default(),
            tables: TablePlace::default(),
        }
    }

    /// Calls `progress` with the bytes taken so far and in all, after each tensor; what takes a tensor then returns its error.
    pub fn with_progress(mut self, progress: Option<&'a dyn Fn(u64, u64) -> Result<()>>) -> Self {
        self.progress = progress;
        self
    }

    /// Plants a mistake in what is built from these tensors.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Says where tables go.
    pub fn with_tables(mut self, tables: TablePlace) -> Self {
        self.tables = tables;
        self
    }

    /// The tree of names from its root.
    pub fn root(&'a self) -> Weights<'a> {
        Weights { store: self, path: String::new() }
    }

    /// Ends the walk. `inert` says which tensors may be there without being asked for.
    ///
    /// # Errors
    /// `InvalidModel` listing every missing, misshaped, mistyped and left-over tensor.
    pub fn finish(&self, inert: impl Fn(&str) -> bool) -> Result<()> {
        let mut problems = self.problems.borrow().clone();
        if let Source::Files(files) = &self.source {
            let seen = self.seen.borrow();
            let left_over = files.names().filter(|name| !seen.contains(*name) && !inert(name));
            problems.extend(left_over.map(|name| format!("{name}: not a tensor of this model")));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_model(format_args!(
            "{} tensors do not fit: {}",
            problems.len(),
            problems.join("; ")
        )))
    }

    /// Made for the first matrix, so that who only asks for shapes needs no device.
    fn placement(&self) -> Result<&Placement> {
        match self.placement.get() {
            Some(placement) => Ok(placement),
            None => {
                let placement = Placement::on(&self.device)?;
                Ok(self.placement.get_or_init(|| placement))
            }
        }
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Option<&Entry> {
        self.note(name, shape);
        let Source::Files(files) = &self.source else { return None };
        self.seen.borrow_mut().insert(name.to_string());
        let problem = match files.entry(name) {
            None => format!("{name}: missing, expected {shape:?}"),
            Some(entry) if entry.shape != shape => {
                format!("{name}: is {:?}, expected {shape:?}", entry.shape)
            }
            Some(entry) if entry.dtype.is_none() => {
                format!("{name}: is {}, expected F32, BF16 or F16", entry.dtype_name)
            }
            Some(entry) => return Some(entry),
        };
        self.problems.borrow_mut().push(problem);
        None
    }

    fn note(&self, name: &str, shape: &[usize]) {
        let found = match &self.source {
            Source::Files(files) => files.size(name).map(|(_, bytes)| bytes),
            Source::Dummy | Source::Shapes => None,
        };
        let num_elements: usize = shape.iter().product();
        let num_bytes = found.unwrap_or(BF16_BYTES.saturating_mul(num_elements as u64));
        self.asked.borrow_mut().push(Asked { name: name.to_string(), shape: shape.to_vec(), num_bytes });
    }

    fn took(&self, bytes: usize) -> Result<()> {
        *self.taken_bytes.borrow_mut() += bytes as u64;
        match (self.progress, &self.source) {
            (Some(progress), Source::Files(files)) => {
                progress(*self.taken_bytes.borrow(), files.total_bytes())
            }
            _ => Ok(()),
        }
    }
}

impl Weights<'_> {
    /// The child `name`: `at("layers").at(3)`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { store: self.store, path: self.join(name) }
    }

    /// The path so far, without a dot at its end: the name of the module that stands here.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The mistakes to plant in what stands here.
    pub fn faults(&self) -> Faults {
        self.store.faults
    }

    /// Where the tensors go.
    pub fn device(&self) -> &Device {
        &self.store.device
    }

    /// The tensor `name` as a matrix, every axis but the last folded into rows.
    ///
    /// # Errors
    /// `Device` if it cannot be moved there, and what the progress says. A tensor that does not fit is noted for [`Store::finish`].
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix> {
        self.matrix_at(name, shape, TablePlace::Device)
    }

    /// The tensor `name` as a matrix of which single rows are read: it may stay in host memory.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn table(&self, name: &str, shape: &[usize]) -> Result<Matrix> {
        self.matrix_at(name, shape, self.store.tables)
    }

    fn matrix_at(&self, name: &str, shape: &[usize], place: TablePlace) -> Result<Matrix> {
        let name = self.join(name);
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        let matrix = match (&self.store.source, self.store.entry(&name, shape)) {
            (Source::Dummy, _) => dummy::matrix(&name, rows, cols)?,
            (Source::Files(files), Some(entry)) => files.matrix(entry, (rows, cols))?,
            (Source::Files(_) | Source::Shapes, _) => {
                return Matrix::from_bytes(files::no_bytes(), 0..0, DType::F32, (0, 0));
            }
        };
        let placement = self.store.placement()?;
        let matrix = match place {
            TablePlace::Device => matrix.placed(placement)?,
            TablePlace::Host => matrix.beside(placement)?,
        };
        self.store.took(rows * cols * matrix.dtype().size_in_bytes())?;
        Ok(matrix)
    }

    /// The tensor `name` of `len` values, widened to f32: a norm's scale.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        let values = match self.values(name, &[len], len)? {
            Some(values) => values,
            None => dummy::vector(&self.join(name), len),
        };
        let len = values.len();
        Ok(Tensor::from_vec(values, len, &self.store.device)?)
    }

    /// The tensor `name` of the shape `[]` or `[1]` as a number; `dummy` is what dummy weights take for it.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn scalar(&self, name: &str, shape: &[usize], dummy: f32) -> Result<f32> {
        let values = self.values(name, shape, 1)?;
        Ok(values.map_or(dummy, |values| values.first().copied().unwrap_or_default()))
    }

    /// Whether the checkpoint has `name`; always so without files.
    pub fn has(&self, name: &str) -> bool {
        match &self.store.source {
            Source::Files(files) => files.entry(&self.join(name)).is_some(),
            Source::Dummy | Source::Shapes => true,
        }
    }

    /// The values as f32; none for a tensor that does not fit; `None` for dummy weights.
    fn values(&self, name: &str, shape: &[usize], len: usize) -> Result<Option<Vec<f32>>> {
        let name = self.join(name);
        let entry = self.store.entry(&name, shape);
        match (&self.store.source, entry) {
            (Source::Dummy, _) => Ok(None),
            (Source::Files(_), None) | (Source::Shapes, _) => Ok(Some(Vec::new())),
            (Source::Files(files), Some(entry)) => {
                let matrix = files.matrix(entry, (1, len))?;
                self.store.took(len * matrix.dtype().size_in_bytes())?;
                let tensor = matrix.to_tensor(&Device::Cpu)?.to_dtype(DType::F32)?;
                Ok(Some(tensor.flatten_all()?.to_vec1()?))
            }
        }
    }

    fn join(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

#[cfg(test)]
mod tests;
