//! Certificates of a test's own.

use super::scratch;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::path::PathBuf;

/// Somebody whose signature is trusted.
pub struct Authority {
    name: &'static str,
    params: CertificateParams,
    key: KeyPair,
}

/// A certificate and its key, in files.
pub struct Identity {
    pub cert: String,
    pub key: String,
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("good names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn write(name: &str, text: &str) -> String {
    let path: PathBuf = scratch(name);
    fs::write(&path, text).expect("the scratch folder is writable");
    path.to_str().expect("UTF-8").to_owned()
}

impl Authority {
    /// `name` is the test's own: files are called after it.
    pub fn new(name: &'static str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { name, params, key: KeyPair::generate().expect("a key") }
    }

    /// Its own certificate.
    pub fn file(&self) -> String {
        let own = self.params.clone().self_signed(&self.key).expect("a certificate");
        write(&format!("{}.ca.pem", self.name), &own.pem())
    }

    /// Somebody it vouches for, over these years.
    pub fn sign(&self, who: &str, years: (i32, i32)) -> Identity {
        let mut params = params(who, &["localhost", "127.0.0.1"]);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        Identity {
            cert: write(&format!("{}.{who}.pem", self.name), &signed.pem()),
            key: write(&format!("{}.{who}.key", self.name), &key.serialize_pem()),
        }
    }
}
