//! Products of up to eight rows.
//!
//! bf16 with bf16 goes to tensor cores, if rows can be read 16 bytes at a time and nothing is clamped; all else to plain kernels.
//! A row's result has the same bits whatever other rows go with it.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Module, Queue, count};
use crate::products::{Clip, Gated, Product, aligned, check};

/// How many rows [`few_rows`] takes.
pub const MAX_FEW_ROWS: usize = 8;

const MODULE: Module = Module { name: "few_rows", ptx: include_str!("few_rows.ptx") };
/// As many outputs are a tile for tensor cores.
const TILE: u32 = 8;
/// Warps of a plain kernel's block: one for each output.
const PLAIN_WARPS: u32 = 4;

/// `product` of up to [`MAX_FEW_ROWS`] rows.
///
/// # Errors
/// `Arguments` if buffers and sizes do not fit; what the queue says.
pub fn few_rows(queue: &dyn Queue, product: &Product<'_>) -> Result<()> {
    several(queue, std::slice::from_ref(product), Finish::None)
}

/// [`few_rows`], and of each result `cap · tanh(result / cap)`, rounded to the dtype of `x` before, between and after.
///
/// # Errors
/// As [`few_rows`]; `Arguments` if `cap` is not above 0.
pub fn few_rows_soft_capped(queue: &dyn Queue, product: &Product<'_>, cap: f32) -> Result<()> {
    if !(cap > 0.0 && cap.is_finite()) {
        return Err(Error::arguments(format_args!("the soft cap is {cap}, expected a number above 0")));
    }
    several(queue, std::slice::from_ref(product), Finish::SoftCap(cap))
}

/// [`few_rows`], and of each result `gelu_tanh(result) · up`, rounded to the dtype of `x` before, between and after. Row `t` of
/// `up`, of that dtype, begins at element `t · up_stride`.
///
/// # Errors
/// As [`few_rows`]; `Arguments` if `up` is too short.
pub fn few_rows_gelu_mul(
    queue: &dyn Queue,
    product: &Product<'_>,
    up: Buffer<'_>,
    up_stride: usize,
) -> Result<()> {
    let (element, out_cols) = (product.x.element(), product.out_cols);
    up.expect("up", element, up.len(), element.size() as u64)?;
    let needed = product.rows.saturating_sub(1).saturating_mul(up_stride).saturating_add(out_cols);
    if up_stride < out_cols || up.len() < needed {
        return Err(Error::arguments(format_args!(
            "up has {} elements, one row each {up_stride}, expected {} rows of {out_cols}",
            up.len(),
            product.rows
        )));
    }
    let up_stride = count("up_stride", up_stride)?;
    several(queue, std::slice::from_ref(product), Finish::GeluMul { up, up_stride })
}

/// The products of `x`, `[T, C]`, with one to three matrices of one dtype in one launch. Of each: its weights `[N, C]`, what
/// is written `[T, N]`, and `N`.
///
/// # Errors
/// As [`few_rows`].
pub fn few_rows_several<'a>(
    queue: &dyn Queue,
    x: Buffer<'a>,
    parts: &[(Buffer<'a>, Buffer<'a>, usize)],
) -> Result<()> {
    let (first_weight, first_out, first_cols) = match parts {
        [first, ..] if parts.len() <= 3 => *first,
        _ => return Err(Error::arguments(format_args!("{} matrices, expected 1 to 3", parts.len()))),
    };
    if first_cols == 0 {
        return Err(Error::arguments("the first matrix has no rows, so nobody knows how wide it is"));
    }
    let (rows, cols) = (first_out.len() / first_cols, first_weight.len() / first_cols);
    let product = |(weight, out, out_cols)| Product { x, weight, out, rows, cols, out_cols, clip: None };
    several(queue, &parts.iter().copied().map(product).collect::<Vec<_>>(), Finish::None)
}

/// `gated` of up to [`MAX_FEW_ROWS`] rows.
///
/// # Errors
/// As [`few_rows`].
pub fn few_rows_gated(queue: &dyn Queue, gated: &Gated<'_>) -> Result<()> {
    let Gated { x, gate, up, out, rows, cols, out_cols, clips } = *gated;
    few(rows)?;
    check(&Product { x, weight: gate, out, rows, cols, out_cols, clip: None })?;
    up.expect("up", gate.element(), gate.len(), gate.element().size() as u64)?;
    if rows == 0 || out_cols == 0 {
        return Ok(());
    }
    let out_cols = count("out_cols", out_cols)?;
    let mut arguments = vec![x.into(), gate.into(), up.into(), out.into(), out_cols.into()];
    arguments.extend([count("rows", rows)?, count("cols", cols)?].map(Argument::U32));
    let buffers = [x, gate, up];
    let (gate_clip, up_clip) = clips.unwrap_or((Clip::NONE, Clip::NONE));
    if gate_clip == Clip::NONE && up_clip == Clip::NONE && on_tensor_cores(cols, &buffers) {
        return queue.launch(&tensor(
            "few_rows_gated".to_owned(),
            out_cols.div_ceil(TILE),
            2,
            cols,
            arguments,
        ));
    }
    arguments.push(u32::from(aligned(cols, &buffers)).into());
    arguments.extend(gate_clip.arguments());
    arguments.extend(up_clip.arguments());
    let kernel = format!("few_rows_gated_{}_{}", x.element().suffix(), gate.element().suffix());
    queue.launch(&plain(kernel, out_cols.div_ceil(PLAIN_WARPS), arguments))
}

