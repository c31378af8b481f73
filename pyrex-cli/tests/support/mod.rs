//! What the tests of the binary share: how it is run, and where files are.

#![allow(dead_code, unreachable_pub, reason = "no test needs all of it")]

pub mod certificates;
pub mod served;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// What does not happen by then will not happen: far more than a debug build takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrex"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
pub fn pyrex(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("stdout is UTF-8")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("stderr is UTF-8")
}

/// Runs what must fail with one line on stderr.
pub fn fails(arguments: &[&str], code: i32, needle: &str) {
    let output = pyrex(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(stdout(&output), "", "{arguments:?}");
    assert!(message.starts_with("error: ") && message.contains(needle), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
}

/// A file of the bundled model.
pub fn shapes(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes").join(file);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// A file under the folder that cargo keeps for tests. Test processes share it: the name must be the test's own.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// As [`scratch`], for an argument.
pub fn scratch_name(name: &str) -> String {
    scratch(name).to_str().expect("the path is UTF-8").to_owned()
}

/// Sends a signal, such as `INT`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.expect("there is a kill").success());
}

/// The lines of something, read on a thread so that nobody waits for ever.
pub struct Lines(Receiver<String>);

impl Lines {
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(source).lines() {
                // The test may have seen enough.
                let Ok(()) = sender.send(line.expect("lines are UTF-8")) else { return };
            }
        });
        Self(lines)
    }

    /// The next line; none when there are no more.
    pub fn next(&self) -> Option<String> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing was said for {PATIENCE:?}"),
        }
    }

    /// The next line with `needle` in it.
    pub fn find(&self, needle: &str) -> String {
        let mut others = Vec::new();
        while let Some(line) = self.next() {
            if line.contains(needle) {
                return line;
            }
            others.push(line);
        }
        panic!("no {needle:?} in {others:#?}");
    }

    pub fn rest(self) -> String {
        let mut rest = String::new();
        while let Some(line) = self.next() {
            rest += &line;
            rest += "\n";
        }
        rest
    }
}

/// Ends with the test, however that ends.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "it does not end");
            // There is no waiting with a time limit in the standard library.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
