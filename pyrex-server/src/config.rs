//! [`Config`]: everything about a server that can be set, in one TOML file.
//!
//! Every default stands in a `Default` below and nowhere else; `packaging/pyrex.toml` shows them all. What is not in the file
//! keeps its default, and a field that nobody knows is refused. Relations between fields are checked by [`Config::validate`];
//! what the files behind the paths hold, by whoever opens them. A config holds no secret: keys are named in it, never
//! written, and a salt only keeps tenants apart.

use pyrex_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The least that [`Limits::max_header_bytes`] can be: the HTTP library reads that much at once.
const MIN_HEADER_BYTES: usize = 8192;

/// How a server listens, whom it lets in, and how much it takes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to listen on. One that others can reach needs a certificate, or `insecure`.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Whether a plain listener may stand on an address that others can reach.
    pub insecure: bool,
    /// The name that clients call the model by; without one, that of its folder.
    pub model: Option<String>,
    /// How much one client may ask for, and how long it may take.
    pub limits: Limits,
    /// Certificates: the server's, and who signs those of clients.
    pub tls: TlsConfig,
    /// API keys.
    pub auth: AuthConfig,
    /// Where images may be fetched from.
    pub images: ImagesConfig,
    /// Pages of other origins that may ask.
    pub cors: CorsConfig,
    /// Who is served, by name. Without any, everybody who gets in is the tenant `default`.
    pub tenants: BTreeMap<String, TenantConfig>,
}

/// How much one client may ask for, and how long it may take.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time; one more is told 503 and closed.
    pub max_connections: usize,
    /// The request line and the headers together.
    pub max_header_bytes: usize,
    /// The body of a request.
    pub max_body_bytes: usize,
    /// Images in one request.
    pub max_images: usize,
    /// A TLS handshake, from its first byte on.
    pub handshake_timeout_ms: u64,
    /// The head of a request, from its first byte to its last.
    pub header_timeout_ms: u64,
    /// The body of a request, from its head to its last byte.
    pub body_timeout_ms: u64,
    /// A connection on which no request is under way, kept alive or new.
    pub idle_timeout_ms: u64,
    /// A client that reads nothing of an answer that waits for it.
    pub stall_timeout_ms: u64,
    /// An answer, from the end of the request's body on.
    pub request_timeout_ms: u64,
    /// A stream that has nothing to say, until it says that it lives.
    pub keep_alive_ms: u64,
    /// Requests under way when the server is told to stop.
    pub drain_timeout_ms: u64,
}

/// Certificates: the server's, and who signs those of clients. All files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and its root.
    pub cert: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
    /// Who signs clients' certificates. If set, only those who show one get in.
    pub client_ca: Option<PathBuf>,
    /// Clients' certificates that were revoked, signed by those of `client_ca`.
    pub client_crl: Option<PathBuf>,
}

/// API keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A file with one key per line, `name:key` or `name:sha256:hex`. If set, a request needs one of them, or a certificate
    /// that a tenant lists.
    pub keys: Option<PathBuf>,
}

/// Where images may be fetched from. Without any, only data URLs are taken.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Hosts of http and https URLs: `example.org`, `example.org:8443` for another port than the scheme's own, or
    /// `*.example.org` for all below it.
    pub hosts: Vec<String>,
    /// Folders of file URLs.
    pub dirs: Vec<PathBuf>,
    /// One image, as it lies there.
    pub max_bytes: usize,
    /// One fetch, redirects and all.
    pub timeout_ms: u64,
    /// Redirects of one fetch; each must lead to a host of the list.
    pub max_redirects: u32,
    /// Whether a host of the list may have an address that is not public. Dangerous: whoever asks reaches what it serves.
    pub allow_private: bool,
}

/// Pages of other origins that may ask.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins such as `https://example.org`, or `*` for all.
    pub origins: Vec<String>,
}

