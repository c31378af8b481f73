//! [`Elements`]: the numbers of a tensor in whatever type they lie, read as f32 piece by piece.

use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::Dtype;
use std::borrow::Cow;
use std::ops::Range;

/// The elements of a tensor in row-major order.
#[derive(Clone, Debug)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(Cow<'a, [f32]>),
    /// bfloat16.
    Bf16(Cow<'a, [bf16]>),
    /// IEEE half precision.
    F16(Cow<'a, [f16]>),
    /// 64-bit floats.
    F64(Cow<'a, [f64]>),
    /// Integers.
    I64(Cow<'a, [i64]>),
}

impl<'a> From<&'a [f32]> for Elements<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(Cow::Borrowed(values))
    }
}

impl<'a> Elements<'a> {
    /// The elements that `bytes` hold, little-endian; borrowed where they are aligned.
    ///
    /// # Errors
    /// `Unsupported` if it is a type that no dump has.
    pub fn from_bytes(bytes: &'a [u8], dtype: Dtype) -> Result<Self> {
        fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
            match bytemuck::try_cast_slice(bytes) {
                Ok(elements) => Cow::Borrowed(elements),
                Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
            }
        }
        Ok(match dtype {
            Dtype::F32 => Self::F32(cast(bytes)),
            Dtype::BF16 => Self::Bf16(cast(bytes)),
            Dtype::F16 => Self::F16(cast(bytes)),
            Dtype::F64 => Self::F64(cast(bytes)),
            Dtype::I64 => Self::I64(cast(bytes)),
            other => {
                let what = format_args!("{other:?} in a dump, expected F32, BF16, F16, F64 or I64");
                return Err(Error::unsupported(what));
            }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
            Self::F16(x) => x.len(),
            Self::F64(x) => x.len(),
            Self::I64(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those in `range` as f32, in `copy` if they are not that already.
    pub fn as_f32<'b>(&'b self, range: Range<usize>, copy: &'b mut Vec<f32>) -> &'b [f32] {
        copy.clear();
        match self {
            Self::F32(x) => return &x[range],
            Self::Bf16(x) => copy.extend(x[range].iter().map(|x| x.to_f32())),
            Self::F16(x) => copy.extend(x[range].iter().map(|x| x.to_f32())),
            Self::F64(x) => copy.extend(x[range].iter().map(|x| *x as f32)),
            Self::I64(x) => copy.extend(x[range].iter().map(|x| *x as f32)),
        }
        copy
    }

    /// All of them as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        if let Self::F32(x) = self {
            return x.to_vec();
        }
        let mut copy = Vec::with_capacity(self.len());
        self.as_f32(0..self.len(), &mut copy);
        copy
    }
}
