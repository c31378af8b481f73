//! Prefill: any number of rows of each sequence, in tiles that share the keys they read.

use crate::attention::{Paged, TILE_THREADS, fma_shared_bytes, tile_shared_bytes, tiles};
use crate::buffer::Element;
use crate::error::Result;
use crate::launch::{Launch, Module, Queue, count};

const MODULE: Module = Module { name: "paged_prefill", ptx: include_str!("paged_prefill.ptx") };

/// Rows of a tile of plain multiplications, and threads for it.
const FMA_ROWS: usize = 16;
const FMA_THREADS: u32 = 128;

/// Attention of sequences that have any number of rows.
///
/// # Errors
/// `Arguments` if something does not fit; what the queue says.
pub fn paged_prefill(queue: &dyn Queue, paged: &Paged<'_>) -> Result<()> {
    paged.check()?;
    if paged.is_empty() {
        return Ok(());
    }
    let suffix = paged.q.element().suffix();
    // A row of 512 is too wide for one warp: two share it, and half as many rows are a tile.
    let slices = paged.head_dim.div_ceil(256);
    let shared_bytes = tile_shared_bytes(Element::Bf16, paged.head_dim, slices);
    let (kernel, tile_rows, threads, shared_bytes) = match (paged.q.element(), paged.head_dim) {
        (Element::Bf16, head_dim @ (64 | 128 | 256 | 512)) if shared_bytes <= queue.max_shared_bytes() => {
            (format!("paged_prefill_{suffix}_{head_dim}"), 128 / slices, TILE_THREADS, shared_bytes)
        }
        (_, head_dim) => {
            let shared_bytes = fma_shared_bytes(FMA_ROWS, head_dim);
            (format!("paged_prefill_{suffix}"), FMA_ROWS, FMA_THREADS, shared_bytes)
        }
    };
    let rows = paged.positions.len() * (paged.heads / paged.kv_heads);
    queue.launch(&Launch {
        module: &MODULE,
        kernel,
        grid: [tiles(rows, tile_rows, paged.sequences.len())?, count("kv_heads", paged.kv_heads)?, 1],
        block: [threads, 1, 1],
        shared_bytes,
        arguments: paged.arguments()?,
    })
}
