//! Drawing tokens on the device, and reading nothing but them.

use super::{lane, view};
use crate::error::{Error, Result};
use crate::ops::recording::overwrite;
use crate::ops::sampling::Draw;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, DriverError, result};
use candle_core::{CudaDevice, DType, Device, Tensor};
use pyrex_kernels::cuda::Pinned;
use pyrex_kernels::sampling::{Choice, RECORD_WORDS, Sampling, record, sample, scratch_len};
use std::sync::{Arc, Mutex, PoisonError};

/// What a [`DrawTable`](crate::ops::sampling::DrawTable) is on a device.
#[derive(Debug)]
pub(crate) struct Table {
    /// `[rows, words of a record]` u32.
    records: Tensor,
    /// `[rows]` u32.
    positions: Tensor,
}

impl Table {
    pub(crate) fn new(rows: usize, device: &Device) -> Result<Self> {
        let records = Tensor::zeros((rows, RECORD_WORDS), DType::U32, device)?;
        Ok(Self { records, positions: Tensor::zeros(rows, DType::U32, device)? })
    }

    pub(crate) fn write(&self, draws: &[Draw]) -> Result<()> {
        let words: Vec<u32> = draws.iter().flat_map(|draw| record(&choice(draw))).collect();
        let positions: Vec<u32> = draws.iter().map(|draw| draw.position).collect();
        overwrite(&self.records, 0, &words)?;
        overwrite(&self.positions, 0, &positions)
    }

    pub(crate) fn draw(&self, logits: &Tensor) -> Result<Tensor> {
        let (rows, vocab_size) = logits.dims2()?;
        let Some(lane) = lane(logits) else {
            return Err(Error::internal("logits that are not on the device"));
        };
        let (records, positions) = (self.records.narrow(0, 0, rows)?, self.positions.narrow(0, 0, rows)?);
        let ids = lane.unwritten(rows, DType::U32)?;
        let scratch = lane.unwritten(scratch_len(vocab_size, rows), DType::U32)?;
        sample(
            &lane,
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
}

fn choice(draw: &Draw) -> Choice {
    let Draw { temperature, top_k, top_p, min_p, seed, index, .. } = *draw;
    // A limit that no vocabulary reaches is none.
    Choice { temperature, top_k: u32::try_from(top_k).unwrap_or(0), top_p, min_p, seed, index }
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
