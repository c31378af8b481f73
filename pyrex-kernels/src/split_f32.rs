//! f32 in three parts of bf16.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Launch, Module, Queue, count};
use crate::products::Clip;

const MODULE: Module = Module { name: "split_f32", ptx: include_str!("split_f32.ptx") };
const THREADS: u32 = 256;

/// `x`, f32 `[T, C]`, clamped to `clip_input` if there is one, as the sum of `parts`, bf16 `[3, T, C]`, from high to low.
///
/// The sum is exact for what is not below `2⁻¹¹⁰`. Infinities and NaN become NaN.
///
/// # Errors
/// `Arguments` if buffers do not fit; what the queue says.
pub fn split_f32(
    queue: &dyn Queue,
    x: Buffer<'_>,
    clip_input: Option<(f32, f32)>,
    parts: Buffer<'_>,
) -> Result<()> {
    x.expect("x", Element::F32, x.len(), 4)?;
    let parts_len = x.len().checked_mul(3).ok_or_else(|| Error::arguments("x is too long"))?;
    parts.expect("parts", Element::Bf16, parts_len, 2)?;
    if x.is_empty() {
        return Ok(());
    }
    let (len, (min, max)) = (count("x", x.len())?, clip_input.unwrap_or(Clip::NONE.input));
    queue.launch(&Launch {
        module: &MODULE,
        kernel: "split_f32".to_owned(),
        grid: [len.div_ceil(THREADS), 1, 1],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
        arguments: vec![x.into(), parts.into(), len.into(), min.into(), max.into()],
    })
}
