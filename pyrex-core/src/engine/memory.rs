//! How large the cache must be: for now, exactly one sequence of the longest length.

use super::options::EngineConfig;
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::ModelSpec;
use crate::schedule::{BLOCK_SIZE, BlockAllocator};

/// Bytes of keys and values one token takes over all layers.
pub fn kv_bytes_per_token(spec: &ModelSpec) -> usize {
    spec.kv.elements_per_token() * spec.dtype.size_in_bytes()
}

/// The cache's tensors, and the accounting over the same blocks.
///
/// # Errors
/// `OutOfMemory` if the size is beyond counting or the device has no room.
pub(crate) fn cache(spec: &ModelSpec, config: &EngineConfig) -> Result<(KvPool, BlockAllocator)> {
    let num_blocks = config.max_model_len.div_ceil(BLOCK_SIZE);
    let pool_bytes = num_blocks.checked_mul(BLOCK_SIZE).and_then(|n| n.checked_mul(kv_bytes_per_token(spec)));
    if pool_bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) || u32::try_from(num_blocks).is_err() {
        return Err(Error::out_of_memory(format_args!(
            "a cache of {} tokens of {} bytes each cannot be addressed",
            config.max_model_len,
            kv_bytes_per_token(spec)
        )));
    }
    let pool = KvPool::new(&spec.kv, num_blocks, BLOCK_SIZE, spec.dtype, &spec.device)?;
    Ok((pool, BlockAllocator::new(num_blocks, BLOCK_SIZE)))
}
