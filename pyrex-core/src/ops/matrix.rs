//! [`Matrix`]: a weight as the ops see it, in the dtype of its file, mapped or on a device.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
#[cfg(feature = "cuda")]
use pyrex_kernels::cuda::Pinned;
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
    Host {
        bytes: SharedBytes,
        range: Range<usize>,
    },
    Device(Tensor, Placement),
    /// In host memory that the device reads by itself.
    #[cfg(feature = "cuda")]
    Pinned {
        memory: Arc<Pinned>,
        range: Range<usize>,
    },
}

/// Where weights go, and what multiplies by them there.
#[derive(Clone, Default)]
pub struct Placement {
    #[cfg(feature = "cuda")]
    place: Option<Arc<super::cuda::Place>>,
}

impl Placement {
    /// On `device`; the CPU takes them where they are.
    ///
    /// # Errors
    /// `Device` or `OutOfMemory` if the device has no room for what it multiplies with.
    pub fn on(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            return Ok(Self { place: Some(Arc::new(super::cuda::Place::new(device)?)) });
        }
        let _ = device;
        Ok(Self::default())
    }

    /// What multiplies products of many rows.
    #[cfg(feature = "cuda")]
    pub(super) fn blas(&self) -> Option<&pyrex_kernels::cuda::Blas> {
        self.place.as_deref().map(super::cuda::Place::blas)
    }
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
            let storage = MatrixStorage::Device(tensor.clone(), Placement::default());
            return Ok(Self { rows, cols, dtype: tensor.dtype(), storage });
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
        let bytes = match &self.storage {
            MatrixStorage::Host { bytes, range } => &(**bytes).as_ref()[range.clone()],
            #[cfg(feature = "cuda")]
            MatrixStorage::Pinned { memory, range } => &memory[range.clone()],
            MatrixStorage::Device(..) => return None,
        };
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
            (MatrixStorage::Device(tensor, _), _) => Ok(tensor.to_device(device)?),
            (_, Some(HostElements::F32(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, Some(HostElements::Bf16(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, Some(HostElements::F16(x))) => Ok(Tensor::from_slice(x, shape, device)?),
            (_, None) => Err(Error::internal("a host matrix is not aligned")),
        }
    }

    /// Moves a host matrix to where `placement` says; on the CPU it stays where it is.
    ///
    /// # Errors
    /// `OutOfMemory` if the device has no room, `Device` if the copy fails.
    pub fn placed(self, placement: &Placement) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(place) = &placement.place {
            let tensor = place.upload(&self)?;
            return Ok(Self { storage: MatrixStorage::Device(tensor, placement.clone()), ..self });
        }
        let _ = placement;
        Ok(self)
    }

    /// Moves a host matrix to where the device of `placement` can read single rows of it, but not into its memory: for a large
    /// table of which little is read. On the CPU it stays where it is.
    ///
    /// # Errors
    /// `OutOfMemory` if the host cannot set so much aside, `Device` if the driver refuses it.
    pub fn beside(self, placement: &Placement) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(place) = &placement.place {
            let memory = Arc::new(place.pin(&self)?);
            let range = 0..memory.len();
            return Ok(Self { storage: MatrixStorage::Pinned { memory, range }, ..self });
        }
        let _ = placement;
        Ok(self)
    }

    /// The bytes of a host matrix.
    #[cfg(feature = "cuda")]
    pub(super) fn host_bytes(&self) -> Result<&[u8]> {
        match self.host() {
            Some(HostElements::F32(x)) => Ok(bytemuck::cast_slice(x)),
            Some(HostElements::Bf16(x)) => Ok(bytemuck::cast_slice(x)),
            Some(HostElements::F16(x)) => Ok(bytemuck::cast_slice(x)),
            None => Err(Error::internal("a matrix of a device has no bytes here")),
        }
    }

    /// Hands `use_it` what a kernel reads, and what multiplies products of many rows, if there is any.
    ///
    /// # Errors
    /// `Internal` if the device cannot read the matrix; what `use_it` says.
    #[cfg(feature = "cuda")]
    pub(super) fn with_buffer<T>(
        &self,
        use_it: impl FnOnce(pyrex_kernels::Buffer<'_>, &Placement) -> Result<T>,
    ) -> Result<T> {
        match &self.storage {
            MatrixStorage::Device(tensor, placement) => {
                use_it(super::cuda::view(tensor)?.buffer(), placement)
            }
            MatrixStorage::Pinned { memory, range } => {
                let buffer = super::cuda::pinned_buffer(memory, range, self.dtype)?;
                use_it(buffer, &Placement::default())
            }
            MatrixStorage::Host { .. } => {
                Err(Error::internal(format_args!("{self:?} is not where a device reads it")))
            }
        }
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
        let row_bytes = self.cols * self.dtype.size_in_bytes();
        let part = |whole: &Range<usize>| {
            let start = whole.start + range.start * row_bytes;
            start..start + rows * row_bytes
        };
        let storage = match &self.storage {
            MatrixStorage::Device(tensor, placement) => {
                MatrixStorage::Device(tensor.narrow(0, range.start, rows)?, placement.clone())
            }
            MatrixStorage::Host { bytes, range: whole } => {
                MatrixStorage::Host { bytes: Arc::clone(bytes), range: part(whole) }
            }
            #[cfg(feature = "cuda")]
            MatrixStorage::Pinned { memory, range: whole } => {
                MatrixStorage::Pinned { memory: Arc::clone(memory), range: part(whole) }
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
            MatrixStorage::Device(tensor, placement) => {
                MatrixStorage::Device(tensor.reshape((rows, cols))?, placement)
            }
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
