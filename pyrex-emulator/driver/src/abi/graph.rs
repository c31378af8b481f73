//! Captures of streams, and graphs.

use super::{Out, bound, exports};
use crate::capture::Mode;
use crate::driver::Driver;
use crate::status::{Outcome, Status};

fn begin(driver: &mut Driver, stream: u64, mode: u32) -> Outcome {
    let mode = match mode {
        0 => Mode::Global,
        1 => Mode::ThreadLocal,
        2 => Mode::Relaxed,
        _ => return Err(Status::INVALID_VALUE),
    };
    driver.begin_capture(stream, mode)
}

exports! {
    fn cuStreamBeginCapture_v2(stream: u64, mode: u32) = bound(|driver| begin(driver, stream, mode));
    fn cuStreamEndCapture(stream: u64, graph: Out<u64>) = bound(|driver| {
        graph.put(0)?;
        graph.put(driver.end_capture(stream)?)
    });
    fn cuStreamIsCapturing(stream: u64, status: Out<u32>) =
        bound(|driver| status.put(driver.capture_status(stream)? as u32));

    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: u64, flags: u64) = bound(|driver| {
        executable.put(driver.instantiate(graph, flags)?)
    });
    fn cuGraphLaunch(executable: u64, stream: u64) = bound(|driver| driver.launch_graph(executable, stream));
    fn cuGraphUpload(executable: u64, stream: u64) = bound(|driver| {
        driver.stream(stream)?;
        driver.executables.get(&executable).map(drop).ok_or(Status::INVALID_HANDLE)
    });
    fn cuGraphDestroy(graph: u64) =
        bound(|driver| driver.graphs.remove(&graph).map(drop).ok_or(Status::INVALID_HANDLE));
    fn cuGraphExecDestroy(executable: u64) = bound(|driver| {
        driver.executables.remove(&executable).map(drop).ok_or(Status::INVALID_HANDLE)
    });
    /// The nodes have no handles of their own: they are numbered.
    fn cuGraphGetNodes(graph: u64, nodes: Out<u64>, count: Out<usize>) = bound(|driver| {
        let len = driver.graphs.get(&graph).ok_or(Status::INVALID_HANDLE)?.len();
        if !nodes.is_null() {
            (0..len).try_for_each(|index| nodes.nth(index).put(index as u64 + 1))?;
        }
        count.put(len)
    });
}
