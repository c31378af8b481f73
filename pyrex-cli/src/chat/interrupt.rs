//! [`Interrupt`]: Ctrl-C ends the answer, not the program.

use crate::fail::Failure;
use pyrex_core::RequestControl;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Whom Ctrl-C ends.
#[derive(Clone)]
pub(super) struct Interrupt {
    answer: Arc<Mutex<Option<RequestControl>>>,
}

/// Until it is dropped, Ctrl-C ends one answer.
pub(super) struct Aimed<'a> {
    interrupt: &'a Interrupt,
}

impl Interrupt {
    /// Takes the signal. While no answer is written it means nothing on a terminal, whose editor reads Ctrl-C itself, and
    /// ends a program that reads from a pipe.
    ///
    /// # Errors
    /// If the signal cannot be had.
    pub(super) fn listen(on_terminal: bool) -> Result<Self, Failure> {
        let interrupt = Self { answer: Arc::default() };
        let heard = interrupt.clone();
        let failed = |error| Failure::Other(format!("cannot listen for Ctrl-C: {error}"));
        let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let mut signals = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt()).map_err(failed)?
        };
        let listen = move || {
            runtime.block_on(async {
                while signals.recv().await.is_some() {
                    match &*heard.answer() {
                        Some(answer) => answer.cancel(),
                        None if on_terminal => {}
                        None => process::exit(INTERRUPTED),
                    }
                }
            });
        };
        thread::Builder::new().name("pyrex-interrupt".to_owned()).spawn(listen).map_err(failed)?;
        Ok(interrupt)
    }

    /// Ctrl-C ends this answer from now on.
    pub(super) fn aim(&self, answer: RequestControl) -> Aimed<'_> {
        *self.answer() = Some(answer);
        Aimed { interrupt: self }
    }

    fn answer(&self) -> MutexGuard<'_, Option<RequestControl>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Aimed<'_> {
    fn drop(&mut self) {
        *self.interrupt.answer() = None;
    }
}
