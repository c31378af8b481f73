//! Rows of numbers spread over threads, as `rows.cuh` has them, and what launchers of such kernels check.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Module, Queue, count};

/// Neighbours that a thread has of a row at a time.
pub(crate) const SPAN: usize = 4;
/// How many times it has so many.
const SPANS: u32 = 2;
/// The most spans that a row may have.
const MAX_SPANS: usize = 1024 * SPANS as usize;
/// The most that its threads have at once, if they come again.
const LOOP_SPANS: usize = 256 * SPANS as usize;
/// Threads of a block of short rows.
const BLOCK_THREADS: u32 = 128;

/// How many rows there are, and how they are spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Rows.
    pub count: u32,
    /// Numbers of each.
    pub width: u32,
    /// Threads of each: a power of two inside a warp, or whole warps.
    threads: u32,
    /// How often all rows lie along y of the grid.
    planes: u32,
}

impl Rows {
    /// Rows of `width` in `x`, in spans of `SPAN`.
    ///
    /// # Errors
    /// `Arguments` if there is no whole number of them, or they are too wide.
    pub(crate) fn of(name: &str, x: Buffer<'_>, width: usize) -> Result<Self> {
        if width == 0 || !x.len().is_multiple_of(width) {
            return Err(Error::arguments(format_args!("{name} has {} elements in rows of {width}", x.len())));
        }
        Self::in_spans(count(name, x.len() / width)?, width, width.div_ceil(SPAN))
    }

    /// `count` rows of `width`, which threads share in `spans`.
    ///
    /// # Errors
    /// `Arguments` if a block has not as many threads as that takes.
    pub(crate) fn in_spans(count: u32, width: usize, spans: usize) -> Result<Self> {
        if spans > MAX_SPANS {
            return Err(Error::arguments(format_args!(
                "a row of {width} has {spans} spans, expected at most {MAX_SPANS}"
            )));
        }
        Ok(Self::spread(count, width as u32, spans))
    }

    /// As [`Rows::in_spans`], for a kernel whose threads come again for what is left of a row.
    pub(crate) fn looping(count: u32, width: u32, spans: usize) -> Self {
        Self::spread(count, width, spans.min(LOOP_SPANS))
    }

    fn spread(count: u32, width: u32, spans: usize) -> Self {
        let threads = (spans as u32).div_ceil(SPANS);
        let threads = if threads <= 32 { threads.next_power_of_two() } else { threads.next_multiple_of(32) };
        Self { count, width, threads, planes: 1 }
    }

    /// The same rows `planes` times, along y of the grid.
    pub(crate) fn in_planes(self, planes: u32) -> Self {
        Self { planes, ..self }
    }

    /// Puts `kernel` on the queue, with threads for each row; if there are none, nothing.
    ///
    /// # Errors
    /// What the queue says.
    pub(crate) fn launch(
        &self,
        queue: &dyn Queue,
        module: &Module,
        kernel: String,
        arguments: Vec<Argument>,
    ) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        // Rows of several warps agree through memory of their block.
        let rows_per_block = if self.threads > 32 { 1 } else { BLOCK_THREADS / self.threads };
        let grid = [self.count.div_ceil(rows_per_block), self.planes, 1];
        let block = [self.threads, rows_per_block, 1];
        queue.launch(&Launch { module, kernel, grid, block, shared_bytes: 0, arguments })
    }
}

/// Puts `kernel` on the queue with a thread for each of `count`; if that is 0, nothing.
///
/// # Errors
/// What the queue says.
pub(crate) fn launch_flat(
    queue: &dyn Queue,
    module: &Module,
    kernel: String,
    count: u32,
    arguments: Vec<Argument>,
) -> Result<()> {
    const THREADS: u32 = 256;
    if count == 0 {
        return Ok(());
    }
    let grid = [count.div_ceil(THREADS), 1, 1];
    queue.launch(&Launch { module, kernel, grid, block: [THREADS, 1, 1], shared_bytes: 0, arguments })
}

/// The dtype of activations: f32 or bf16.
///
/// # Errors
/// `Arguments` if `buffer` holds something else.
pub(crate) fn activations(name: &str, buffer: Buffer<'_>) -> Result<Element> {
    one_of(name, buffer, &[Element::F32, Element::Bf16])
}

/// What `buffer` holds, if that is among `elements`.
///
/// # Errors
/// `Arguments` if it is not.
pub(crate) fn one_of(name: &str, buffer: Buffer<'_>, elements: &[Element]) -> Result<Element> {
    match buffer.element() {
        element if elements.contains(&element) => Ok(element),
        element => {
            Err(Error::arguments(format_args!("{name} has {element:?}, expected one of {elements:?}")))
        }
    }
}

/// Holds `buffer` to `len` elements of `element`, which lie as such elements do.
///
/// # Errors
/// `Arguments` if they do not.
pub(crate) fn expect(name: &str, buffer: Buffer<'_>, element: Element, len: usize) -> Result<()> {
    buffer.expect(name, element, len, element.size() as u64)
}

/// Whether `span` neighbours of each buffer can be read at once, or 16 bytes at a time, wherever a multiple of `step` elements
/// begins: as the kernels take it.
pub(crate) fn aligned(span: usize, step: usize, buffers: &[Buffer<'_>]) -> u32 {
    let lies = |buffer: &Buffer<'_>| {
        buffer.address().is_multiple_of((span * buffer.element().size()).min(16) as u64)
    };
    u32::from(step.is_multiple_of(span) && buffers.iter().all(lies))
}
