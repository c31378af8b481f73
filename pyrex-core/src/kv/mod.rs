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

/// The layers that forget alike: their blocks have the same lives, so a sequence has one block table for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGroup {
    /// How many tokens back they see; `None` sees all.
    pub window: Option<usize>,
    /// Elements of keys and values one token takes over the layers of the group.
    pub elements_per_token: usize,
}

impl KvLayout {
    /// Elements of keys and values one token takes over all layers.
    pub fn elements_per_token(&self) -> usize {
        self.groups().iter().map(|group| group.elements_per_token).sum()
    }

    /// The groups, in the order in which their first layers come.
    pub fn groups(&self) -> Vec<KvGroup> {
        let mut groups: Vec<KvGroup> = Vec::new();
        for layer in &self.layers {
            let KvLayer::Owns { num_key_value_heads, head_dim, window } = *layer else { continue };
            let elements_per_token = 2 * num_key_value_heads * head_dim;
            match groups.iter_mut().find(|group| group.window == window) {
                Some(group) => group.elements_per_token += elements_per_token,
                None => groups.push(KvGroup { window, elements_per_token }),
            }
        }
        groups
    }
}
