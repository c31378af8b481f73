//! [`Peer`]: who is at the other end of a connection, as far as the connection tells.
//!
//! The listener puts it into the extensions of every request; [`Tenants`](crate::Tenants) makes somebody of it.

use pyrex_core::{Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The certificate it has shown, if it was asked for one. Its signature was checked.
    pub certificate: Option<PeerCertificate>,
}

/// The names in a client's certificate. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    names: Arc<[String]>,
}

impl PeerCertificate {
    /// Reads a certificate's names.
    ///
    /// # Errors
    /// `InvalidRequest` if it is no certificate.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| Error::invalid_request(format_args!("the client's certificate: {error}")))?;
        let subject = certificate.subject();
        let common = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let mut names = vec![format!("SUBJECT:{subject}")];
        names.extend(common.map(|name| format!("CN:{name}")));
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|error| Error::invalid_request(format_args!("the client's certificate: {error}")))?;
        let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        names.extend(alternatives.filter_map(alternative));
        Ok(Self { names: names.into() })
    }

    /// The names, each behind its kind: `SUBJECT:CN=alice, O=Example`, `CN:alice`, `DNS:…`, `EMAIL:…`, `URI:…`, `IP:…`.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("EMAIL:{name}")),
        GeneralName::URI(name) => Some(format!("URI:{name}")),
        GeneralName::IPAddress(bytes) => ip_address(bytes).map(|address| format!("IP:{address}")),
        _ => None,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
