//! [`KvPool`]: the tensors that hold every sequence's keys and values, in blocks.

use super::{KvLayer, KvLayout};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Keys and values of all layers that own some, in blocks of `block_size` slots; each group of layers has blocks of its own.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<PoolLayer>,
    block_size: usize,
    num_groups: usize,
}

#[derive(Debug)]
enum PoolLayer {
    Owns(LayerKv),
    Reads(usize),
}

/// One layer's keys and values, `[slots, K, D]` each. Writing to them is in place.
#[derive(Clone, Debug)]
pub struct LayerKv {
    /// Which of the layout's groups the layer belongs to, and so which block table finds its slots.
    pub group: usize,
    /// Keys, normed and rotated.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

impl KvPool {
    /// A pool of zeros with `num_blocks[g]` blocks for the layers of group `g`. On the CPU untouched blocks take no memory.
    ///
    /// # Errors
    /// `Internal` if the groups are not the layout's; `OutOfMemory` or `Device` if the device has no room for it.
    pub fn new(
        layout: &KvLayout,
        num_blocks: &[usize],
        block_size: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let groups = layout.groups();
        if groups.len() != num_blocks.len() {
            return Err(Error::internal(format_args!(
                "{num_blocks:?} blocks for {} groups of layers",
                groups.len()
            )));
        }
        let layer = |layer: &KvLayer| -> Result<PoolLayer> {
            let (heads, head_dim, window) = match *layer {
                KvLayer::Reads { layer_idx } => return Ok(PoolLayer::Reads(layer_idx)),
                KvLayer::Owns { num_key_value_heads, head_dim, window } => {
                    (num_key_value_heads, head_dim, window)
                }
            };
            let group = groups.iter().position(|group| group.window == window).unwrap_or_default();
            let slots = num_blocks[group] * block_size;
            let zeros = || Tensor::zeros((slots, heads, head_dim), dtype, device);
            Ok(PoolLayer::Owns(LayerKv { group, keys: zeros()?, values: zeros()? }))
        };
        let layers = layout.layers.iter().map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, block_size, num_groups: groups.len() })
    }

    /// Slots per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Groups of layers, each with block tables of its own.
    pub fn num_groups(&self) -> usize {
        self.num_groups
    }

    /// Copies block `from` over block `to` in every layer of `group`.
    ///
    /// # Errors
    /// `Internal` if there is no such block.
    pub fn copy_block(&mut self, group: usize, from: u32, to: u32) -> Result<()> {
        for layer in &self.layers {
            let PoolLayer::Owns(kv) = layer else { continue };
            if kv.group != group {
                continue;
            }
            for rows in [&kv.keys, &kv.values] {
                let block = rows.narrow(0, from as usize * self.block_size, self.block_size)?.copy()?;
                rows.slice_set(&block, 0, to as usize * self.block_size)?;
            }
        }
        Ok(())
    }

    /// The keys and values layer `layer_idx` reads: its own, or those of the layer it shares with.
    ///
    /// # Errors
    /// `Internal` if there is no such layer, or it shares with one that owns nothing.
    pub fn layer(&self, layer_idx: usize) -> Result<&LayerKv> {
        let owner = match self.layers.get(layer_idx) {
            Some(PoolLayer::Reads(owner)) => self.layers.get(*owner),
            layer => layer,
        };
        match owner {
            Some(PoolLayer::Owns(kv)) => Ok(kv),
            _ => Err(Error::internal(format_args!("layer {layer_idx} has no keys and values to read"))),
        }
    }
}
