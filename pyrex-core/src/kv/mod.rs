//! The cache's storage: which layer owns keys and values, and the block tensors they lie in.
//!
//! Accounting (which block is whose) is `schedule`'s, in integers. Sequences and requests are not known here.

pub mod pool;

pub use pool::{KvPool, LayerKv};

/// What each decoder layer does with the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// One per layer, in order.
    pub layers: Vec<KvLayer>,
}

/// What one layer does with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvLayer {
    /// Writes and reads keys and values of its own.
    Owns {
        /// Key and value heads, `K`.
        num_key_value_heads: usize,
        /// Width of a head, `D`.
        head_dim: usize,
        /// How many tokens back it sees, itself included; `None` sees all.
        window: Option<usize>,
    },
    /// Reads what another layer wrote in the same forward.
    Reads {
        /// The layer that owns them.
        layer_idx: usize,
    },
}

impl KvLayout {
    /// Elements of keys and values one token takes over all layers.
    pub fn elements_per_token(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                KvLayer::Owns { num_key_value_heads, head_dim, .. } => 2 * num_key_value_heads * head_dim,
                KvLayer::Reads { .. } => 0,
            })
            .sum()
    }
}
