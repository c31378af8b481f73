//! What systemd is told, if it wants to know: `Type=notify` and `WatchdogSec=`.
//!
//! Where there is no systemd nothing is sent, and what cannot be sent is no reason to stop serving.

use pyrex_core::Engine;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::time::Duration;

/// What is added to the time that draining may take: closing takes some as well.
const CLOSING: Duration = Duration::from_secs(5);

/// Requests are answered.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Files are being read again; [`ready`] says when that is done.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock cannot be read"),
    }
}

/// Requests under way are answered for so long.
pub(super) fn stopping(deadline: Duration) {
    let within = u32::try_from((deadline + CLOSING).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
}

/// Says that all is well, as often as systemd wants to hear it, while no step hangs.
pub(super) async fn watchdog(engine: Engine, stuck_after: Duration) {
    let Some(period) = watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(period / 2);
    loop {
        ticks.tick().await;
        let running_ms = engine.stats().running_step_ms.unwrap_or(0.0);
        match running_ms < stuck_after.as_secs_f64() * 1e3 {
            true => tell(&[NotifyState::Watchdog]),
            false => tracing::error!(running_ms, "a step hangs: systemd is not told that all is well"),
        }
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = notify(what) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