/// Who a tenant is, and what it may use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantConfig {
    /// Names in clients' certificates: `CN:alice`, `DNS:…`, `EMAIL:…`, `URI:…`, `IP:…`, or all of `SUBJECT:CN=alice, O=…`.
    pub certificates: Vec<String>,
    /// Names of API keys.
    pub keys: Vec<String>,
    /// Requests under way at a time; without it, as many as there is room for.
    pub max_concurrent: Option<usize>,
    /// Requests in a minute. As many may come at once; each of them is given back after its share of the minute.
    pub requests_per_minute: Option<u32>,
    /// The priority of its requests, and the highest it may ask for.
    pub priority: i8,
    /// What its prefixes are remembered under; without it, something made of its name. No two tenants have the same.
    pub cache_salt: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            insecure: false,
            model: None,
            limits: Limits::default(),
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            images: ImagesConfig::default(),
            cors: CorsConfig::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_header_bytes: 64 * 1024,
            max_body_bytes: 32 * 1024 * 1024,
            max_images: 16,
            handshake_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            idle_timeout_ms: 75_000,
            stall_timeout_ms: 60_000,
            request_timeout_ms: 600_000,
            keep_alive_ms: 15_000,
            drain_timeout_ms: 30_000,
        }
    }
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            dirs: Vec::new(),
            max_bytes: 20 * 1024 * 1024,
            timeout_ms: 10_000,
            max_redirects: 3,
            allow_private: false,
        }
    }
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// `Io` if it cannot be read, `InvalidRequest` for what it says; both name the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io);
        let config = text.and_then(|text| Self::from_toml(&text));
        config
            .and_then(|config| config.validate().map(|()| config))
            .map_err(|error| error.context(path.display()))
    }

    /// Reads what a file says, without checking what fields have to do with each other: flags may change them first.
    ///
    /// # Errors
    /// `InvalidRequest` with the line, what was found there and what was expected.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let line_idx = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
            let line = text.lines().nth(line_idx).unwrap_or_default().trim();
            Error::invalid_request(format_args!("line {}, `{line}`: {}", line_idx + 1, error.message()))
        })
    }

    /// The file that says the same, every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of numbers, texts and lists are TOML")
    }

    /// Checks what fields have to do with each other.
    ///
    /// # Errors
    /// `InvalidRequest` with the field, what was found there and what was expected.
    pub fn validate(&self) -> Result<()> {
        self.validate_listener()?;
        self.limits.validate()?;
        self.tls.validate()?;
        self.images.validate()?;
        self.cors.validate()?;
        self.validate_tenants()
    }

    fn validate_listener(&self) -> Result<()> {
        let reachable = !self.host.to_canonical().is_loopback();
        if reachable && self.tls.cert.is_none() && !self.insecure {
            return Err(wrong(
                "host",
                format_args!(
                    "{} can be reached by others, expected `tls.cert` and `tls.key`, or `insecure = true`",
                    self.host
                ),
            ));
        }
        match &self.model {
            Some(name) if name.is_empty() => Err(wrong("model", "is empty, expected a name")),
            _ => Ok(()),
        }
    }

    fn validate_tenants(&self) -> Result<()> {
        let (mut certificates, mut keys, mut salts) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (name, tenant) in &self.tenants {
            let at = |field: &str| format!("tenants.{name}.{field}");
            if let Some(wrong_name) = unlike_a_name(name) {
                return Err(wrong("tenants", format_args!("{name:?} {wrong_name}")));
            }
            tenant.validate(name, self)?;
            for (field, listed, seen) in
                [("certificates", &tenant.certificates, &mut certificates), ("keys", &tenant.keys, &mut keys)]
            {
                for identity in listed {
                    if !seen.insert(identity.as_str()) {
                        let what = format_args!("{identity:?} is listed twice, expected one tenant for it");
                        return Err(wrong(&at(field), what));
                    }
                }
            }
            if !salts.insert(tenant.salt(name)) {
                return Err(wrong(&at("cache_salt"), "is that of another tenant, expected its own"));
            }
        }
        Ok(())
    }
}

impl Limits {
    fn validate(&self) -> Result<()> {
        let counts = [
            ("max_connections", self.max_connections as u64),
            ("max_body_bytes", self.max_body_bytes as u64),
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("keep_alive_ms", self.keep_alive_ms),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(wrong(&format!("limits.{field}"), "is 0, expected at least 1"));
        }
        if u32::try_from(self.max_connections).is_err() {
            let what = format_args!("is {}, expected at most {}", self.max_connections, u32::MAX);
            return Err(wrong("limits.max_connections", what));
        }
        if self.max_header_bytes < MIN_HEADER_BYTES {
            let what = format_args!("is {}, expected at least {MIN_HEADER_BYTES}", self.max_header_bytes);
            return Err(wrong("limits.max_header_bytes", what));
        }
        Ok(())
    }
}

