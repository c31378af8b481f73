//! [`Connection`]: one client's, from its first byte to its last.
//!
//! It waits for a byte before it takes memory for anything else, shakes hands, and lets HTTP run until the client, a time limit
//! or the server ends it.

use super::activity::{Activity, LINGER, Late, Watched};
use super::body::{Answer, Asked};
use super::{InForce, Shared};
use crate::peer::{Peer, PeerCertificate};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service;

/// What a client hears that takes too long over the head of its request.
const HEAD_TOO_LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// One client's connection.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) in_force: watch::Receiver<InForce>,
    pub(crate) address: SocketAddr,
    /// Counts it.
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Serves the connection until it ends. Errors of clients are nobody else's business, and end here.
    pub(crate) async fn serve(mut self, stream: TcpStream) {
        let mut orders = self.in_force.clone();
        tokio::select! {
            () = self.run(stream) => {}
            () = until(&mut orders, |in_force| in_force.cut) => {}
        }
    }

    async fn run(&mut self, stream: TcpStream) {
        // Tokens are small and must not wait for each other.
        let opened = stream.set_nodelay(true).is_ok() && self.first_byte(&stream).await;
        if opened {
            // What is needed from here on is many times what waiting needs.
            Box::pin(self.open(stream)).await;
        }
    }

    async fn open(&mut self, stream: TcpStream) {
        let address = self.address;
        let (tls, generation) = {
            let in_force = self.in_force.borrow();
            (in_force.tls.clone(), in_force.generation)
        };
        let Some(tls) = tls else {
            return self.speak_http(stream, Peer { address, certificate: None }, generation).await;
        };
        let limit = Duration::from_millis(self.shared.limits.handshake_timeout_ms);
        let stream = match timeout(limit, tokio_rustls::TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "no TLS with this client"),
            Err(_) => return tracing::debug!(%address, "the client was too slow to shake hands"),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        match shown.map(|certificate| PeerCertificate::from_der(certificate)).transpose() {
            Ok(certificate) => {
                self.speak_http(stream, Peer { address, certificate }, generation).await;
            }
            Err(error) => tracing::warn!(%address, %error, "a certificate without readable names"),
        }
    }

    /// Waits until the client says something; whether it did, and in time.
    async fn first_byte(&mut self, stream: &TcpStream) -> bool {
        let limit = Duration::from_millis(self.shared.limits.idle_timeout_ms);
        let (mut in_force, mut first) = (self.in_force.clone(), [0]);
        tokio::select! {
            // That a socket is readable may be said without reason: looking makes sure.
            peeked = timeout(limit, stream.peek(&mut first)) => matches!(peeked, Ok(Ok(1))),
            () = until(&mut in_force, |in_force| in_force.closing) => false,
        }
    }

    async fn speak_http<S>(&mut self, stream: S, peer: Peer, generation: u64)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Activity::new();
        let stream = TokioIo::new(Watched::new(stream, activity.clone()));
        let (shared, heard) = (self.shared.clone(), activity.clone());
        let service =
            service_fn(move |request| Box::pin(shared.clone().answer(request, peer.clone(), heard.clone())));
        let mut http = self.shared.http.serve_connection(stream, service);
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut is_closing = false;
        let late = loop {
            let running = poll_fn(|cx| {
                // What it ends with has been told to the client, if it could be told.
                if Pin::new(&mut http).poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let Some((deadline, late)) = activity.deadline(&self.shared.limits) else {
                    return Poll::Pending;
                };
                if alarm.deadline() != deadline {
                    alarm.as_mut().reset(deadline);
                }
                alarm.as_mut().poll(cx).map(|()| Some(late))
            });
            tokio::select! {
                biased;
                late = running => break late,
                () = until(&mut self.in_force, |in_force| in_force.generation != generation), if !is_closing => {}
            }
            is_closing = true;
            Pin::new(&mut http).graceful_shutdown();
        };
        if late == Some(Late::Head) {
            let mut stream = http.into_parts().io.into_inner();
            let told = async {
                stream.write_all(HEAD_TOO_LATE).await?;
                stream.shutdown().await
            };
            // It has been slow before.
            let _ = timeout(LINGER, told).await;
        }
        if let Some(late) = late {
            tracing::debug!(address = %self.address, ?late, "a client was too slow");
        }
    }
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        activity: Activity,
    ) -> Result<Response<Answer>, Infallible> {
        activity.begin_answer();
        let under_way = self.requests.begin(&self.shutdown);
        let is_last = under_way.is_none();
        let mut request = request.map(|body| Asked::new(body, activity.clone()));
        request.extensions_mut().insert(peer);
        let response = self.router.clone().call(request).await?;
        let mut response = response.map(|body| Answer::new(body, activity, under_way));
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Waits until this holds. A server that is gone needs no connection either.
async fn until(in_force: &mut watch::Receiver<InForce>, holds: impl FnMut(&InForce) -> bool) {
    let _ = in_force.wait_for(holds).await;
}