/// What becomes of a product before it is written.
#[derive(Clone, Copy)]
enum Finish<'a> {
    None,
    SoftCap(f32),
    GeluMul { up: Buffer<'a>, up_stride: u32 },
}

impl Finish<'_> {
    fn arguments(self) -> [Argument; 3] {
        let (cap, up, up_stride) = match self {
            Self::None => (0.0, None, 0),
            Self::SoftCap(cap) => (cap, None, 0),
            Self::GeluMul { up, up_stride } => (0.0, Some(up), up_stride),
        };
        [cap.into(), up.into(), up_stride.into()]
    }
}

/// One to three products that have `x` and its sizes in common.
fn several(queue: &dyn Queue, products: &[Product<'_>], finish: Finish<'_>) -> Result<()> {
    let Product { x, weight, rows, cols, .. } = products[0];
    let clip = products[0].clip.unwrap_or(Clip::NONE);
    few(rows)?;
    for product in products {
        check(product)?;
        if product.weight.element() != weight.element() {
            return Err(Error::arguments("matrices of one launch have different dtypes"));
        }
    }
    if rows == 0 || products.iter().all(|product| product.out_cols == 0) {
        return Ok(());
    }
    let mut arguments = vec![x.into()];
    for i in 0..3 {
        let part = products.get(i);
        arguments.push(part.map(|part| part.weight).into());
        arguments.push(part.map(|part| part.out).into());
        arguments.push(count("out_cols", part.map_or(0, |part| part.out_cols))?.into());
    }
    arguments.extend([count("rows", rows)?, count("cols", cols)?].map(Argument::U32));
    arguments.extend(finish.arguments());
    let blocks = |outputs: u32| {
        count("blocks", products.iter().map(|product| product.out_cols.div_ceil(outputs as usize)).sum())
    };
    let buffers: Vec<_> = products.iter().map(|product| product.weight).chain([x]).collect();
    if clip == Clip::NONE && on_tensor_cores(cols, &buffers) {
        // Two tiles share what a warp reads of `x`, but only many outputs make enough blocks then.
        let tiles = if blocks(2 * TILE)? >= 2 * queue.multiprocessors() { 2 } else { 1 };
        return queue.launch(&tensor(
            format!("few_rows_{tiles}"),
            blocks(tiles * TILE)?,
            tiles,
            cols,
            arguments,
        ));
    }
    arguments.push(u32::from(aligned(cols, &buffers)).into());
    arguments.extend(clip.arguments());
    let kernel = format!("few_rows_{}_{}", x.element().suffix(), weight.element().suffix());
    queue.launch(&plain(kernel, blocks(PLAIN_WARPS)?, arguments))
}

fn few(rows: usize) -> Result<()> {
    if rows > MAX_FEW_ROWS {
        return Err(Error::arguments(format_args!("x has {rows} rows, expected at most {MAX_FEW_ROWS}")));
    }
    Ok(())
}

fn on_tensor_cores(cols: usize, buffers: &[Buffer<'_>]) -> bool {
    aligned(cols, buffers) && buffers.iter().all(|buffer| buffer.element() == Element::Bf16)
}

/// A launch of `tiles` tiles per block. Its warps share out the columns, 256 at a time with one tile, 128 with two: a lane then
/// waits for eight loads at once.
fn tensor(kernel: String, blocks: u32, tiles: u32, cols: usize, arguments: Vec<Argument>) -> Launch<'static> {
    let warps = cols.div_ceil(256).clamp(1, 8) as u32;
    Launch {
        module: &MODULE,
        kernel,
        grid: [blocks, 1, 1],
        block: [warps * 32, 1, 1],
        shared_bytes: warps * tiles * 64 * 4,
        arguments,
    }
}

fn plain(kernel: String, blocks: u32, arguments: Vec<Argument>) -> Launch<'static> {
    Launch {
        module: &MODULE,
        kernel,
        grid: [blocks, 1, 1],
        block: [PLAIN_WARPS * 32, 1, 1],
        shared_bytes: 0,
        arguments,
    }
}
