//! What TLS a listener speaks: 1.2 and 1.3, with certificates from PEM files.
//!
//! Sessions are not resumed where clients show certificates, so that each connection has its own checked, against the
//! authorities and the revocations in force when it began. Only `http/1.1` is offered, see [`listener`](crate::listener).

use crate::config::TlsConfig;
use pyrex_core::{Error, Result};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// Reads the files of a config that has been validated; nothing if it has no certificate.
pub(crate) fn load(config: &TlsConfig) -> Result<Option<Arc<ServerConfig>>> {
    let (Some(cert), Some(key)) = (&config.cert, &config.key) else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(Error::internal)?;
    let verifier = verifier(config, provider)?;
    let asks_clients = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unread("tls.key", key, error))?;
    let mut server = builder
        .with_single_cert(certificates("tls.cert", cert)?, private_key)
        .map_err(|error| wrong("tls.cert", cert, format_args!("with {}: {error}", key.display())))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if asks_clients {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(Some(Arc::new(server)))
}

/// Who checks what clients show, if they are to show something.
fn verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(path) = &config.client_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.client_ca", path)? {
        roots.add(certificate).map_err(|error| wrong("tls.client_ca", path, error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &config.client_crl {
        // A list speaks of its issuer's certificates: one of another issuer's counts as revoked until there is a list for it.
        let lists = all::<CertificateRevocationListDer<'static>>("tls.client_crl", path, "revocation list")?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    let verifier = builder.build();
    verifier.map(Some).map_err(|error| wrong("tls.client_ca", path, error))
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    all(field, path, "certificate")
}

/// All that a PEM file holds of a kind; at least one.
fn all<T: PemObject>(field: &str, path: &Path, kind: &str) -> Result<Vec<T>> {
    let found: Result<Vec<T>, pem::Error> = T::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(wrong(field, path, format_args!("no {kind} in PEM"))),
        found => found.map_err(|error| unread(field, path, error)),
    }
}

fn unread(field: &str, path: &Path, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => Error::io(format_args!("{field}: {}: {error}", path.display())),
        other => wrong(field, path, other),
    }
}

fn wrong(field: &str, path: &Path, what: impl Display) -> Error {
    Error::invalid_request(format_args!("{field}: {}: {what}", path.display()))
}
