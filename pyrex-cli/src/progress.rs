//! How far loading is, on stderr, if somebody is there to see it.

use pyrex_core::Progress;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A progress line for a terminal; nothing otherwise.
pub(crate) fn on_terminal() -> Option<Progress> {
    if !stderr().is_terminal() {
        return None;
    }
    let shown = AtomicU64::new(u64::MAX);
    Some(Arc::new(move |done, total| {
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        if shown.swap(percent, Ordering::Relaxed) != percent {
            show(percent, done, total);
        }
        Ok(())
    }))
}

fn show(percent: u64, done: u64, total: u64) {
    const MIB: u64 = 1 << 20;
    // Whoever closed stderr does not miss the progress.
    drop(match percent {
        100.. => write!(stderr(), "\r\x1b[K"),
        _ => write!(stderr(), "\rloading {percent:3} % ({} of {} MiB)", done / MIB, total / MIB),
    });
}
