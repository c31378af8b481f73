//! How many cache blocks there are: a byte budget, shared out so that every group of layers runs out at the same number of
//! sequences of the longest length.

use super::options::{EngineConfig, KvCacheSize};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::ModelSpec;
use crate::ops;
use crate::schedule::{BLOCK_SIZE, most_blocks};

/// Bytes of keys and values one token takes over all layers.
pub fn kv_bytes_per_token(spec: &ModelSpec) -> usize {
    spec.kv.elements_per_token() * spec.dtype.size_in_bytes()
}

/// The window of a group of layers, and its number of blocks.
pub(crate) type GroupBlocks = (Option<usize>, usize);

/// The cache's tensors, and the size of each group of layers.
///
/// # Errors
/// `InvalidRequest` if the size has no room for one sequence of the longest length, `OutOfMemory` if it is beyond counting or
/// the device has no room.
pub(crate) fn cache(
    spec: &ModelSpec,
    config: &EngineConfig,
    size: KvCacheSize,
) -> Result<(KvPool, Vec<GroupBlocks>)> {
    let sizes = Sizes::new(spec, config);
    let budget = match size {
        KvCacheSize::Bytes(bytes) => {
            check_free(bytes as u64, ops::free_bytes(&spec.device).unwrap_or(u64::MAX))?;
            bytes as f64
        }
        KvCacheSize::FreeFraction(share) if share > 0.0 && share <= 1.0 => {
            share * ops::free_bytes(&spec.device)? as f64
        }
        KvCacheSize::FreeFraction(share) => {
            return Err(Error::invalid_request(format_args!(
                "the cache's share of free memory is {share}, expected a number above 0 and up to 1"
            )));
        }
        KvCacheSize::Auto => {
            let all = sizes.bytes_per_sequence() * config.max_sequences as f64;
            let share = if spec.device.is_cpu() { 0.25 } else { 0.75 };
            let most = ops::free_bytes(&spec.device).map_or(f64::INFINITY, |bytes| bytes as f64 * share);
            all.min(most).max(sizes.bytes_per_sequence())
        }
    };
    let num_sequences = budget / sizes.bytes_per_sequence();
    if num_sequences < 1.0 {
        return Err(Error::invalid_request(format_args!(
            "the cache has {budget:.0} bytes, expected at least {:.0}, for one sequence of {} tokens (max_model_len)",
            sizes.bytes_per_sequence(),
            config.max_model_len
        )));
    }
    let blocks = |group: &GroupSize| (group.window, (group.most_blocks as f64 * num_sequences) as usize);
    let groups: Vec<GroupBlocks> = sizes.groups.iter().map(blocks).collect();
    if budget > isize::MAX as f64
        || groups.iter().any(|(_, blocks)| u32::try_from(blocks * BLOCK_SIZE).is_err())
    {
        return Err(Error::out_of_memory(format_args!("a cache of {budget:.0} bytes cannot be addressed")));
    }
    let num_blocks: Vec<usize> = groups.iter().map(|(_, num_blocks)| *num_blocks).collect();
    let pool = KvPool::new(&spec.kv, &num_blocks, BLOCK_SIZE, spec.dtype, &spec.device)?;
    Ok((pool, groups))
}

/// The tensor library ends the process when the machine refuses it memory, so it is not asked for more than there is.
///
/// # Errors
/// `OutOfMemory` if fewer than `bytes` are free.
fn check_free(bytes: u64, free: u64) -> Result<()> {
    match bytes <= free {
        true => Ok(()),
        false => Err(Error::out_of_memory(format_args!(
            "kv_cache is {bytes} bytes, expected at most the {free} that are free"
        ))),
    }
}

/// What one sequence of the longest length takes.
struct Sizes {
    groups: Vec<GroupSize>,
}

struct GroupSize {
    window: Option<usize>,
    most_blocks: usize,
    block_bytes: f64,
}

impl Sizes {
    fn new(spec: &ModelSpec, config: &EngineConfig) -> Self {
        let size = |group: crate::kv::KvGroup| GroupSize {
            window: group.window,
            most_blocks: most_blocks(group.window, config.max_model_len, config.max_batch_tokens, BLOCK_SIZE),
            block_bytes: (group.elements_per_token * spec.dtype.size_in_bytes()) as f64 * BLOCK_SIZE as f64,
        };
        Self { groups: spec.kv.groups().into_iter().map(size).collect() }
    }

    fn bytes_per_sequence(&self) -> f64 {
        self.groups.iter().map(|group| group.most_blocks as f64 * group.block_bytes).sum()
    }
}
