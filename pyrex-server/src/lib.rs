//! OpenAI's protocol over HTTP, for a shell and for a supervision tree.

#![forbid(unsafe_code)]

mod answer;
pub mod config;
mod fetch;
mod generate;
mod health;
mod host;
mod keys;
mod listener;
mod metrics;
mod models;
mod openapi;
mod pages;
mod peer;
mod problem;
mod reading;
mod router;
mod server;
mod shutdown;
mod tenant;
mod tls;
mod tokens;
mod visit;

pub use config::{AuthConfig, Config, CorsConfig, ImagesConfig, Limits, TenantConfig, TlsConfig};
pub use host::{Accepted, Arrival, EngineHost, Host, Rejected};
pub use peer::{Peer, PeerCertificate};
pub use router::router;
pub use server::{Reloader, Server};
pub use shutdown::Shutdown;
pub use tenant::{Denied, Permit, Tenant, Tenants, Throttled};
