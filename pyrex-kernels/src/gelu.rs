//! Gated tanh-GELU.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::launch::{Module, Queue, count};
use crate::rows::{activations, aligned, expect, launch_flat};

const MODULE: Module = Module { name: "gelu", ptx: include_str!("gelu.ptx") };

/// A gate, and what it lets through: rows of their own, or a part of longer rows, such as one layer's of per-layer inputs.
#[derive(Clone, Copy, Debug)]
pub struct GeluMul<'a> {
    /// `[T, width]` f32 or bf16.
    pub gate: Buffer<'a>,
    /// Row `t` is `up[up_offset + t · up_stride..][..width]`.
    pub up: Buffer<'a>,
    /// Where the first row begins.
    pub up_offset: usize,
    /// Elements from one row to the next.
    pub up_stride: usize,
    /// Numbers of a row.
    pub width: usize,
    /// `[T, width]`; may be `gate`.
    pub out: Buffer<'a>,
}

/// `out = r(r(gelu_tanh(gate)) · up)`, where `r` rounds to the dtype of `gate`.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn gelu_mul(queue: &dyn Queue, product: &GeluMul<'_>) -> Result<()> {
    let GeluMul { gate, up, up_offset, up_stride, width, out } = *product;
    let element = activations("gate", gate)?;
    if width == 0 || !gate.len().is_multiple_of(width) || up_stride < width {
        return Err(Error::arguments(format_args!(
            "gate has {} elements in rows of {width}, {up_stride} apart in up",
            gate.len()
        )));
    }
    expect("gate", gate, element, gate.len())?;
    expect("up", up, element, up.len())?;
    expect("out", out, element, gate.len())?;
    let rows = gate.len() / width;
    if rows == 0 {
        return Ok(());
    }
    let up = up.slice(up_offset, (rows - 1) * up_stride + width)?;
    // Rows without gaps are one.
    let (rows, width) = if up_stride == width { (1, gate.len()) } else { (rows, width) };
    let pack = 16 / element.size();
    let steps = if rows == 1 { 0 } else { width | up_stride };
    let aligned = aligned(pack, steps, &[gate, up, out]);
    let threads = count("gate", rows * width.div_ceil(pack))?;
    let arguments = vec![
        gate.into(),
        up.into(),
        out.into(),
        count("rows", rows)?.into(),
        count("width", width)?.into(),
        count("up_stride", up_stride)?.into(),
        aligned.into(),
    ];
    launch_flat(queue, &MODULE, format!("gelu_mul_{}", element.suffix()), threads, arguments)
}
