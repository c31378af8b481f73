//! What becomes of queries, keys and values between their projection and attention: norm, rotation, cache.

use super::gather::write_slots;
use super::rms_norm::{Norm, rms_norm};
use super::rope::{RopeTable, rope};
use crate::error::Result;
use candle_core::Tensor;

/// `rope(norm(x))` of every head. `x`: `[T, H, D]`; returns the same shape, rounded as if both ran alone.
///
/// # Errors
/// `Internal` if the shapes do not fit.
pub fn norm_rope(x: &Tensor, norm: Norm<'_>, table: &RopeTable) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::norm_rope(&lane, x, norm, table);
    }
    norm_rope_reference(x, norm, table)
}

/// The definition of [`norm_rope`]: one op after another.
///
/// # Errors
/// As [`norm_rope`].
pub fn norm_rope_reference(x: &Tensor, norm: Norm<'_>, table: &RopeTable) -> Result<Tensor> {
    rope(&rms_norm(x, norm.weight, norm.eps)?, table)
}

/// New keys and values on their way into the cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheWrite<'a> {
    /// `[T, K, D]`, as projected.
    pub keys: &'a Tensor,
    /// `[T, K, D]`, as projected.
    pub values: &'a Tensor,
    /// Of the keys.
    pub k_norm: Norm<'a>,
    /// Of the values.
    pub v_norm: Norm<'a>,
    /// The angles of the keys.
    pub rope: &'a RopeTable,
    /// `[T]` u32: where they go.
    pub slot_mapping: &'a Tensor,
}

/// Writes normed and rotated keys to `key_pool`, normed values to `value_pool`, `[slots, K, D]` each, in place.
///
/// # Errors
/// `Internal` if the shapes do not fit or, on the CPU, a slot is not in the pool.
pub fn write_keys_values(new: &CacheWrite<'_>, key_pool: &Tensor, value_pool: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(new.keys) {
        return super::cuda::rows::write_keys_values(&lane, new, key_pool, value_pool);
    }
    write_keys_values_reference(new, key_pool, value_pool)
}

/// The definition of [`write_keys_values`]: one op after another.
///
/// # Errors
/// As [`write_keys_values`].
pub fn write_keys_values_reference(
    new: &CacheWrite<'_>,
    key_pool: &Tensor,
    value_pool: &Tensor,
) -> Result<()> {
    write_slots(key_pool, new.slot_mapping, &norm_rope(new.keys, new.k_norm, new.rope)?)?;
    write_slots(value_pool, new.slot_mapping, &rms_norm(new.values, new.v_norm.weight, new.v_norm.eps)?)
}
