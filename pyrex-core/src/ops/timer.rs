//! [`Timer`]: how long the device works, told once it has.

use crate::error::Result;
use candle_core::Device;
use std::time::{Duration, Instant};

/// Started before some work is launched, and stopped after it. Neither waits for the device.
pub struct Timer {
    started: Instant,
    #[cfg(feature = "cuda")]
    device: Option<super::cuda::Timer>,
}

/// What a timer has measured, or will have.
pub struct Interval(Measured);

enum Measured {
    Known(Duration),
    /// Between two events of the device.
    #[cfg(feature = "cuda")]
    Coming(super::cuda::Interval),
}

impl Timer {
    /// # Errors
    /// `Device` if the device fails.
    pub fn start(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        let on_device = match device {
            Device::Cuda(device) => Some(super::cuda::Timer::start(device)?),
            _ => None,
        };
        #[cfg(not(feature = "cuda"))]
        let _ = device;
        Ok(Self {
            started: Instant::now(),
            #[cfg(feature = "cuda")]
            device: on_device,
        })
    }

    /// # Errors
    /// `Device` if the device fails.
    pub fn stop(self) -> Result<Interval> {
        #[cfg(feature = "cuda")]
        if let Some(device) = self.device {
            return Ok(Interval(Measured::Coming(device.stop()?)));
        }
        Ok(Interval(Measured::Known(self.started.elapsed())))
    }
}

impl Interval {
    /// In milliseconds; waits for the end of it.
    ///
    /// # Errors
    /// `Device` if the work fails.
    pub fn ms(&self) -> Result<f64> {
        match &self.0 {
            Measured::Known(time) => Ok(time.as_secs_f64() * 1e3),
            #[cfg(feature = "cuda")]
            Measured::Coming(interval) => interval.ms(),
        }
    }
}
