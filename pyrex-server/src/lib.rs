//! OpenAI's protocol over HTTP, for a shell and for a supervision tree.

#![forbid(unsafe_code)]

pub mod config;
mod keys;
mod listener;
mod peer;
mod server;
mod shutdown;
mod tenant;
mod tls;

pub use config::{AuthConfig, Config, CorsConfig, ImagesConfig, Limits, TenantConfig, TlsConfig};
pub use peer::{Peer, PeerCertificate};
pub use server::{Reloader, Server};
pub use shutdown::Shutdown;
pub use tenant::{Denied, Permit, Tenant, Tenants, Throttled};
