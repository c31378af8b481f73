//! From the tokens that one decode step chose to the inputs of the next, without the host in between.

use crate::buffer::{Buffer, Element};
use crate::error::{Error, Result};
use crate::launch::{Argument, Launch, Module, Queue, count};

const MODULE: Module = Module { name: "advance", ptx: include_str!("advance.ptx") };
const THREADS: u32 = 128;
/// Groups of layers that one launch serves.
const MAX_GROUPS: usize = 2;

/// The arguments of [`advance`]: `B` sequences, one row each.
#[derive(Clone, Copy, Debug)]
pub struct Advance<'a> {
    /// `[B]` u32: what was chosen; `u32::MAX` for nothing.
    pub ids: Buffer<'a>,
    /// `[B]` u32: not zero where the sequence goes on.
    pub active: Buffer<'a>,
    /// `[B]` u32, written where the sequence goes on: its id.
    pub input_ids: Buffer<'a>,
    /// `[B]` u32, one more where the sequence goes on.
    pub positions: Buffer<'a>,
    /// `[B]` u32, if wanted: the position after that, which the next step draws.
    pub drawn_positions: Option<Buffer<'a>>,
    /// Where each group of layers, of which there may be two, keeps its keys and values.
    pub groups: &'a [CacheGroup<'a>],
    /// Slots of a block.
    pub block_size: usize,
}

/// Where a group of layers keeps keys and values.
#[derive(Clone, Copy, Debug)]
pub struct CacheGroup<'a> {
    /// `[B, N]` u32: each sequence's blocks in order. They must reach as far as the new position, for an unused tail of zeros
    /// cannot be told from block 0.
    pub block_tables: Buffer<'a>,
    /// `[B]` u32, written: the slot of the new position; `u32::MAX`, which is no slot, where the sequence does not go on or its
    /// table ends before.
    pub slot_mapping: Buffer<'a>,
}

/// Makes the sampled ids the input of the next step, each one position further and with its slot in the cache. A sequence goes on
/// if it is active and a token was chosen; the others keep id and position, and their slot is none, so that they write nothing.
///
/// # Errors
/// `Arguments` if the buffers do not fit; what the queue says.
pub fn advance(queue: &dyn Queue, step: &Advance<'_>) -> Result<()> {
    let rows = step.ids.len();
    for (name, buffer) in [
        ("ids", Some(step.ids)),
        ("active", Some(step.active)),
        ("input_ids", Some(step.input_ids)),
        ("positions", Some(step.positions)),
        ("drawn_positions", step.drawn_positions),
    ] {
        buffer.map_or(Ok(()), |buffer| buffer.expect(name, Element::U32, rows, 4))?;
    }
    if step.groups.len() > MAX_GROUPS || step.block_size == 0 {
        return Err(Error::arguments(format_args!(
            "{} groups of layers with blocks of {}, expected at most {MAX_GROUPS} with blocks of at least 1",
            step.groups.len(),
            step.block_size
        )));
    }
    if rows == 0 {
        return Ok(());
    }
    let mut arguments: Vec<Argument> = vec![
        step.ids.into(),
        step.active.into(),
        step.input_ids.into(),
        step.positions.into(),
        step.drawn_positions.into(),
    ];
    for group in 0..MAX_GROUPS {
        arguments.extend(group_arguments(step.groups.get(group), rows)?);
    }
    let num_rows = count("rows", rows)?;
    arguments.push(count("block_size", step.block_size)?.into());
    arguments.push(num_rows.into());
    queue.launch(&Launch {
        module: &MODULE,
        kernel: "advance".to_owned(),
        grid: [num_rows.div_ceil(THREADS), 1, 1],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
        arguments,
    })
}

/// Table, slots and length of a group, or nothing in their places.
fn group_arguments(group: Option<&CacheGroup<'_>>, rows: usize) -> Result<[Argument; 3]> {
    let Some(group) = group else {
        return Ok([Argument::Pointer(0), Argument::Pointer(0), Argument::U32(0)]);
    };
    let table_len = group.block_tables.len() / rows;
    group.block_tables.expect("block_tables", Element::U32, rows * table_len, 4)?;
    group.slot_mapping.expect("slot_mapping", Element::U32, rows, 4)?;
    Ok([group.block_tables.into(), group.slot_mapping.into(), count("table_len", table_len)?.into()])
}
