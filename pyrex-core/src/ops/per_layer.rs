//! A small vector per token and layer: one part looked up by the token, one projected from its context.

use super::Matrix;
use super::activation::scale;
use super::gather::embed_rows;
use super::rms_norm::{Norm, rms_norm};
use crate::error::Result;
use candle_core::{DType, Tensor};
use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

/// What the vectors of some layers are made from. `P` is the width of a vector.
#[derive(Clone, Debug)]
pub struct PerLayer<'a> {
    /// `[V · num_layers, P]`: row `id · num_layers + layer` is a token's in a layer.
    pub table: &'a Matrix,
    /// What a row of the table is multiplied by.
    pub factor: f32,
    /// How many layers the table has.
    pub num_layers: usize,
    /// Those that are wanted.
    pub layers: Range<usize>,
    /// What the projection of the context is multiplied by.
    pub projection_scale: f32,
    /// Of the scaled projection.
    pub norm: Norm<'a>,
}

/// `(norm(context · projection_scale) + table[id] · factor) · 2^-½`, each operation rounded to the dtype of `context`.
///
/// `context`: `[T, layers.len() · P]`, projected; `ids`: `[T]` u32. Returns `[T, layers.len(), P]`.
///
/// # Errors
/// `InvalidRequest` if an id is not in the table; on a device its vectors are NaN instead.
pub fn per_layer_inputs(context: &Tensor, ids: &Tensor, per_layer: &PerLayer<'_>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(context) {
        return super::cuda::rows::per_layer_inputs(&lane, context, ids, per_layer);
    }
    per_layer_inputs_reference(context, ids, per_layer)
}

/// The definition of [`per_layer_inputs`]: one op after another.
///
/// # Errors
/// As [`per_layer_inputs`].
pub fn per_layer_inputs_reference(
    context: &Tensor,
    ids: &Tensor,
    per_layer: &PerLayer<'_>,
) -> Result<Tensor> {
    let by_token = by_token(ids, per_layer, context.dtype())?;
    let by_context = scale(context, per_layer.projection_scale)?.reshape(by_token.shape())?;
    let by_context = rms_norm(&by_context, per_layer.norm.weight, per_layer.norm.eps)?;
    add_parts(&by_context, &by_token)
}

/// The part that a token has whatever is around it: `table[id] · factor`, `[T, layers.len(), P]`.
///
/// # Errors
/// As [`per_layer_inputs`].
pub fn by_token(ids: &Tensor, per_layer: &PerLayer<'_>, dtype: DType) -> Result<Tensor> {
    let (rows, layers) = (ids.dim(0)?, &per_layer.layers);
    let offsets = Tensor::arange(layers.start as u32, layers.end as u32, ids.device())?;
    let num_layers = Tensor::full(per_layer.num_layers as u32, 1, ids.device())?;
    let first = ids.broadcast_mul(&num_layers)?.reshape((rows, 1))?;
    let table_rows = first.broadcast_add(&offsets.reshape((1, layers.len()))?)?.flatten_all()?;
    let by_token = embed_rows(per_layer.table, &table_rows, per_layer.factor, dtype)?;
    Ok(by_token.reshape((rows, layers.len(), per_layer.table.cols()))?)
}

/// Both parts together: `(a + b) · 2^-½`.
///
/// # Errors
/// `Internal` if the shapes differ.
pub fn add_parts(by_context: &Tensor, by_token: &Tensor) -> Result<Tensor> {
    scale(&(by_context + by_token)?, FRAC_1_SQRT_2)
}
