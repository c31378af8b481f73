//! Decode: one row of each sequence, its keys split over thread blocks.

use crate::attention::{Paged, fma_shared_bytes};
use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Module, Queue, count};

const MODULE: Module = Module { name: "paged_decode", ptx: include_str!("paged_decode.ptx") };

// As in decode_parts.cuh.
const HEADS: usize = 8;
const TILE: usize = 16;
const MIN_TILES: usize = 4;
const STRANDS: u32 = 8;
const THREADS: u32 = 128;

/// The sizes of a decode, from which follows how much scratch it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeSizes {
    /// How many sequences a launch serves.
    pub sequences: usize,
    /// Entries of each block table.
    pub table_len: usize,
    /// Slots of a block.
    pub block_size: usize,
    /// The window, if there is one.
    pub window: Option<usize>,
    /// `H`.
    pub heads: usize,
    /// `K`.
    pub kv_heads: usize,
    /// `D`.
    pub head_dim: usize,
}

impl DecodeSizes {
    /// Thread blocks beside each other that read different heads of a sequence.
    fn groups(&self) -> usize {
        self.kv_heads * (self.heads / self.kv_heads.max(1)).div_ceil(HEADS)
    }

    /// Into how many parts a row's keys are split at most, on a device with so many multiprocessors: never a matter of the batch.
    fn max_parts(&self, multiprocessors: u32) -> usize {
        (multiprocessors as usize / self.groups().max(1)).max(1)
    }

    /// How many parts there can be at all of what the tables and the window let a row see.
    fn parts(&self, multiprocessors: u32) -> usize {
        let in_table = (self.table_len * self.block_size).div_ceil(TILE);
        let in_window = self.window.map_or(usize::MAX, |window| window.saturating_sub(1) / TILE + 2);
        in_table.min(in_window).div_ceil(MIN_TILES).clamp(1, self.max_parts(multiprocessors))
    }

    fn scratch_len(&self, multiprocessors: u32) -> usize {
        let of_parts = self.parts(multiprocessors) * HEADS * (self.head_dim + 2);
        self.sequences * self.groups() * (of_parts + 2)
    }
}

/// How many f32 the scratch of [`paged_decode`] must have at least: more sequences, longer tables and wider windows take more.
pub fn decode_scratch_len(queue: &dyn Queue, sizes: &DecodeSizes) -> usize {
    sizes.scratch_len(queue.multiprocessors())
}

/// Attention of sequences that have one row each, or none: then nothing is written.
///
/// A row's result depends, bit for bit, on nothing but the row and its keys. `scratch`: f32, of [`decode_scratch_len`] or more; what
/// it holds before and behind does not matter.
///
/// # Errors
/// `Arguments` if something does not fit; what the queue says.
pub fn paged_decode(queue: &dyn Queue, paged: &Paged<'_>, scratch: Buffer<'_>) -> Result<()> {
    paged.check()?;
    let sizes = sizes_of(paged);
    let needed = decode_scratch_len(queue, &sizes);
    if scratch.len() < needed {
        let len = scratch.len();
        return Err(Error::arguments(format_args!("scratch has {len} numbers, expected at least {needed}")));
    }
    scratch.expect("scratch", Element::F32, scratch.len(), 16)?;
    if paged.is_empty() {
        return Ok(());
    }
    let multiprocessors = queue.multiprocessors();
    let parts = count("parts", sizes.parts(multiprocessors))?;
    let sequences = count("sequences", sizes.sequences)?;
    let (kernel, shared_bytes) = kernel_for(paged, queue.max_shared_bytes());
    let with = |max_parts: u32| -> Result<Vec<Argument>> {
        let mut arguments = paged.arguments()?;
        arguments.extend([Argument::from(scratch), max_parts.into()]);
        Ok(arguments)
    };
    queue.launch(&Launch {
        module: &MODULE,
        kernel,
        grid: [parts, count("groups", sizes.groups())?, sequences],
        block: [THREADS, 1, 1],
        shared_bytes,
        arguments: with(count("parts", sizes.max_parts(multiprocessors))?)?,
    })?;
    if parts == 1 {
        return Ok(());
    }
    queue.launch(&Launch {
        module: &MODULE,
        kernel: format!("paged_decode_merge_{}", paged.q.element().suffix()),
        grid: [count("heads", paged.heads * paged.head_dim.div_ceil(128))?, sequences, 1],
        block: [STRANDS * 32, 1, 1],
        shared_bytes: 0,
        arguments: with(parts)?,
    })
}

fn sizes_of(paged: &Paged<'_>) -> DecodeSizes {
    DecodeSizes {
        sequences: paged.sequences.len(),
        table_len: paged.table_len(),
        block_size: paged.block_size,
        window: paged.window,
        heads: paged.heads,
        kv_heads: paged.kv_heads,
        head_dim: paged.head_dim,
    }
}

/// The kernel for a dtype and a width, and its shared memory: on tensor cores where a block may have enough of it.
fn kernel_for(paged: &Paged<'_>, max_shared_bytes: u32) -> (String, u32) {
    let head_dim = paged.head_dim;
    let suffix = paged.q.element().suffix();
    match (paged.q.element(), head_dim) {
        (Element::Bf16, 64 | 128 | 256 | 512) if tensor_shared_bytes(head_dim) <= max_shared_bytes => {
            (format!("paged_decode_{suffix}_{head_dim}"), tensor_shared_bytes(head_dim))
        }
        _ => (format!("paged_decode_{suffix}"), fma_shared_bytes(HEADS, head_dim)),
    }
}

/// Bytes of the queries and of four warps' rings, as `TensorDecode` lays them out.
fn tensor_shared_bytes(head_dim: usize) -> u32 {
    let chunks = if head_dim < 256 { 4 } else { head_dim / 256 + 1 };
    let ring = chunks * head_dim.min(256) * 32;
    u32::try_from(head_dim * HEADS * 2 + 4 * ring).expect("heads of at most 512 were checked")
}
