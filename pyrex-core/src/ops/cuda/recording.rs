//! Recording a stream's work, and what is written between two replays.

use super::{Lane, memory, view};
use crate::error::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::result;
use candle_core::{CudaDevice, Tensor};
use pyrex_kernels::cuda::{self, Stream};

/// What was recorded.
pub(crate) struct Graph {
    graph: cuda::Graph,
    /// Where it computes.
    _memory: Vec<Tensor>,
    /// Keeps the kernels loaded, and is dropped after the graph.
    _device: CudaDevice,
}

impl Graph {
    pub(crate) fn replay(&self) -> Result<()> {
        Ok(self.graph.launch()?)
    }
}

/// As [`Recording::new`](crate::ops::recording::Recording::new).
pub(crate) fn record(device: &CudaDevice, mut work: impl FnMut() -> Result<()>) -> Result<Graph> {
    let memory = memory::noted(&mut work)?;
    let graph = Stream::new(device.cuda_stream())?.capture(|| memory::again(&memory, &mut work))?;
    Ok(Graph { graph, _memory: memory, _device: device.clone() })
}

/// As [`overwrite`](crate::ops::recording::overwrite). So few bytes are taken by the driver before the call returns.
pub(crate) fn overwrite(lane: &Lane, target: &Tensor, offset: usize, values: &[u32]) -> Result<()> {
    let target = view(target)?;
    let stream = lane.device.cuda_stream();
    let address = target.buffer().address() + (offset * size_of::<u32>()) as u64;
    let copied = stream.context().bind_to_thread().and_then(|()| {
        // SAFETY: the caller has checked that the target has room; pageable memory is copied by the driver before it returns.
        unsafe { result::memcpy_htod_async(address, values, stream.cu_stream()) }
    });
    copied.map_err(|error| Error::device(format_args!("a copy to the device: {error}")))
}
