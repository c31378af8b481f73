//! Functions of single numbers. The result may go where the argument lies, if it is of the same dtype.

use crate::buffer::{Buffer, Element};
use crate::error::Result;
use crate::launch::{Argument, Module, Queue, count};
use crate::rows::{activations, aligned, expect, launch_flat, one_of};

const MODULE: Module = Module { name: "elementwise", ptx: include_str!("elementwise.ptx") };

/// `out = r(x · factor)`, where `r` rounds to the dtype of `x`, f32 or bf16.
///
/// # Errors
/// `Arguments` if `out` is not like `x`; what the queue says.
pub fn scale(queue: &dyn Queue, x: Buffer<'_>, factor: f32, out: Buffer<'_>) -> Result<()> {
    alike(queue, "scale", &[("x", x), ("out", out)], &[factor])
}

/// `out = r(cap · r(tanh(r(x / cap))))`, where `r` rounds to the dtype of `x`, f32 or bf16.
///
/// # Errors
/// `Arguments` if `out` is not like `x`; what the queue says.
pub fn soft_cap(queue: &dyn Queue, x: Buffer<'_>, cap: f32, out: Buffer<'_>) -> Result<()> {
    alike(queue, "soft_cap", &[("x", x), ("out", out)], &[cap])
}

/// `out = r(min(max(x, low), high))`, where `r` rounds to the dtype of `x`, f32 or bf16. A NaN stays one.
///
/// # Errors
/// `Arguments` if `out` is not like `x`; what the queue says.
pub fn clamp(queue: &dyn Queue, x: Buffer<'_>, low: f32, high: f32, out: Buffer<'_>) -> Result<()> {
    alike(queue, "clamp", &[("x", x), ("out", out)], &[low, high])
}

/// `out = r(a + b)`, where `r` rounds to the dtype of `a`, f32 or bf16.
///
/// # Errors
/// `Arguments` if `b` or `out` is not like `a`; what the queue says.
pub fn add(queue: &dyn Queue, a: Buffer<'_>, b: Buffer<'_>, out: Buffer<'_>) -> Result<()> {
    alike(queue, "add", &[("a", a), ("b", b), ("out", out)], &[])
}

/// `out = x`, rounded to the dtype of `out`: between f32, bf16 and f16, and from bytes to f32.
///
/// # Errors
/// `Arguments` if `out` has not as many elements, or of another dtype; what the queue says.
pub fn convert(queue: &dyn Queue, x: Buffer<'_>, out: Buffer<'_>) -> Result<()> {
    const FLOATS: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];
    let from = one_of("x", x, &[FLOATS[0], FLOATS[1], FLOATS[2], Element::U8])?;
    let to = one_of("out", out, if from == Element::U8 { &FLOATS[..1] } else { &FLOATS })?;
    expect("x", x, from, x.len())?;
    expect("out", out, to, x.len())?;
    map(queue, format!("convert_{}_{}", from.suffix(), to.suffix()), &[x, out], &[])
}

/// Bytes on the scale from −1 to 1: `out = 2 · (r(x · r(1 / 255)) − ½)`, where `r` rounds to f32. `x`: u8; `out`: f32, as many.
///
/// # Errors
/// `Arguments` if they are not; what the queue says.
pub fn pixels(queue: &dyn Queue, x: Buffer<'_>, out: Buffer<'_>) -> Result<()> {
    expect("x", x, Element::U8, x.len())?;
    expect("out", out, Element::F32, x.len())?;
    map(queue, "pixels".to_owned(), &[x, out], &[])
}

fn alike(queue: &dyn Queue, kernel: &str, tensors: &[(&str, Buffer<'_>)], numbers: &[f32]) -> Result<()> {
    let (name, x) = tensors[0];
    let element = activations(name, x)?;
    for (name, tensor) in tensors {
        expect(name, *tensor, element, x.len())?;
    }
    let buffers: Vec<_> = tensors.iter().map(|(_, tensor)| *tensor).collect();
    map(queue, format!("{kernel}_{}", element.suffix()), &buffers, numbers)
}

/// Launches a kernel over buffers of one length. A thread has as many elements as 16 bytes hold of the widest.
fn map(queue: &dyn Queue, kernel: String, buffers: &[Buffer<'_>], numbers: &[f32]) -> Result<()> {
    let len = count("x", buffers[0].len())?;
    let widest = buffers.iter().map(|buffer| buffer.element().size()).fold(1, usize::max);
    let pack = 16 / widest;
    let mut arguments: Vec<Argument> = buffers.iter().map(|buffer| (*buffer).into()).collect();
    arguments.extend([len, aligned(pack, 0, buffers)].map(Argument::from));
    arguments.extend(numbers.iter().copied().map(Argument::from));
    launch_flat(queue, &MODULE, kernel, len.div_ceil(pack as u32), arguments)
}
