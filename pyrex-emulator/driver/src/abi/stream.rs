//! Streams and events.

use super::{CONTEXT, Out, bound, exports};
use crate::driver::Driver;
use crate::status::{Outcome, Status};

fn create_stream(driver: &mut Driver, stream: Out<u64>, flags: u32) -> Outcome {
    const NON_BLOCKING: u32 = 1;
    if flags > NON_BLOCKING {
        return Err(Status::INVALID_VALUE);
    }
    stream.put(driver.create_stream(flags != NON_BLOCKING))
}

exports! {
    fn cuStreamCreate(stream: Out<u64>, flags: u32) = bound(|driver| create_stream(driver, stream, flags));
    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, _priority: i32) =
        bound(|driver| create_stream(driver, stream, flags));
    fn cuStreamDestroy_v2(stream: u64) = bound(|driver| driver.destroy_stream(stream));
    fn cuStreamSynchronize(stream: u64) = bound(|driver| driver.synchronize(stream));
    fn cuStreamQuery(stream: u64) = bound(|driver| driver.query(stream));
    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: u32) =
        bound(|driver| driver.wait_event(stream, event));
    fn cuStreamGetCtx(stream: u64, context: Out<u64>) = bound(|driver| {
        driver.stream(stream)?;
        context.put(CONTEXT)
    });

    fn cuEventCreate(event: Out<u64>, flags: u32) = bound(|driver| {
        const DISABLE_TIMING: u32 = 2;
        event.put(driver.create_event(flags & DISABLE_TIMING == 0))
    });
    fn cuEventDestroy_v2(event: u64) =
        bound(|driver| driver.events.remove(&event).map(drop).ok_or(Status::INVALID_HANDLE));
    fn cuEventRecord(event: u64, stream: u64) = bound(|driver| driver.record_event(event, stream));
    fn cuEventSynchronize(event: u64) = bound(|driver| driver.synchronize_event(event));
    fn cuEventQuery(event: u64) = bound(|driver| driver.query_event(event));
    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, from: u64, to: u64) = bound(|driver| {
        milliseconds.put(driver.elapsed(from, to)?)
    });
}
