//! Time on the device, between two events of its stream.

use crate::error::{Error, Result};
use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, DriverError};
use std::sync::Arc;

/// An event that is recorded, on the stream where the next will be.
pub(crate) struct Timer {
    from: CudaEvent,
    stream: Arc<CudaStream>,
}

/// Two events that are recorded.
pub(crate) struct Interval {
    from: CudaEvent,
    to: CudaEvent,
}

impl Timer {
    pub(crate) fn start(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        Ok(Self { from: event(&stream)?, stream })
    }

    pub(crate) fn stop(self) -> Result<Interval> {
        Ok(Interval { to: event(&self.stream)?, from: self.from })
    }
}

impl Interval {
    pub(crate) fn ms(&self) -> Result<f64> {
        self.from.elapsed_ms(&self.to).map(f64::from).map_err(failed)
    }
}

/// One that is timed: by default an event is not.
fn event(stream: &CudaStream) -> Result<CudaEvent> {
    stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed)
}

fn failed(error: DriverError) -> Error {
    Error::device(format_args!("timing the device: {error}"))
}
