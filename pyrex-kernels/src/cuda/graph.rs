//! What was launched once, to be launched again as a whole.

use super::{Stream, captures, failed};
use crate::error::{Error, Result};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream, result};

/// Launches in order, with their arguments. What they read and write must stay where it is as long as the graph is launched.
pub struct Graph {
    graph: CudaGraph,
    /// Keeps the kernels loaded.
    queue: Stream,
}

// SAFETY: a graph may be used by any thread, one at a time, which not being `Sync` ensures.
unsafe impl Send for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Stream {
    /// A graph of what `work` puts on the stream, none of which runs yet. Memory that it takes from the stream belongs to the graph;
    /// waiting for the stream, or reading back from it, makes the capture fail. Kernels should have run before: loading one
    /// may take memory in a way that cannot be captured.
    ///
    /// Whatever fails, and if `work` panics, the capture is over and the stream as usable as before.
    ///
    /// # Errors
    /// What `work` says; `Driver` if it did what cannot be captured; `OutOfMemory`.
    pub fn capture<E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let _turn = captures::begin();
        let capture = Capture::begin(self)?;
        work()?;
        Ok(capture.end()?)
    }
}

impl Graph {
    /// Puts all of it on the stream that it was captured from.
    ///
    /// # Errors
    /// `Driver` or `OutOfMemory` if it cannot be launched.
    pub fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(|error| failed("launch a graph", error))
    }
}

/// A capture under way, which ends when this is dropped.
struct Capture<'a> {
    queue: &'a Stream,
}

impl<'a> Capture<'a> {
    fn begin(queue: &'a Stream) -> Result<Self> {
        // Relaxed: a library that loads a kernel meanwhile does no harm to the graph.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        queue.stream().begin_capture(mode).map_err(|error| failed("begin a capture", error))?;
        Ok(Self { queue })
    }

    fn end(self) -> Result<Graph> {
        let queue = self.queue;
        // An error that was kept for the next call on the context would keep the stream from ending the capture.
        queue.stream().context().bind_to_thread().map_err(|error| failed("a capture", error))?;
        // The stream captures no longer once this returns, even if it says that the capture had failed.
        std::mem::forget(self);
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = queue.stream().end_capture(flags).map_err(|error| {
            forget_errors(queue.stream());
            failed("end a capture", error)
        })?;
        let graph = graph.ok_or_else(|| Error::Driver("nothing was captured".to_owned()))?;
        graph.upload().map_err(|error| failed("upload a graph", error))?;
        Ok(Graph { graph, queue: queue.clone() })
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let stream = self.queue.stream();
        stream.context().record_err(stream.context().bind_to_thread());
        // SAFETY: this stream captures, and nobody else has the graph that comes of it.
        unsafe {
            if let Ok(graph) = result::stream::end_capture(stream.cu_stream())
                && !graph.is_null()
            {
                stream.context().record_err(result::graph::destroy(graph));
            }
        }
        forget_errors(stream);
    }
}

/// Memory that was freed in a capture that failed reports that it could not be; the next call on the context would say so.
fn forget_errors(stream: &CudaStream) {
    let _ = stream.context().check_err();
}
