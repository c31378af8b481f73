//! Drawing tokens on the device, and reading nothing but them.

use super::{Lane, view};
use crate::error::{Error, Result};
use crate::ops::recording::overwrite;
use crate::ops::sampling::Draw;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, DriverError, result};
use candle_core::{CudaDevice, DType, Device, Tensor};
use pyrex_kernels::cuda::Pinned;
use pyrex_kernels::sampling::{Choice, RECORD_WORDS, Sampling, record, sample, scratch_len};
use std::sync::{Arc, Mutex, PoisonError};

/// The tensors of a [`DrawTable`](crate::ops::sampling::DrawTable): records and positions.
pub(crate) fn table(rows: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::U32, device);
    Ok((zeros(&[rows, RECORD_WORDS])?, zeros(&[rows])?))
}

/// As [`DrawTable::write`](crate::ops::sampling::DrawTable::write).
pub(crate) fn write(records: &Tensor, positions: &Tensor, draws: &[Draw]) -> Result<()> {
    let words: Vec<u32> = draws.iter().flat_map(|draw| record(&choice(draw))).collect();
    let drawn: Vec<u32> = draws.iter().map(|draw| draw.position).collect();
    overwrite(records, 0, &words)?;
    overwrite(positions, 0, &drawn)
}

fn choice(draw: &Draw) -> Choice {
    let Draw { temperature, top_k, top_p, min_p, seed, index, .. } = *draw;
    Choice { temperature, top_k: u32::try_from(top_k).unwrap_or(0), top_p, min_p, seed, index }
}

/// As [`DrawTable::draw`](crate::ops::sampling::DrawTable::draw).
pub(crate) fn draw(lane: &Lane, logits: &Tensor, records: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (rows, vocab_size) = logits.dims2()?;
    let (records, positions) = (records.narrow(0, 0, rows)?, positions.narrow(0, 0, rows)?);
    let ids = lane.unwritten(rows, DType::U32)?;
    let scratch = lane.unwritten(scratch_len(vocab_size, rows), DType::U32)?;
    sample(
        lane,
        &Sampling {
            logits: view(logits)?.buffer(),
            soft_cap: None,
            parameters: view(&records)?.buffer(),
            positions: view(&positions)?.buffer(),
            scratch: view(&scratch)?.buffer(),
            ids: view(&ids)?.buffer(),
            vocab_size,
            rows,
        },
    )?;
    Ok(ids)
}

/// Host memory that ids are copied to, for two steps at a time.
pub(crate) struct HostIds {
    slots: [Arc<Slot>; 2],
    next: usize,
    stream: Arc<CudaStream>,
}

struct Slot {
    memory: Mutex<Pinned>,
    copied: CudaEvent,
}

/// Ids that the device is about to copy.
pub(crate) struct ComingIds {
    slot: Arc<Slot>,
    len: usize,
}

impl HostIds {
    pub(crate) fn new(max_ids: usize, device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let slot = || -> Result<Arc<Slot>> {
            let memory = Pinned::new(stream.context(), max_ids * size_of::<u32>())?;
            let copied = stream.context().new_event(None).map_err(failed)?;
            Ok(Arc::new(Slot { memory: Mutex::new(memory), copied }))
        };
        Ok(Self { slots: [slot()?, slot()?], next: 0, stream })
    }

    pub(crate) fn begin(&mut self, ids: &Tensor) -> Result<ComingIds> {
        let slot = Arc::clone(&self.slots[self.next]);
        self.next = 1 - self.next;
        let view = view(ids)?;
        let len = ids.elem_count();
        // The copy before the last, if nobody has waited for it.
        slot.copied.synchronize().map_err(failed)?;
        let mut memory = slot.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = memory.get_mut(..len * size_of::<u32>()) else {
            return Err(Error::internal(format_args!("{len} ids to read at once")));
        };
        self.stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the ids are freed on this stream; the pinned memory is as long, and is not read before the event.
        unsafe { result::memcpy_dtoh_async(target, view.buffer().address(), self.stream.cu_stream()) }
            .map_err(failed)?;
        slot.copied.record(&self.stream).map_err(failed)?;
        drop(memory);
        Ok(ComingIds { slot, len })
    }
}

impl ComingIds {
    pub(crate) fn wait(self) -> Result<Vec<u32>> {
        self.slot.copied.synchronize().map_err(failed)?;
        let memory = self.slot.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let words = memory[..self.len * size_of::<u32>()].chunks_exact(size_of::<u32>());
        Ok(words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect())
    }
}

fn failed(error: DriverError) -> Error {
    Error::device(format_args!("reading tokens back: {error}"))
}
