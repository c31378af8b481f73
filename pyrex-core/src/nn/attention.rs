//! [`Attention`]: grouped-query attention over the paged cache, with normed queries, keys and values.

use super::{Linear, RmsNorm};
use crate::batch::{Batch, Queries};
use crate::error::Result;
use crate::fault::{Fault, Faults};
use crate::kv::LayerKv;
use crate::ops::attention::{PagedKv, paged_attention, paged_reference};
use crate::ops::gather::write_slots;
use crate::ops::heads::{CacheWrite, norm_rope, write_keys_values};
use crate::ops::rope::{RopeTable, rope};
use crate::trace::Tap;
use crate::weights::Weights;
use candle_core::{DType, Tensor};

/// The sizes of one layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Width of the residual stream, `C`.
    pub hidden_size: usize,
    /// Query heads, `H`.
    pub num_attention_heads: usize,
    /// Key and value heads, `K`.
    pub num_key_value_heads: usize,
    /// Width of a head, `D`.
    pub head_dim: usize,
    /// How many tokens back a query sees, itself included.
    pub window: Option<usize>,
    /// Of every norm.
    pub rms_norm_eps: f64,
}

/// The rows that attend, and the angles of their positions.
#[derive(Clone, Debug)]
pub struct AttentionRows {
    /// Where each row stands.
    pub queries: Queries,
    /// Its angles, for this kind of layer.
    pub rope: RopeTable,
}

/// One layer's attention. A layer that reads another's cache has no keys and values of its own.
pub struct Attention {
    q_proj: Linear,
    q_norm: RmsNorm,
    o_proj: Linear,
    key_value: Option<KeyValue>,
    shape: AttentionShape,
    path: String,
    faults: Faults,
    keys_as_values: bool,
}

struct KeyValue {
    k_proj: Linear,
    k_norm: RmsNorm,
    v_proj: Linear,
    v_norm: RmsNorm,
}

impl Attention {
    /// Loads a layer that writes keys and values.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load_owning(weights: &Weights<'_>, shape: AttentionShape) -> Result<Self> {
        let kv_features = shape.num_key_value_heads * shape.head_dim;
        let key_value = KeyValue {
            k_proj: Linear::load(&weights.at("k_proj"), shape.hidden_size, kv_features)?,
            k_norm: RmsNorm::load(&weights.at("k_norm"), shape.head_dim, shape.rms_norm_eps)?,
            v_proj: Linear::load(&weights.at("v_proj"), shape.hidden_size, kv_features)?,
            v_norm: RmsNorm::unscaled(&weights.at("v_norm"), shape.rms_norm_eps),
        };
        Ok(Self { key_value: Some(key_value), ..Self::load_reading(weights, shape)? })
    }

    /// Loads a layer that reads the keys and values of another.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn load_reading(weights: &Weights<'_>, shape: AttentionShape) -> Result<Self> {
        let features = shape.num_attention_heads * shape.head_dim;
        Ok(Self {
            q_proj: Linear::load(&weights.at("q_proj"), shape.hidden_size, features)?,
            q_norm: RmsNorm::load(&weights.at("q_norm"), shape.head_dim, shape.rms_norm_eps)?,
            o_proj: Linear::load(&weights.at("o_proj"), features, shape.hidden_size)?,
            key_value: None,
            shape,
            path: weights.path().to_string(),
            faults: weights.faults(),
            keys_as_values: weights.faults().has_in(Fault::KeysAsValues, weights.path()),
        })
    }

    /// Writes the keys and values of every row of the batch to the cache, if this layer owns some.
    /// `x`: `[T, C]`, normed; `rope`: the angles of all `T` rows.
    ///
    /// # Errors
    /// `Internal` if the shapes do not fit; whatever the tap says.
    pub fn write(
        &self,
        tap: &mut dyn Tap,
        x: &Tensor,
        rope_table: &RopeTable,
        batch: &Batch,
        kv: &LayerKv,
    ) -> Result<()> {
        let Some(own) = &self.key_value else { return Ok(()) };
        let heads = (x.dim(0)?, self.shape.num_key_value_heads, self.shape.head_dim);
        let slot_mapping = &batch.group(kv.group)?.slot_mapping;
        if let (Some(k_norm), Some(v_norm), false) =
            (own.k_norm.fused(tap), own.v_norm.fused(tap), self.keys_as_values)
        {
            let (keys, values) = Linear::forward_pair(&own.k_proj, &own.v_proj, x)?;
            let (keys, values) = (&keys.reshape(heads)?, &values.reshape(heads)?);
            let new = CacheWrite { keys, values, k_norm, v_norm, rope: rope_table, slot_mapping };
            return write_keys_values(&new, &kv.keys, &kv.values);
        }
        let keys = own.k_proj.forward(tap, x)?.reshape(heads)?;
        let keys = rope(&own.k_norm.forward(tap, &keys)?, rope_table)?;
        let keys = tap.see(|| format!("{}.k_rope", self.path), keys)?;
        let values = own.v_proj.forward(tap, x)?.reshape(heads)?;
        let values = own.v_norm.forward(tap, &values)?;
        write_slots(&kv.keys, slot_mapping, &keys)?;
        write_slots(&kv.values, slot_mapping, if self.keys_as_values { &keys } else { &values })
    }

    /// What the asking rows read from the cache, projected. `x`: `[R, C]`, normed, the rows of `rows`; returns `[R, C]`.
    ///
    /// Scores are not scaled: the temperature lies in the norms of queries and keys.
    ///
    /// # Errors
    /// `Internal` if the shapes do not fit; whatever the tap says.
    pub fn attend(
        &self,
        tap: &mut dyn Tap,
        x: &Tensor,
        rows: &AttentionRows,
        batch: &Batch,
        kv: &LayerKv,
    ) -> Result<Tensor> {
        let heads = (x.dim(0)?, self.shape.num_attention_heads, self.shape.head_dim);
        let q = self.q_proj.forward(tap, x)?.reshape(heads)?;
        let q = match self.q_norm.fused(tap) {
            Some(norm) => norm_rope(&q, norm, &rows.rope)?,
            None => rope(&self.q_norm.forward(tap, &q)?, &rows.rope)?,
        };
        let q = tap.see(|| format!("{}.q_rope", self.path), q)?;
        let paged = PagedKv {
            keys: &kv.keys,
            values: &kv.values,
            block_tables: &batch.group(kv.group)?.block_tables,
            block_size: batch.block_size,
        };
        let window = self.shape.window;
        let context = match self.faults.has(Fault::Bf16Rounding) {
            true => paged_reference(&q, &paged, &rows.queries, window, 1.0, DType::BF16)?,
            false => paged_attention(&q, &paged, &rows.queries, window, 1.0)?,
        };
        let context = context.reshape((heads.0, heads.1 * heads.2))?;
        let context = tap.see(|| format!("{}.o_proj.input", self.path), context)?;
        let out = self.o_proj.forward(tap, &context)?;
        tap.see(|| self.path.clone(), out)
    }
}
