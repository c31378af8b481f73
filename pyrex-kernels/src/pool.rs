//! Average over tiles of patches.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Launch, Module, Queue, count};
use crate::rows::{SPAN, activations, aligned, expect};

const MODULE: Module = Module { name: "pool", ptx: include_str!("pool.ptx") };
const MAX_THREADS: usize = 256;

/// Patches, the soft tokens they go to, and what becomes of their sums.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// `[P, C]` f32 or bf16.
    pub x: Buffer<'a>,
    /// `[P]` u32: the soft token of each patch; a patch whose soft token there is not goes nowhere.
    pub slots: Buffer<'a>,
    /// Soft tokens, `S`.
    pub num_slots: usize,
    /// Patches of each.
    pub tile_len: usize,
    /// What an average is multiplied with.
    pub scale: f32,
    /// `[C]` f32, subtracted from what comes out, if the checkpoint standardizes.
    pub std_bias: Option<Buffer<'a>>,
    /// `[C]` f32, multiplied with afterwards; there if `std_bias` is.
    pub std_scale: Option<Buffer<'a>>,
    /// `[S, C]` f32.
    pub out: Buffer<'a>,
}

/// `out = scale · r(Σ x · (1 / tile_len))` over the patches of each soft token in their order, where `r` rounds to the dtype of `x`;
/// then `(out − std_bias) · std_scale`.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn average_pool(queue: &dyn Queue, pool: &Pool<'_>) -> Result<()> {
    let Pool { x, slots, num_slots, tile_len, scale, std_bias, std_scale, out } = *pool;
    let element = activations("x", x)?;
    if num_slots == 0 {
        return expect("out", out, Element::F32, 0);
    }
    if tile_len == 0 || out.is_empty() || !out.len().is_multiple_of(num_slots) {
        return Err(Error::arguments(format_args!(
            "out has {} elements for {num_slots} soft tokens in tiles of {tile_len}",
            out.len()
        )));
    }
    let (width, patches) = (out.len() / num_slots, count("slots", slots.len())?);
    expect("slots", slots, Element::U32, slots.len())?;
    expect("x", x, element, slots.len() * width)?;
    expect("out", out, Element::F32, out.len())?;
    if std_bias.is_some() != std_scale.is_some() {
        return Err(Error::arguments("one of std_bias and std_scale alone"));
    }
    for (name, buffer) in [("std_bias", std_bias), ("std_scale", std_scale)] {
        buffer.map_or(Ok(()), |buffer| expect(name, buffer, Element::F32, width))?;
    }
    let spans = width.div_ceil(SPAN);
    let threads = spans.next_multiple_of(32).min(MAX_THREADS);
    queue.launch(&Launch {
        module: &MODULE,
        kernel: format!("average_pool_{}", element.suffix()),
        grid: [count("num_slots", num_slots)?, count("width", spans.div_ceil(threads))?, 1],
        block: [threads as u32, 1, 1],
        shared_bytes: 0,
        arguments: vec![
            x.into(),
            slots.into(),
            patches.into(),
            ((1.0 / tile_len as f64) as f32).into(),
            scale.into(),
            std_bias.into(),
            std_scale.into(),
            out.into(),
            count("width", width)?.into(),
            aligned(SPAN, width, &[x, out, std_bias.unwrap_or(x), std_scale.unwrap_or(x)]).into(),
        ],
    })
}
