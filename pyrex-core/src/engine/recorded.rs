//! [`RecordedSteps`]: decode steps that a device has recorded, one for each size of batch.
//!
//! A recording reads and writes the tensors that it was made with. So each size has tensors of its own, and a step begins by
//! writing to them what is new: ids, positions and slots of every row, and those block tables that have changed. Rows beyond the
//! sequences of a step stand at position 0 and write to no slot.

use crate::batch::{Batch, CacheTables, PromptDepth, Queries};
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::models::{Model, ModelSpec};
use crate::ops::recording::{Recording, copy_into, overwrite};
use crate::ops::sampling::{Draw, DrawTable};
use crate::trace::NoTap;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// No slot: what is to be written there is not written.
const NO_SLOT: u32 = u32::MAX;

/// One sequence's part of a decode step.
pub(crate) struct DecodeRow<'a> {
    /// The token, where it is known.
    pub(crate) token_id: u32,
    /// Where in the ids that the last step drew it stands, where it is not.
    pub(crate) drawn: Option<u32>,
    pub(crate) position: usize,
    /// The sequence's cache blocks in each group of layers.
    pub(crate) block_tables: Vec<&'a [u32]>,
    /// How the next token is drawn; the greatest logit where it is not drawn on the device.
    pub(crate) draw: Draw,
}

/// What a recorded step left, of as many rows as it had.
pub(crate) struct Decoded {
    /// `[R, V]` f32.
    pub(crate) logits: Tensor,
    /// `[R]` u32.
    pub(crate) ids: Tensor,
}

/// The steps that were recorded so far.
pub(crate) struct RecordedSteps {
    by_size: BTreeMap<usize, RecordedStep>,
    max_sequences: usize,
    /// Blocks of the longest sequence.
    table_len: usize,
}

struct RecordedStep {
    /// Dropped before the tensors that it reads and writes.
    state: State,
    inputs: Inputs,
    outputs: Outputs,
}

enum State {
    /// Not recorded by so many attempts.
    New(u32),
    Recorded(Recording),
    Failed,
}

/// Another engine of the process that closes meanwhile spoils a recording, so one that failed is tried again.
const MAX_ATTEMPTS: u32 = 3;

struct Outputs {
    draws: DrawTable,
    logits: Tensor,
    ids: Tensor,
}

/// The tensors that a step reads, and what the host knows of them.
struct Inputs {
    /// `[2 + groups, size]` u32: ids, positions, slots of each group.
    rows: Tensor,
    batch: Batch,
    /// By group and sequence: the blocks that the device has.
    tables: Vec<Vec<Vec<u32>>>,
}

impl RecordedSteps {
    pub(crate) fn new(max_sequences: usize, table_len: usize) -> Self {
        Self { by_size: BTreeMap::new(), max_sequences, table_len }
    }

    /// Runs `rows` as one decode step; `None` if it is not recorded, and must run op by op. If no step of its size can be, that is
    /// said once.
    /// `drawn`: the ids that the last step drew.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub(crate) fn run(
        &mut self,
        model: &dyn Model,
        pool: &mut KvPool,
        rows: &[DecodeRow<'_>],
        drawn: Option<&Tensor>,
    ) -> Result<Option<Decoded>> {
        let size = rows.len().next_power_of_two().min(self.max_sequences.max(rows.len()));
        let step = match self.by_size.entry(size) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(RecordedStep::new(model.spec(), size, self.table_len, pool)?)
            }
        };
        step.run(model, pool, rows, drawn)
    }
}

impl RecordedStep {
    fn new(spec: &ModelSpec, size: usize, table_len: usize, pool: &KvPool) -> Result<Self> {
        let device = &spec.device;
        Ok(Self {
            state: State::New(0),
            inputs: Inputs::new(size, table_len, pool, device)?,
            outputs: Outputs {
                draws: DrawTable::new(size, device)?,
                logits: Tensor::zeros((size, spec.vocab_size), DType::F32, device)?,
                ids: Tensor::zeros(size, DType::U32, device)?,
            },
        })
    }

