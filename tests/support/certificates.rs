//! Certificates made for a test: authorities, what they sign, and what they revoke.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub pem: String,
}

/// What was signed: a certificate and its key, PEM.
pub struct Signed {
    /// The certificate.
    pub pem: String,
    /// Its private key.
    pub key: String,
    serial: u64,
}

impl Authority {
    /// An authority with this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a server on this machine.
    pub fn server(&self) -> Signed {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(CertificateParams::new(names).expect("names"), 1)
    }

    /// A client's certificate, with a number that can be revoked.
    pub fn client(&self, name: &str, serial: u64) -> Signed {
        self.sign(client_params(name), serial)
    }

    /// A client's certificate with a URI as its second name.
    pub fn client_with_uri(&self, name: &str, uri: &str) -> Signed {
        let mut params = client_params(name);
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
        self.sign(params, 7)
    }

    /// A client's certificate whose time is over.
    pub fn expired_client(&self, name: &str) -> Signed {
        let mut params = client_params(name);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params, 2)
    }

    /// The list of those it revoked, PEM.
    pub fn revoked(&self, revoked: &[&Signed]) -> String {
        let entry = |signed: &&Signed| RevokedCertParams {
            serial_number: SerialNumber::from(signed.serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    fn sign(&self, mut params: CertificateParams, serial: u64) -> Signed {
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { pem: certificate.pem(), key: key.serialize_pem(), serial }
    }
}

fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Writes a file into a folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder can be written to");
    path
}

/// A TLS connection that trusts this authority and shows this certificate.
pub fn tls(
    stream: TcpStream,
    trusts: &Authority,
    shows: Option<&Signed>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(trusts.pem.as_bytes()).expect("PEM");
    roots.add(pem).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(signed) => {
            let chain = vec![CertificateDer::from_pem_slice(signed.pem.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a certificate and its key")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    StreamOwned::new(connection, stream)
}
