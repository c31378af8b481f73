//! The listener: takes connections and keeps each from harming the others.
//!
//! - Only HTTP/1.1 is spoken. One connection per answer under way costs a task and some kilobytes; HTTP/2 would put many
//!   answers behind one slow reader's window, and brings a flow control and a history of floods of its own.
//! - A client that closes its side is gone: its answer is dropped at once, while it is queued, prefilled or written. So one
//!   that only shuts down its sending half gets no answer. Of one that sends its next request ahead it is noticed when
//!   something is written.
//! - Beyond `limits.max_connections`, a connection is told 503 (in plain HTTP) and closed, rather than left waiting.
//! - When the system has no file descriptor left, accepting pauses for [`PAUSE`] at a time.
//! - A panic in one connection ends that connection.
//!
//! Read [`connection`] for one client, [`activity`] for its time limits. Nothing is known here of what is asked.

mod activity;
mod body;
mod connection;
mod under_way;

use crate::config::Limits;
use crate::shutdown::Shutdown;
use axum::Router;
use connection::Connection;
use hyper::server::conn::http1;
use pyrex_core::{Error, Result};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use under_way::Requests;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// How long accepting pauses if the system has no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time that connections without a request have to close.
const CLOSING: Duration = Duration::from_secs(1);

/// What a client hears that comes on one connection too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What all connections look at before they do something.
pub(crate) struct InForce {
    /// Without one, HTTP is plain.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections of an older one close after the answer under way.
    pub(crate) generation: u64,
    /// Connections that have said nothing close.
    pub(crate) closing: bool,
    /// Connections close at once.
    pub(crate) cut: bool,
}

/// What all connections share.
pub(crate) struct Shared {
    http: http1::Builder,
    limits: Limits,
    router: Router,
    requests: Requests,
    shutdown: Shutdown,
}

/// A port that is listened on.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Without it, a server that stopped could not be started again for a minute.
        socket.set_reuseaddr(cfg!(unix))?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: io::Error| Error::io(format_args!("{address}: {error}")))
}

/// Serves until told to stop. Returns how many requests had to be cut off.
pub(crate) async fn serve(
    listener: TcpListener,
    in_force: watch::Sender<InForce>,
    limits: Limits,
    router: Router,
    shutdown: Shutdown,
) -> usize {
    let mut http = http1::Builder::new();
    http.half_close(false)
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(64 * 1024));
    let in_force = CutOnDrop(in_force);
    let drain_limit = Duration::from_millis(limits.drain_timeout_ms);
    let slots = Slots { free: Arc::new(Semaphore::new(limits.max_connections)), all: limits.max_connections };
    let requests = Requests::default();
    let shared =
        Arc::new(Shared { http, limits, router, requests: requests.clone(), shutdown: shutdown.clone() });
    tokio::select! {
        () = accept(&listener, &shared, &in_force.0, &slots) => {}
        () = shutdown.begun() => {}
    }
    // Who comes now is still heard, and told to come back: only a listener can say so.
    let deadline = Instant::now() + drain_limit;
    tokio::select! {
        () = accept(&listener, &shared, &in_force.0, &slots) => {}
        () = requests.none() => {}
        () = sleep_until(deadline) => {}
        () = shutdown.is_cut() => {}
    }
    drop(listener);
    let num_cut = requests.count();
    in_force.0.send_modify(|in_force| {
        in_force.generation += 1;
        in_force.closing = true;
        in_force.cut |= num_cut > 0;
    });
    tokio::select! {
        () = slots.all_free() => {}
        () = sleep_until(deadline.max(Instant::now() + CLOSING)) => {}
        () = shutdown.is_cut() => {}
    }
    in_force.cut();
    slots.all_free().await;
    num_cut
}

/// Whoever drops the server ends its connections, which tasks of their own serve.
struct CutOnDrop(watch::Sender<InForce>);

impl CutOnDrop {
    fn cut(&self) {
        self.0.send_modify(|in_force| in_force.cut = true);
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Room for connections.
struct Slots {
    free: Arc<Semaphore>,
    all: usize,
}

impl Slots {
    /// Waits until no connection is left.
    async fn all_free(&self) {
        let all = u32::try_from(self.all).unwrap_or(u32::MAX);
        // Nobody closes the semaphore.
        let _ = self.free.acquire_many(all).await;
    }
}

/// Takes connections for ever.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    in_force: &watch::Sender<InForce>,
    slots: &Slots,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => match slots.free.clone().try_acquire_owned() {
                Ok(permit) => {
                    let connection = Connection {
                        shared: shared.clone(),
                        in_force: in_force.subscribe(),
                        address,
                        _permit: permit,
                    };
                    tokio::spawn(connection.serve(stream));
                }
                Err(_) => {
                    tracing::warn!(%address, all = slots.all, "too many connections");
                    if in_force.borrow().tls.is_none() {
                        turn_away(stream);
                    }
                }
            },
            // The client was faster than we were.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Says why to whom there is no room for, as far as that takes no time.
fn turn_away(stream: TcpStream) {
    let told = stream.into_std().and_then(|mut stream| stream.write_all(TOO_MANY));
    drop(told);
}