    fn run(
        &mut self,
        model: &dyn Model,
        pool: &mut KvPool,
        rows: &[DecodeRow<'_>],
        drawn: Option<&Tensor>,
    ) -> Result<Option<Decoded>> {
        if matches!(self.state, State::Failed) {
            return Ok(None);
        }
        self.inputs.write(rows, drawn)?;
        self.outputs.draws.write(&rows.iter().map(|row| row.draw).collect::<Vec<_>>())?;
        if let State::Recorded(recording) = &self.state {
            recording.replay()?;
        } else if let State::New(attempts) = self.state {
            let work = || self.outputs.fill(model, &self.inputs.batch, pool);
            match Recording::new(&model.spec().device, work) {
                Ok(recording) => self.state = State::Recorded(recording),
                Err(error) => {
                    self.state = State::failed(rows.len(), attempts + 1, &error);
                    return Ok(None);
                }
            }
        }
        let first_rows = |x: &Tensor| x.narrow(0, 0, rows.len());
        Ok(Some(Decoded { logits: first_rows(&self.outputs.logits)?, ids: first_rows(&self.outputs.ids)? }))
    }
}

impl State {
    fn failed(num_rows: usize, attempts: u32, error: &Error) -> Self {
        if attempts < MAX_ATTEMPTS {
            tracing::debug!(num_rows, attempts, %error, "a decode step was not recorded");
            return Self::New(attempts);
        }
        tracing::warn!(num_rows, %error, "decode steps of this size are not recorded");
        Self::Failed
    }
}

impl Outputs {
    /// The work that is recorded.
    fn fill(&self, model: &dyn Model, batch: &Batch, pool: &mut KvPool) -> Result<()> {
        let logits = model.forward(batch, pool, &mut NoTap)?;
        copy_into(&self.ids, &self.draws.draw(&logits)?)?;
        copy_into(&self.logits, &logits)
    }
}

impl Inputs {
    fn new(size: usize, table_len: usize, pool: &KvPool, device: &Device) -> Result<Self> {
        let groups = pool.num_groups();
        let rows = Tensor::zeros((2 + groups, size), DType::U32, device)?;
        let row = |idx: usize| -> Result<Tensor> { Ok(rows.narrow(0, idx, 1)?.squeeze(0)?) };
        let tables = |group: usize| -> Result<CacheTables> {
            let block_tables = Tensor::zeros((size, table_len), DType::U32, device)?;
            Ok(CacheTables { slot_mapping: row(2 + group)?, block_tables })
        };
        let queries = Queries {
            positions: row(1)?,
            query_start: Tensor::arange(0, size as u32 + 1, device)?,
            num_single: size,
        };
        let batch = Batch {
            input_ids: row(0)?,
            queries: queries.clone(),
            tables: (0..groups).map(tables).collect::<Result<_>>()?,
            block_size: pool.block_size(),
            logit_rows: Tensor::arange(0, size as u32, device)?,
            logit_queries: queries,
            soft_tokens: None,
            prompt_depth: PromptDepth::CacheOnly,
        };
        Ok(Self { rows, batch, tables: vec![vec![Vec::new(); size]; groups] })
    }