impl TlsConfig {
    fn validate(&self) -> Result<()> {
        let pairs = [
            ("tls.cert", &self.cert, "tls.key", &self.key),
            ("tls.key", &self.key, "tls.cert", &self.cert),
            ("tls.client_ca", &self.client_ca, "tls.cert", &self.cert),
            ("tls.client_crl", &self.client_crl, "tls.client_ca", &self.client_ca),
        ];
        match pairs.iter().find(|(_, given, _, needed)| given.is_some() && needed.is_none()) {
            Some((given, _, needed, _)) => Err(wrong(needed, format_args!("is missing, `{given}` needs it"))),
            None => Ok(()),
        }
    }
}

impl ImagesConfig {
    fn validate(&self) -> Result<()> {
        for host in &self.hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let name = match name.rsplit_once(':') {
                Some((name, port)) if port.parse().is_ok_and(|port: u16| port > 0) => name,
                _ => name,
            };
            if name.is_empty() || name.contains(['*', '/', ':', '@', ' ']) {
                let what = format_args!("{host:?} is no host, expected one such as \"example.org\"");
                return Err(wrong("images.hosts", what));
            }
        }
        if let Some(relative) = self.dirs.iter().find(|folder| folder.is_relative()) {
            let what = format_args!("{relative:?} is relative, expected a path from the root");
            return Err(wrong("images.dirs", what));
        }
        match (self.max_bytes, self.timeout_ms) {
            (0, _) => Err(wrong("images.max_bytes", "is 0, expected at least 1")),
            (_, 0) => Err(wrong("images.timeout_ms", "is 0, expected at least 1")),
            _ => Ok(()),
        }
    }
}

impl CorsConfig {
    fn validate(&self) -> Result<()> {
        let is_origin = |origin: &str| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && host.is_ascii() && !host.contains(['/', '*', ' ']))
        };
        match self.origins.iter().find(|origin| *origin != "*" && !is_origin(origin)) {
            Some(other) => {
                let what =
                    format_args!("{other:?} is no origin, expected one such as \"https://example.org\"");
                Err(wrong("cors.origins", what))
            }
            None => Ok(()),
        }
    }
}

impl TenantConfig {
    /// What the prefixes of the tenant with this name are remembered under.
    pub(crate) fn salt(&self, name: &str) -> String {
        self.cache_salt.clone().unwrap_or_else(|| format!("tenant {name}"))
    }

    fn validate(&self, name: &str, config: &Config) -> Result<()> {
        let wrong = |field: &str, what: &dyn std::fmt::Display| {
            Err(Error::invalid_request(format_args!("tenants.{name}.{field}: {what}")))
        };
        if !self.certificates.is_empty() && config.tls.client_ca.is_none() {
            return wrong("certificates", &"nobody shows one, expected `tls.client_ca`");
        }
        if !self.keys.is_empty() && config.auth.keys.is_none() {
            return wrong("keys", &"there are none, expected `auth.keys`");
        }
        if name != "default" && self.certificates.is_empty() && self.keys.is_empty() {
            return wrong("keys", &"nobody can be this tenant, expected `keys` or `certificates`");
        }
        if let Some(other) = self.certificates.iter().find(|listed| !is_certificate_name(listed)) {
            let expected = "CN, DNS, EMAIL, URI, IP or SUBJECT, a colon, and the name";
            return wrong("certificates", &format_args!("{other:?} is no name, expected {expected}"));
        }
        match (self.max_concurrent, self.requests_per_minute) {
            (Some(0), _) => wrong("max_concurrent", &"is 0, expected at least 1"),
            (_, Some(0)) => wrong("requests_per_minute", &"is 0, expected at least 1"),
            _ => Ok(()),
        }
    }
}

fn is_certificate_name(listed: &str) -> bool {
    let kinds = ["CN", "DNS", "EMAIL", "URI", "IP", "SUBJECT"];
    listed.split_once(':').is_some_and(|(kind, name)| kinds.contains(&kind) && !name.is_empty())
}

/// What is wrong with a name that stands in logs, in metrics and in a file of keys.
pub(crate) fn unlike_a_name(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let is_name = (1..=64).contains(&name.len()) && name.chars().all(fits);
    (!is_name).then_some("is no name, expected 1 to 64 of letters, digits, `-`, `_` and `.`")
}

fn wrong(field: &str, what: impl std::fmt::Display) -> Error {
    Error::invalid_request(format_args!("{field}: {what}"))
}
