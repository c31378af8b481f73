//! The server of these settings: certificates, keys, port, descriptors, and who could ask.

use super::check::{Check, Verdict};
use crate::serve::{Settings, check_listener, descriptors};
use pyrex_server::{Config, Tenants};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Builder;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;

/// A certificate that ends so soon should be replaced.
const SOON_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// The checks of a server, none of which lets anybody in.
pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let config = &settings.config;
    let mut checks = vec![port(config)];
    if config.tls.cert.is_some() {
        checks.push(tls(settings));
    }
    let certificates = [("certificate", &config.tls.cert), ("client CA", &config.tls.client_ca)];
    for (name, path) in certificates {
        checks.extend(path.iter().flat_map(|path| dates(name, path)));
    }
    checks.push(admission(config));
    checks.push(files(config));
    checks
}

fn port(config: &Config) -> Check {
    let address = SocketAddr::new(config.host, config.port);
    match TcpListener::bind(address) {
        Ok(_) => Check::ok("port", format!("{address} is free")),
        Err(error) => Check::fail(
            "port",
            format!("{address}: {error}"),
            "give another --port or --host, or stop what has this one",
        ),
    }
}

/// Whether certificate and key belong together, and what clients show can be checked.
fn tls(settings: &Settings) -> Check {
    let mut anywhere = settings.clone();
    anywhere.config.port = 0;
    let advice = "the server would not start: give PEM files that belong together";
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Check::fail("tls", error.to_string(), "the system has no threads or descriptors left");
        }
    };
    match check_listener(&runtime, &anywhere) {
        Ok(()) if settings.config.tls.client_ca.is_some() => {
            Check::ok("tls", "clients must show a certificate")
        }
        Ok(()) => Check::ok("tls", "certificate and key belong together"),
        Err(error) => Check::fail("tls", error.to_string(), advice),
    }
}

/// When each certificate of a file holds.
fn dates(name: &'static str, path: &Path) -> Vec<Check> {
    let Ok(file) = fs::read(path) else {
        // That it cannot be read was said already.
        return Vec::new();
    };
    let pems = Pem::iter_from_buffer(&file).filter_map(Result::ok);
    pems.filter_map(|pem| pem.parse_x509().ok().map(|certificate| holds(name, &certificate))).collect()
}

fn holds(name: &'static str, certificate: &X509Certificate<'_>) -> Check {
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before, validity.not_after);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let found = format!("{}: from {begin} to {end}", certificate.subject());
    let days = (end.timestamp() - now) / DAY_SECONDS;
    if now < begin.timestamp() {
        return Check::fail(name, found, "it does not hold yet: is the clock right?");
    }
    if now > end.timestamp() {
        return Check::fail(name, found, "it has expired: replace the file and send SIGHUP");
    }
    match days < SOON_DAYS {
        true => {
            Check::warn(name, found, format!("it expires in {days} days: replace the file and send SIGHUP"))
        }
        false => Check::ok(name, found),
    }
}

/// Who gets in.
fn admission(config: &Config) -> Check {
    if let Err(error) = Tenants::open(config) {
        let advice = "the server would not start: one `name:key` or `name:sha256:hex` a line, readable for the server alone";
        return Check::fail("keys", error.to_string(), advice);
    }
    let reachable = !config.host.to_canonical().is_loopback();
    match (&config.auth.keys, &config.tls.client_ca) {
        (Some(path), _) if reachable && config.tls.cert.is_none() => Check::warn(
            "keys",
            format!("{}, sent unencrypted", path.display()),
            "whoever is between sees the keys: give --tls-cert and --tls-key, or let a proxy have them",
        ),
        (Some(path), _) => Check::ok("keys", path.display().to_string()),
        (None, Some(_)) => Check::ok("keys", "none, certificates say who asks"),
        (None, None) if reachable => Check::warn(
            "keys",
            format!("none, and {} can be reached by others", config.host),
            "whoever reaches it may ask: give --keys or --client-ca",
        ),
        (None, None) => Check::ok("keys", "none: whoever is on this machine may ask"),
    }
}

/// Each connection is a descriptor.
fn files(config: &Config) -> Check {
    let (needed, allowed) = (descriptors::needed(config), descriptors::most());
    match allowed {
        Some(allowed) if allowed < needed => Check {
            name: "descriptors",
            verdict: Verdict::Warn,
            found: format!("at most {allowed} open files, {needed} for limits.max_connections"),
            advice: Some(
                "raise LimitNOFILE= of the unit or `ulimit -Hn`, or lower limits.max_connections".to_owned(),
            ),
        },
        _ => Check::ok("descriptors", format!("{needed} open files are allowed")),
    }
}
