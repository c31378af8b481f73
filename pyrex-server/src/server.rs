//! [`Server`]: a router on a port, and how what it trusts changes while it runs.

use crate::config::Config;
use crate::listener::{self, InForce};
use crate::shutdown::Shutdown;
use crate::tenant::Tenants;
use crate::tls;
use axum::Router;
use pyrex_core::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A router on a port, open from the moment it is bound.
///
/// ```no_run
/// use axum::Router;
/// use pyrex_server::{Config, Server, Shutdown};
///
/// # async fn serve() -> pyrex_core::Result<()> {
/// let server = Server::bind(&Config::default(), Router::new()).await?;
/// println!("http://{}", server.local_addr());
/// server.serve(Shutdown::new()).await;
/// # Ok(())
/// # }
/// ```
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    router: Router,
    in_force: watch::Sender<InForce>,
}

/// Changes whom a running server trusts. A clone changes the same server.
#[derive(Clone)]
pub struct Reloader {
    started_with: Config,
    tenants: Arc<Tenants>,
    in_force: watch::Sender<InForce>,
}

impl Server {
    /// Opens the port, with TLS if the config has a certificate. The system keeps clients waiting until [`Server::serve`].
    ///
    /// # Errors
    /// `InvalidRequest` for a config that cannot be or files that do not hold what they should, `Io` for files that cannot
    /// be read and a port that cannot be had.
    pub async fn bind(config: &Config, router: Router) -> Result<Self> {
        config.validate()?;
        let tls = tls::load(&config.tls)?;
        let listener = listener::bind(SocketAddr::new(config.host, config.port))?;
        let address = listener.local_addr().map_err(Error::io)?;
        let in_force = watch::Sender::new(InForce { tls, generation: 0, closing: false, cut: false });
        Ok(Self { listener, address, config: config.clone(), router, in_force })
    }

    /// The address it listens on, with the port that was free if any would do.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What changes the certificates of this server, and who there is.
    pub fn reloader(&self, tenants: Arc<Tenants>) -> Reloader {
        Reloader { started_with: self.config.clone(), tenants, in_force: self.in_force.clone() }
    }

    /// Serves until told to stop, and until those under way then have their answers or `limits.drain_timeout_ms` is over.
    ///
    /// Returns how many requests were cut off without their answer. Until the last has its own, connections are still taken,
    /// so that new requests can be told to come back.
    pub async fn serve(self, shutdown: Shutdown) -> usize {
        listener::serve(self.listener, self.in_force, self.config.limits, self.router, shutdown).await
    }
}

impl Reloader {
    /// Reads certificates, keys and tenants anew: those of `config`, from its files as they are now.
    ///
    /// All of it holds from then on, or nothing if something is wrong. Connections close after the answer under way, so that
    /// whoever was let in has to show again what they have. Returns the fields that differ from those the server was started
    /// with and hold only after a restart.
    ///
    /// # Errors
    /// As [`Server::bind`] and [`Tenants::open`], and if TLS would have to be turned on or off.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>> {
        config.validate()?;
        let tls = tls::load(&config.tls)?;
        if tls.is_some() != self.started_with.tls.cert.is_some() {
            return Err(Error::invalid_request(
                "tls.cert: TLS cannot be turned on or off while the server runs",
            ));
        }
        let book = self.tenants.prepare(config)?;
        self.tenants.install(book);
        self.in_force.send_modify(|in_force| {
            in_force.tls = tls;
            in_force.generation += 1;
        });
        Ok(self.not_reloaded(config))
    }

    fn not_reloaded(&self, config: &Config) -> Vec<&'static str> {
        let before = &self.started_with;
        let fields = [
            ("host", config.host != before.host),
            ("port", config.port != before.port),
            ("insecure", config.insecure != before.insecure),
            ("model", config.model != before.model),
            ("limits", config.limits != before.limits),
            ("images", config.images != before.images),
            ("cors", config.cors != before.cors),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}
