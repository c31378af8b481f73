//! [`Stay`]: how a process that ends learns that a thread has not let go of a device yet.
//!
//! Dropping an engine does not wait for its threads. But a process may end right after, while they free the device's memory and close
//! its libraries; those shut down as the process ends, and crash under whoever still calls them.

use candle_core::Device;
use std::sync::{Arc, Weak};

/// Held by a thread for as long as it may have tensors.
#[derive(Clone, Default)]
pub(crate) struct Stay(Arc<()>);

/// Whether anybody has a [`Stay`].
pub(crate) struct Stays(Weak<()>);

impl Stay {
    /// `body`, by a thread that has let go at its end.
    pub(crate) fn during(self, body: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
        move || {
            body();
            drop(self);
        }
    }

    pub(crate) fn watch(&self) -> Stays {
        Stays(Arc::downgrade(&self.0))
    }
}

impl Stays {
    /// Has the process, should it end now, wait until the last thread has let go of `device`; some seconds at most.
    pub(crate) fn end_before_the_process(&self, device: &Device) {
        #[cfg(feature = "cuda")]
        if matches!(device, Device::Cuda(_)) {
            super::cuda::wait_at_exit(self.0.clone());
        }
        #[cfg(not(feature = "cuda"))]
        let _ = (device, &self.0);
    }
}
