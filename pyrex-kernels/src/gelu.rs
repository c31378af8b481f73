//! Gated tanh-GELU.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Launch, Module, Queue, count};

const MODULE: Module = Module { name: "gelu", ptx: include_str!("gelu.ptx") };
const THREADS: u32 = 256;

/// `out = gelu_tanh(gate) · up`, each rounded to the dtype of `out`. All have as many elements, f32 or bf16.
///
/// # Errors
/// `Arguments` if they have not; what the queue says.
pub fn gelu_mul(queue: &dyn Queue, gate: Buffer<'_>, up: Buffer<'_>, out: Buffer<'_>) -> Result<()> {
    let element = gate.element();
    if !matches!(element, Element::F32 | Element::Bf16) {
        return Err(Error::arguments(format_args!("gate has {element:?}, expected F32 or Bf16")));
    }
    let alignment = element.size() as u64;
    gate.expect("gate", element, gate.len(), alignment)?;
    up.expect("up", element, gate.len(), alignment)?;
    out.expect("out", element, gate.len(), alignment)?;
    if gate.is_empty() {
        return Ok(());
    }
    let len = count("gate", gate.len())?;
    queue.launch(&Launch {
        module: &MODULE,
        kernel: format!("gelu_mul_{}", element.suffix()),
        grid: [len.div_ceil(THREADS), 1, 1],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
        arguments: vec![gate.into(), up.into(), out.into(), len.into()],
    })
}