    fn write(&mut self, rows: &[DecodeRow<'_>], drawn: Option<&Tensor>) -> Result<()> {
        let (size, block_size) = (self.batch.logit_rows.dim(0)?, self.batch.block_size);
        let mut values = vec![0; 2 * size];
        values.resize((2 + self.tables.len()) * size, NO_SLOT);
        for (idx, row) in rows.iter().enumerate() {
            values[idx] = row.token_id;
            values[size + idx] = row.position as u32;
            for (group, table) in row.block_tables.iter().enumerate() {
                let block = table[row.position / block_size] as usize;
                values[(2 + group) * size + idx] = (block * block_size + row.position % block_size) as u32;
                self.write_table(group, idx, table)?;
            }
        }
        overwrite(&self.rows, 0, &values)?;
        self.write_drawn(rows, drawn)
    }

    /// Writes a block table from where it differs from what the device has.
    fn write_table(&mut self, group: usize, idx: usize, table: &[u32]) -> Result<()> {
        let known = &mut self.tables[group][idx];
        let same = known.iter().zip(table).take_while(|(known, new)| known == new).count();
        if same < table.len() {
            let target = &self.batch.tables[group].block_tables;
            let table_len = target.dim(1)?;
            if table.len() > table_len {
                return Err(Error::internal(format_args!(
                    "{} blocks in a table of {table_len}",
                    table.len()
                )));
            }
            overwrite(target, idx * table_len + same, &table[same..])?;
            known.truncate(same);
            known.extend_from_slice(&table[same..]);
        }
        Ok(())
    }

    /// Puts ids that the host has not read yet into place.
    fn write_drawn(&self, rows: &[DecodeRow<'_>], drawn: Option<&Tensor>) -> Result<()> {
        let pairs: Vec<(u32, u32)> =
            (0..).zip(rows).filter_map(|(idx, row)| row.drawn.map(|from| (from, idx))).collect();
        put_drawn(&self.batch.input_ids, &pairs, drawn)
    }
}

/// `input_ids[to] = drawn[from]` for each pair, in place.
///
/// # Errors
/// `Internal` if there are pairs and nothing was drawn.
pub(super) fn put_drawn(input_ids: &Tensor, pairs: &[(u32, u32)], drawn: Option<&Tensor>) -> Result<()> {
    match (pairs, drawn) {
        ([], _) => Ok(()),
        (_, None) => Err(Error::internal("a token that no step has drawn")),
        (pairs, Some(drawn)) => crate::ops::gather::copy_ids(drawn, pairs, input_ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KvLayer, KvLayout};

    fn inputs() -> Inputs {
        let layer = |window| KvLayer::Owns { num_key_value_heads: 1, head_dim: 2, window };
        let layout = KvLayout { layers: vec![layer(None), layer(Some(8))] };
        let pool = KvPool::new(&layout, &[8, 8], 4, DType::F32, &Device::Cpu).expect("a small pool");
        Inputs::new(4, 5, &pool, &Device::Cpu).expect("room")
    }

    fn row<'a>(token_id: u32, position: usize, tables: &'a [Vec<u32>; 2]) -> DecodeRow<'a> {
        let block_tables = tables.iter().map(Vec::as_slice).collect();
        DecodeRow { token_id, drawn: None, position, block_tables, draw: Draw::GREEDY }
    }

    fn u32s(x: &Tensor) -> Vec<u32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("u32")
    }

    /// What a step would read is what [`Batch::new`] lays out, and rows without a sequence write nowhere.
    #[test]
    fn a_recorded_step_reads_what_is_new() {
        let mut inputs = inputs();
        let (first, second) = ([vec![7, 3], vec![1, 2]], [vec![5], vec![6]]);
        inputs.write(&[row(10, 6, &first), row(11, 0, &second)], None).expect("it fits");
        assert_eq!(u32s(&inputs.batch.input_ids)[..2], [10, 11]);
        assert_eq!(u32s(&inputs.batch.queries.positions), [6, 0, 0, 0]);
        assert_eq!(u32s(&inputs.batch.queries.query_start), [0, 1, 2, 3, 4]);
        let slots = |inputs: &Inputs, group: usize| u32s(&inputs.batch.tables[group].slot_mapping);
        assert_eq!(slots(&inputs, 0), [3 * 4 + 2, 5 * 4, NO_SLOT, NO_SLOT]);
        assert_eq!(slots(&inputs, 1), [2 * 4 + 2, 6 * 4, NO_SLOT, NO_SLOT]);
        // The second goes on alone, in the first row, and has one more block.
        let second = [vec![5, 0], vec![6, 4]];
        inputs.write(&[row(12, 4, &second)], None).expect("it fits");
        assert_eq!(slots(&inputs, 1), [4 * 4, NO_SLOT, NO_SLOT, NO_SLOT]);
        assert_eq!(u32s(&inputs.batch.tables[0].block_tables)[..2], [5, 0]);
        assert_eq!(u32s(&inputs.batch.tables[1].block_tables)[..2], [6, 4]);
        let long = [vec![0; 6], vec![0; 6]];
        assert!(inputs.write(&[row(1, 0, &long)], None).is_err());
    }

    #[test]
    fn a_recording_that_fails_is_tried_again_and_then_given_up() {
        let spoiled = Error::internal("another engine closed");
        assert!(matches!(State::failed(1, 1, &spoiled), State::New(1)));
        assert!(matches!(State::failed(1, MAX_ATTEMPTS, &spoiled), State::Failed));
    }

    #[test]
    fn a_token_that_was_drawn_is_put_into_place() {
        let mut inputs = inputs();
        let tables = [vec![0], vec![0]];
        let drawn = Tensor::new(&[70u32, 71, 72], &Device::Cpu).expect("a vector");
        let rows = [row(1, 0, &tables), DecodeRow { drawn: Some(2), ..row(0, 1, &tables) }];
        inputs.write(&rows, Some(&drawn)).expect("it fits");
        assert_eq!(u32s(&inputs.batch.input_ids)[..2], [1, 72]);
        assert!(inputs.write(&rows, None).is_err());
    }
}
