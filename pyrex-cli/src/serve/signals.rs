//! [`Signals`]: how a running server is told to read its files again, to stop, and to stop at once.

use super::notify;
use super::settings::{Settings, SettingsArguments};
use crate::fail::Failure;
use pyrex_server::{Reloader, Shutdown};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell, an administrator or systemd sends.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals: from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// If they cannot be had.
    pub(super) fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind)
                .map_err(|error: io::Error| Failure::Other(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            hangup: take(SignalKind::hangup())?,
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// SIGHUP reloads. The first SIGTERM or SIGINT drains, the second cuts.
    pub(super) async fn heed(
        mut self,
        shutdown: Shutdown,
        arguments: SettingsArguments,
        settings: Settings,
        reloader: Reloader,
    ) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    notify::reloading();
                    reload(&arguments, &settings, &reloader);
                    notify::ready();
                }
                _ = self.interrupt.recv() => stop(&shutdown, &settings),
                _ = self.terminate.recv() => stop(&shutdown, &settings),
            }
        }
    }
}

/// What is wrong with the new files is logged, and the old ones stay in force.
fn reload(arguments: &SettingsArguments, before: &Settings, reloader: &Reloader) {
    let reloaded = arguments.resolve().and_then(|now| Ok((reloader.reload(&now.config)?, now.engine)));
    match reloaded {
        Ok((mut later, engine)) => {
            if engine != before.engine {
                later.push("engine");
            }
            match later.is_empty() {
                true => tracing::info!("certificates, keys and tenants were read again"),
                false => {
                    let later = later.join(", ");
                    tracing::warn!(
                        later,
                        "certificates, keys and tenants were read again; the rest holds after a restart"
                    );
                }
            }
        }
        Err(Failure::Usage(error) | Failure::Other(error)) => {
            tracing::error!(error, "what was read again cannot be used, the old holds on");
        }
        Err(Failure::BrokenPipe | Failure::Findings) => {}
    }
}

fn stop(shutdown: &Shutdown, settings: &Settings) {
    if shutdown.is_begun() {
        tracing::warn!("closing at once");
        shutdown.cut();
        return;
    }
    let deadline_ms = settings.config.limits.drain_timeout_ms;
    tracing::info!(deadline_ms, "closing once the requests under way are answered");
    notify::stopping(Duration::from_millis(deadline_ms));
    shutdown.begin();
}
