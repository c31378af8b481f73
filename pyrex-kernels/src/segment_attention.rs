//! Attention inside segments: each row sees all rows of its own.

use crate::attention::{TILE_THREADS, check_heads, float, fma_shared_bytes, tile_shared_bytes, tiles};
use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Launch, Module, Queue, count};

const MODULE: Module = Module { name: "segment_attention", ptx: include_str!("segment_attention.ptx") };

/// Rows of a tile of plain multiplications, and threads for it.
const FMA_ROWS: usize = 16;
const FMA_THREADS: u32 = 128;

/// Attention without order: each of `P` rows, the patches of images, say, sees all rows of its own segment.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// `[P, H, D]`, f32 or bf16.
    pub q: Buffer<'a>,
    /// `[P, H, D]`, as `q`.
    pub k: Buffer<'a>,
    /// `[P, H, D]`, as `q`.
    pub v: Buffer<'a>,
    /// `[S + 1]` u32: rows `segment_start[s]..segment_start[s + 1]` are segment `s`.
    pub segment_start: Buffer<'a>,
    /// `[P, H, D]`, as `q`.
    pub out: Buffer<'a>,
    /// `H`.
    pub heads: usize,
    /// `D`, a multiple of 8.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Segments<'_> {
    fn check(&self) -> Result<()> {
        let element = float("q", &self.q)?;
        check_heads(self.heads, self.heads, self.head_dim)?;
        let row_len = self.heads * self.head_dim;
        self.q.expect("q", element, self.q.len() / row_len * row_len, 16)?;
        for (name, buffer) in [("k", self.k), ("v", self.v), ("out", self.out)] {
            buffer.expect(name, element, self.q.len(), 16)?;
        }
        self.segment_start.expect("segment_start", Element::U32, self.segment_start.len().max(1), 4)?;
        if !self.scale.is_finite() {
            return Err(Error::arguments(format_args!("a scale of {}, expected a number", self.scale)));
        }
        Ok(())
    }
}

/// Attention inside each segment.
///
/// # Errors
/// `Arguments` if something does not fit; what the queue says.
pub fn segment_attention(queue: &dyn Queue, segments: &Segments<'_>) -> Result<()> {
    segments.check()?;
    let number = segments.segment_start.len() - 1;
    if number == 0 || segments.q.is_empty() {
        return Ok(());
    }
    let suffix = segments.q.element().suffix();
    let (kernel, tile_rows, threads, shared_bytes) = match (segments.q.element(), segments.head_dim) {
        (element, 64) => {
            (format!("segment_attention_{suffix}_64"), 128, TILE_THREADS, tile_shared_bytes(element, 64, 1))
        }
        (_, head_dim) => {
            let shared_bytes = fma_shared_bytes(FMA_ROWS, head_dim);
            (format!("segment_attention_{suffix}"), FMA_ROWS, FMA_THREADS, shared_bytes)
        }
    };
    let (heads, head_dim) = (count("heads", segments.heads)?, count("head_dim", segments.head_dim)?);
    let rows = segments.q.len() / (segments.heads * segments.head_dim);
    queue.launch(&Launch {
        module: &MODULE,
        kernel,
        grid: [tiles(rows, tile_rows, number)?, heads, 1],
        block: [threads, 1, 1],
        shared_bytes,
        arguments: vec![
            segments.q.into(),
            segments.k.into(),
            segments.v.into(),
            segments.segment_start.into(),
            segments.out.into(),
            count("segments", number)?.into(),
            heads.into(),
            head_dim.into(),
            segments.scale.into(),
        ],
    })
}
