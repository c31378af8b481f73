//! The log of one engine, told to a function of the host. There is no log of the whole process: two hosts of Pyrex in one
//! process each hear their own engines.

use crate::callback::{Gate, HostData};
use crate::guard::Result;
use crate::status::{Failure, c_string};
use std::ffi::{CString, c_char, c_void};
use std::io::{self, Write};
use std::sync::Arc;
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

/// A level of the log: what went wrong.
pub const PYREX_LOG_ERROR: i32 = 1;
/// A level of the log: what may go wrong.
pub const PYREX_LOG_WARN: i32 = 2;
/// A level of the log: each request, when it ends.
pub const PYREX_LOG_INFO: i32 = 3;
/// A level of the log: the phases of each request.
pub const PYREX_LOG_DEBUG: i32 = 4;
/// A level of the log: everything.
pub const PYREX_LOG_TRACE: i32 = 5;

/// Told one line of an engine's log: its level, where it comes from, and what it says. The texts are valid during the call.
/// Called on the engine's threads, several at a time; must neither block nor unwind.
pub type pyrex_log_fn = Option<
    unsafe extern "C" fn(log_data: *mut c_void, level: i32, target: *const c_char, message: *const c_char),
>;

/// A function of the host that is told a log.
#[derive(Clone)]
pub(crate) struct Log {
    tell: unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char),
    data: HostData,
    gate: Arc<Gate>,
}

impl Log {
    pub(crate) fn new(tell: pyrex_log_fn, data: *mut c_void) -> Option<Self> {
        Some(Self { tell: tell?, data: HostData::new(data), gate: Arc::default() })
    }

    /// Tells nothing any more; when this returns the host's data may go.
    pub(crate) fn close(&self) {
        self.gate.close();
    }

    /// What an engine tells, up to `level`; 0 is up to `PYREX_LOG_INFO`.
    pub(crate) fn subscriber(&self, level: i32) -> Result<Dispatch> {
        let most = match level {
            PYREX_LOG_ERROR => Level::ERROR,
            PYREX_LOG_WARN => Level::WARN,
            0 | PYREX_LOG_INFO => Level::INFO,
            PYREX_LOG_DEBUG => Level::DEBUG,
            PYREX_LOG_TRACE => Level::TRACE,
            _ => {
                return Err(Failure::invalid(format!(
                    "log_level is {level}, expected 0 to {PYREX_LOG_TRACE}"
                )));
            }
        };
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(most)
            .with_writer(self.clone())
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_target(false);
        Ok(Dispatch::new(subscriber.finish()))
    }
}

impl Log {
    fn line(&self, level: i32, target: &str) -> Line {
        Line { log: self.clone(), level, target: c_string(target.to_owned()), text: Vec::new() }
    }
}

/// One line on its way.
pub(crate) struct Line {
    log: Log,
    level: i32,
    target: CString,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        self.line(PYREX_LOG_INFO, "pyrex")
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        let level = match *metadata.level() {
            Level::ERROR => PYREX_LOG_ERROR,
            Level::WARN => PYREX_LOG_WARN,
            Level::INFO => PYREX_LOG_INFO,
            Level::DEBUG => PYREX_LOG_DEBUG,
            Level::TRACE => PYREX_LOG_TRACE,
        };
        self.line(level, metadata.target())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The formatter writes a line in pieces and drops the writer behind it.
impl Drop for Line {
    fn drop(&mut self) {
        let message = c_string(String::from_utf8_lossy(&self.text).trim_end().to_owned());
        let Log { tell, data, gate } = &self.log;
        // SAFETY: a function of this type, as the header asks; the gate is open, so its data is there.
        gate.pass(|| unsafe { tell(data.pointer(), self.level, self.target.as_ptr(), message.as_ptr()) });
    }
}
