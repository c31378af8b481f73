//! [`Matrix`]: a weight as the ops see it, in the dtype of its file, mapped or on a device.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Bytes somebody else keeps alive: a mapped file, a buffer, a static.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A `[rows, cols]` weight, row-major, in f32, bf16 or f16.
#[derive(Clone)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    dtype: DType,
    storage: MatrixStorage,
}

#[derive(Clone)]
enum MatrixStorage {
    Host { bytes: SharedBytes, range: Range<usize> },
    Device(Tensor),
}

/// The elements of a host matrix in their own dtype.
#[derive(Clone, Copy, Debug)]
pub enum HostElements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [half::bf16]),
    /// IEEE half precision.
    F16(&'a [half::f16]),
}

impl Matrix {
    /// A matrix over `range` of `bytes`, without a copy where the bytes are aligned for `dtype`.
    ///
    /// # Errors
    /// `InvalidModel` if the range does not hold `rows × cols` elements or the dtype is not a float of 32 or 16 bits.
    pub fn from_bytes(
        bytes: SharedBytes,
        range: Range<usize>,
        dtype: DType,
        (rows, cols): (usize, usize),
    ) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(Error::invalid_model(format_args!(
                "a weight is {dtype:?}, expected F32, BF16 or F16"
            )));
        }
        let expected = rows.checked_mul(cols).and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        let found = (*bytes).as_ref().get(range.clone()).map(<[u8]>::len);
        if expected.is_none() || expected != found {
            return Err(Error::invalid_model(format_args!(
                "a weight of [{rows}, {cols}] {dtype:?} needs {expected:?} bytes, found {found:?}"
            )));
        }
        let storage = MatrixStorage::Host { bytes, range };
        Ok(Self { rows, cols, dtype, storage }.aligned())
    }

    /// A matrix over a tensor `[rows, cols]` of a device or of the CPU.
    ///
    /// # Errors
    /// `Internal` if the tensor has not two axes.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (rows, cols) = tensor.dims2()?;
        let tensor = tensor.contiguous()?;
        if !matches!(tensor.device(), Device::Cpu) {
            return Ok(Self { rows, cols, dtype: tensor.dtype(), storage: MatrixStorage::Device(tensor) });
        }
        let flat = tensor.flatten_all()?;
        let bytes: Vec<u8> = match tensor.dtype() {
            DType::F32 => bytemuck::cast_slice(&flat.to_vec1::<f32>()?).to_vec(),
            DType::BF16 => bytemuck::cast_slice(&flat.to_vec1::<half::bf16>()?).to_vec(),
            DType::F16 => bytemuck::cast_slice(&flat.to_vec1::<half::f16>()?).to_vec(),
            other => return Err(Error::internal(format_args!("a matrix of {other:?}"))),
        };
        let len = bytes.len();
        Self::from_bytes(Arc::new(bytes), 0..len, tensor.dtype(), (rows, cols))
    }

    /// Output features of a linear layer, entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features of a linear layer, width of an embedding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The dtype of the file.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements, if the matrix lies in host memory.
    pub fn host(&self) -> Option<HostElements<'_>> {
        let MatrixStorage::Host { bytes, range } = &self.storage else { return None };
        let bytes = &(**bytes).as_ref()[range.clone()];
        match self.dtype {
            DType::F32 => bytemuck::try_cast_slice(bytes).ok().map(HostElements::F32),
            DType::BF16 => bytemuck::try_cast_slice(bytes).ok().map(HostElements::Bf16),
            _ => bytemuck::try_cast_slice(bytes).ok().map(HostElements::F16),
        }
    }

    /// The whole matrix as a tensor `[rows, cols]` in its own dtype: a copy on the CPU, shared on a device.
    ///
    /// # Errors
    /// `Device` if the copy fails.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let shape = (self.rows, self.cols);
        match (&self.storage, self.host()) {
            (MatrixStorage::Device(tensor), _) => Ok(tensor.to_device(device)?),
            (_, Some(HostElements::F32(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, Some(HostElements::Bf16(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, Some(HostElements::F16(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, None) => Err(Error::internal("a host matrix is not aligned")),
        }
    }

    /// Moves a host matrix to `device`; on the CPU it stays where it is.
    ///
    /// # Errors
    /// `Device` if the copy fails.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        if matches!(device, Device::Cpu) {
            return Ok(self);
        }
        Self::from_tensor(&self.to_tensor(device)?)
    }

    /// Rows `range` as a matrix of their own, without a copy.
    ///
    /// # Errors
    /// `Internal` if there are no such rows.
    pub fn rows_range(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.rows {
            return Err(Error::internal(format_args!("rows {range:?} of a matrix of {}", self.rows)));
        }
        let rows = range.len();
        let storage = match &self.storage {
            MatrixStorage::Device(tensor) => MatrixStorage::Device(tensor.narrow(0, range.start, rows)?),
            MatrixStorage::Host { bytes, range: whole } => {
                let row_bytes = self.cols * self.dtype.size_in_bytes();
                let start = whole.start + range.start * row_bytes;
                MatrixStorage::Host { bytes: Arc::clone(bytes), range: start..start + rows * row_bytes }
            }
        };
        Ok(Self { rows, storage, ..self.clone() })
    }

    /// The same elements as `rows × cols`, without a copy.
    ///
    /// # Errors
    /// `Internal` if that is another number of elements.
    pub fn reshaped(self, rows: usize, cols: usize) -> Result<Self> {
        if rows * cols != self.rows * self.cols {
            return Err(Error::internal(format_args!("[{}, {}] as [{rows}, {cols}]", self.rows, self.cols)));
        }
        let storage = match self.storage {
            MatrixStorage::Device(tensor) => MatrixStorage::Device(tensor.reshape((rows, cols))?),
            host => host,
        };
        Ok(Self { rows, cols, dtype: self.dtype, storage })
    }

    /// Copies the bytes if they are not aligned for their dtype: a file may place a tensor anywhere.
    fn aligned(self) -> Self {
        if self.host().is_some() {
            return self;
        }
        let MatrixStorage::Host { bytes, range } = &self.storage else { return self };
        // A vector of u32 is aligned for every dtype a matrix can have.
        let source = &(**bytes).as_ref()[range.clone()];
        let mut words = vec![0u32; source.len().div_ceil(4)];
        bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..source.len()].copy_from_slice(source);
        let len = source.len();
        let storage = MatrixStorage::Host { bytes: Arc::new(Words(words)), range: 0..len };
        Self { storage, ..self }
    }
}

struct Words(Vec<u32>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix([{}, {}], {:?})", self.rows, self.cols, self.dtype)
    }
}
