//! [`KvPool`]: the tensors that hold every sequence's keys and values, in blocks.

use super::{KvLayer, KvLayout};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Keys and values of all layers that own some, `num_blocks` blocks of `block_size` slots each.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<PoolLayer>,
    block_size: usize,
    num_blocks: usize,
}

#[derive(Debug)]
enum PoolLayer {
    Owns(LayerKv),
    Reads(usize),
}

/// One layer's keys and values, `[slots, K, D]` each. Writing to them is in place.
#[derive(Clone, Debug)]
pub struct LayerKv {
    /// Keys, normed and rotated.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

impl KvPool {
    /// A pool of zeros. On the CPU untouched blocks take no memory.
    ///
    /// # Errors
    /// `OutOfMemory` or `Device` if the device has no room for it.
    pub fn new(
        layout: &KvLayout,
        num_blocks: usize,
        block_size: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let slots = num_blocks * block_size;
        let layer = |layer: &KvLayer| -> Result<PoolLayer> {
            match *layer {
                KvLayer::Reads { layer_idx } => Ok(PoolLayer::Reads(layer_idx)),
                KvLayer::Owns { num_key_value_heads, head_dim, .. } => {
                    let zeros = || Tensor::zeros((slots, num_key_value_heads, head_dim), dtype, device);
                    Ok(PoolLayer::Owns(LayerKv { keys: zeros()?, values: zeros()? }))
                }
            }
        };
        let layers = layout.layers.iter().map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, block_size, num_blocks })
    }

    /// Slots per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
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
