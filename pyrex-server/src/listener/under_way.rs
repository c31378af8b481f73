//! [`Requests`]: how many requests a server that stops has promised to answer.

use crate::shutdown::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts the requests that began before the server was told to stop.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Counter>);

#[derive(Default)]
struct Counter {
    count: AtomicUsize,
    none: Notify,
}

/// One of them, until it is dropped.
pub(crate) struct UnderWay(Arc<Counter>);

impl Requests {
    /// Counts a request, unless it came too late.
    ///
    /// Counting first and asking then makes sure that whoever sees none left sees none later: a request that is still
    /// counted for a moment finds that the server was told to stop.
    pub(crate) fn begin(&self, shutdown: &Shutdown) -> Option<UnderWay> {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        let one = UnderWay(self.0.clone());
        (!shutdown.is_begun()).then_some(one)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Waits until none is left.
    pub(crate) async fn none(&self) {
        loop {
            let told = self.0.none.notified();
            if self.count() == 0 {
                return;
            }
            told.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
