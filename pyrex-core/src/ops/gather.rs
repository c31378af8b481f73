//! Rows in and out: embeddings, soft tokens into place, KV slots.

use super::Matrix;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Rows `ids` of `table`, widened or rounded to `dtype`. `ids`: `[T]` u32; returns `[T, C]`.
///
/// # Errors
/// `InvalidRequest` if an id is not below the number of rows.
pub fn gather_rows(table: &Matrix, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(table.to_tensor(ids.device())?.index_select(ids, 0)?.to_dtype(dtype)?)
}

/// `x` with `x[rows[i]] = source[i]`. `x`: `[T, C]`, `rows`: `[S]` u32, distinct; `source`: `[S, C]` of the same dtype.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn scatter_rows(x: &Tensor, rows: &Tensor, source: &Tensor) -> Result<Tensor> {
    let index = rows.reshape(((), 1))?.broadcast_as(source.shape())?.contiguous()?;
    Ok(x.scatter(&index, source, 0)?)
}

/// Writes keys or values to their cache slots, in place: `pool[slots[t]] = source[t]`.
///
/// `pool`: `[slots, K, D]`; `slots`: `[T]` u32; `source`: `[T, K, D]` of the same dtype.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn write_slots(pool: &Tensor, slots: &Tensor, source: &Tensor) -> Result<()> {
    let index = slots.reshape(((), 1, 1))?.broadcast_as(source.shape())?.contiguous()?;
    Ok(pool.scatter_set(&index, source, 0)?)
}
