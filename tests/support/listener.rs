//! A server on a free port, and clients that are nothing but sockets.

use axum::Router;
use axum::body::{Body, Bytes};
use pyrex_server::{Config, Reloader, Server, Shutdown, Tenants};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How long a client waits for anything: longer than any load on the machine that runs the tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The longest time between a client's going and the end of what was done for it.
pub const GONE: Duration = Duration::from_millis(100);

/// A server in threads of its own. Dropping it ends it.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Tells it to stop.
    pub shutdown: Shutdown,
    /// Changes whom it trusts.
    pub reloader: Reloader,
    serving: JoinHandle<usize>,
    runtime: Runtime,
}

/// A config for a free port.
pub fn config() -> Config {
    Config { port: 0, ..Config::default() }
}

impl Running {
    /// Serves a router that knows no tenants.
    pub fn start(config: &Config, router: Router) -> Self {
        Self::start_with(config, |_, _| router)
    }

    /// Serves the router that is made of the config's tenants and of what will stop the server.
    pub fn start_with(config: &Config, router: impl FnOnce(Arc<Tenants>, Shutdown) -> Router) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let tenants = Arc::new(Tenants::open(config).expect("the keys are read"));
        let shutdown = Shutdown::new();
        let router = router(tenants.clone(), shutdown.clone());
        let server = runtime.block_on(Server::bind(config, router)).expect("the server has its port");
        let (address, reloader) = (server.local_addr(), server.reloader(tenants));
        let serving = runtime.spawn(server.serve(shutdown.clone()));
        Self { address, shutdown, reloader, serving, runtime }
    }

    /// A client's connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server takes the connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
        stream.set_nodelay(true).expect("a socket need not wait");
        stream
    }

    /// All that comes back for these bytes, until the server closes.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        exchange(self.connect(), bytes)
    }

    /// Asserts that it answers `GET /` with `hello`.
    pub fn assert_alive(&self) {
        let answer = self.exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.ends_with("hello"), "{answer:?}");
    }

    /// Waits until it has stopped: how many requests it cut off.
    pub fn stopped(self) -> usize {
        self.runtime.block_on(self.serving).expect("the server does not panic")
    }

    /// Stops it.
    pub fn stop(self) -> usize {
        self.shutdown.begin();
        self.stopped()
    }
}

/// Sends what can be sent, and reads until the other side closes.
pub fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    // The answer may come, and the connection go, before all is sent.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("no end after {:?}", String::from_utf8_lossy(&answer))
        }
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// One answer on a connection that stays open: its head, and the body as long as `content-length` says.
pub fn answer(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body_start = bytes.len();
    bytes.resize(body_start + len.map_or(0, |len| len.parse().expect("a length")), 0);
    stream.read_exact(&mut bytes[body_start..])?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// Tells when it is dropped.
pub struct Guard(mpsc::Sender<Instant>);

/// A guard, and where its end is heard of.
pub fn guard() -> (Guard, mpsc::Receiver<Instant>) {
    let (ended, end) = mpsc::channel();
    (Guard(ended), end)
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody may care.
        let _ = self.0.send(Instant::now());
    }
}

/// A body that says one thing and then nothing more, and holds a guard.
pub fn endless(first: &'static str, guard: Guard) -> Body {
    Body::new(Endless { first: Some(first), _guard: guard })
}

struct Endless {
    first: Option<&'static str>,
    _guard: Guard,
}

impl axum::body::HttpBody for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(http_body::Frame::data(first.into())))),
            None => Poll::Pending,
        }
    }
}
