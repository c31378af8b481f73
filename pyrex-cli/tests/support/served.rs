//! A server that runs as long as a test wants it.

use super::{Lines, Running, command};
use std::process::Command;

pub struct Served {
    pub running: Running,
    /// Such as `http://127.0.0.1:40000`.
    pub url: String,
    /// What it says on stderr.
    pub log: Option<Lines>,
}

impl Served {
    /// `pyrex serve` on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        Self::from(command(&[&["serve", "--port", "0"], arguments].concat()))
    }

    /// Waits until it listens.
    pub fn from(mut serve: Command) -> Self {
        let mut running = Running(serve.spawn().expect("the binary runs"));
        let log = Lines::of(running.0.stderr.take().expect("a pipe"));
        let said = Lines::of(running.0.stdout.take().expect("a pipe"));
        match said.next() {
            Some(line) => {
                let url = line.strip_prefix("listening on ").expect("an address").to_owned();
                Self { running, url, log: Some(log) }
            }
            None => panic!("it does not start: {}", log.rest()),
        }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn address(&self) -> &str {
        self.url.split("://").nth(1).expect("a URL")
    }

    pub fn log(&self) -> &Lines {
        self.log.as_ref().expect("nobody took it")
    }
}
