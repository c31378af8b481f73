//! [`Embedding`]: ids to scaled rows, and the same table as an output head.

use crate::error::Result;
use crate::fault::{Fault, Faults};
use crate::ops::Matrix;
use crate::ops::gather::embed_rows;
use crate::ops::matmul::matmul;
use candle_core::{DType, Tensor};

/// A table of rows and the factor they are multiplied by.
pub struct Embedding {
    table: Matrix,
    factor: f32,
    dtype: DType,
}

impl Embedding {
    /// Rows of `table` times `factor`, in `dtype`. The factor is rounded to `dtype` first: the reference keeps it in a
    /// buffer of the dtype it was loaded in (39.25 for a hidden size of 1536 in bf16, 39.19 in f32).
    pub fn new(table: Matrix, factor: f64, dtype: DType, faults: Faults) -> Self {
        let factor = match dtype {
            DType::BF16 if !faults.has(Fault::UnroundedEmbeddingScale) => {
                half::bf16::from_f64(factor).to_f32()
            }
            _ => factor as f32,
        };
        Self { table, factor, dtype }
    }

    /// `ids`: `[T]` u32; returns `[T, C]`.
    ///
    /// # Errors
    /// `InvalidRequest` if an id is not in the table.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        embed_rows(&self.table, ids, self.factor, self.dtype)
    }

    /// The table, and the factor that its rows are multiplied by.
    pub fn parts(&self) -> (&Matrix, f32) {
        (&self.table, self.factor)
    }

    /// `hidden_states · tableᵀ`, unscaled: the tied output head. `[T, C]` to `[T, V]`.
    ///
    /// # Errors
    /// `Internal` if the widths differ.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        matmul(hidden_states, &self.table)
    }
}
