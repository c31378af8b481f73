//! Products of any number of rows, on tensor cores where rows can be read 16 bytes at a time and weights are bf16.

use crate::buffer::{Buffer, Element};
use crate::error::Result;
use crate::launch::{Launch, Module, Queue, count};
use crate::products::{Clip, Product, aligned, check, is_bf16};

const MODULE: Module = Module { name: "many_rows", ptx: include_str!("many_rows.ptx") };
const THREADS: u32 = 256;

/// A kernel's name, the rows and columns that a block of it makes, and the shared memory that it asks for.
struct Kernel {
    name: String,
    block: [u32; 2],
    shared_bytes: u32,
}

/// `product` of any number of rows. f32 with bf16 is as exact as in f32: tensor cores get each number of `x` in three parts.
///
/// # Errors
/// `Arguments` if buffers and sizes do not fit; what the queue says.
pub fn many_rows(queue: &dyn Queue, product: &Product<'_>) -> Result<()> {
    check(product)?;
    let Product { x, weight, out, rows, cols, out_cols, clip } = *product;
    if rows == 0 || out_cols == 0 {
        return Ok(());
    }
    let clip = clip.unwrap_or(Clip::NONE);
    let kernel = kernel(x, weight, cols, &clip);
    let [rows, cols, out_cols] = [count("rows", rows)?, count("cols", cols)?, count("out_cols", out_cols)?];
    let mut arguments = vec![x.into(), weight.into(), out.into(), rows.into(), cols.into(), out_cols.into()];
    arguments.extend(clip.arguments());
    queue.launch(&Launch {
        module: &MODULE,
        kernel: kernel.name,
        grid: [rows.div_ceil(kernel.block[0]), out_cols.div_ceil(kernel.block[1]), 1],
        block: [THREADS, 1, 1],
        shared_bytes: kernel.shared_bytes,
        arguments,
    })
}

fn kernel(x: Buffer<'_>, weight: Buffer<'_>, cols: usize, clip: &Clip) -> Kernel {
    let tensor_cores = weight.element() == Element::Bf16 && aligned(cols, &[x, weight]);
    match x.element() {
        Element::F32 if tensor_cores => Kernel {
            name: "many_rows_f32".to_owned(),
            block: [128, 64],
            shared_bytes: 3 * (128 * 4 + 64 * 2) * 32,
        },
        Element::Bf16 if tensor_cores && is_bf16(clip.input.0) && is_bf16(clip.input.1) => Kernel {
            name: "many_rows_bf16".to_owned(),
            block: [128, 128],
            shared_bytes: 4 * (128 + 128) * 2 * 32,
        },
        _ => {
            let name = format!("many_rows_{}_{}", x.element().suffix(), weight.element().suffix());
            Kernel { name, block: [64, 64], shared_bytes: 0 }
        }
    }
}
