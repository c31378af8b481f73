//! [`Client`]: asks a server over HTTP. It goes nowhere but where it was told to: no proxy, no redirect.

use super::probe::Probe;
use crate::fail::Failure;
use crate::options::at_least_one;
use clap::Args;
use serde_json::Value;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How much of what a server says about an error goes into the log.
const MAX_QUOTED_CHARS: usize = 300;

/// Whom to ask, and how.
#[derive(Args)]
pub(crate) struct ClientArguments {
    /// The server, such as https://localhost:1337
    #[arg(long, value_name = "URL", value_parser = server)]
    url: String,
    /// A file that holds an API key and nothing else
    #[arg(long, value_name = "F")]
    key_file: Option<PathBuf>,
    /// Send the key unencrypted to another machine
    #[arg(long, requires = "key_file")]
    insecure: bool,
    /// Who signed the server's certificate, as PEM [default: the usual authorities]
    #[arg(long, value_name = "F")]
    ca: Option<PathBuf>,
    /// A certificate to show, as PEM
    #[arg(long, value_name = "F", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, as PEM
    #[arg(long, value_name = "F", requires = "cert")]
    key: Option<PathBuf>,
    /// An answer that has not ended after so long is a failure
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = at_least_one)]
    timeout_ms: usize,
}

/// How one probe went.
pub(super) struct Answer {
    pub(super) probe: &'static str,
    pub(super) latency_ms: f64,
    /// What the model said.
    pub(super) text: Option<String>,
    pub(super) wrong: Option<String>,
}

/// Asks one server.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

impl Client {
    /// # Errors
    /// If a file cannot be read or holds something else, or the key would be sent for everybody to read.
    pub(super) fn new(arguments: &ClientArguments) -> Result<Self, Failure> {
        let authorization = arguments.key_file.as_deref().map(authorization).transpose()?;
        if authorization.is_some() && !arguments.insecure && is_open(&arguments.url) {
            return Err(Failure::Usage(format!(
                "{} would show the key to all between here and there: use https, or say --insecure",
                arguments.url
            )));
        }
        let agent = Agent::config_builder()
            .tls_config(tls(arguments)?)
            .timeout_global(Some(Duration::from_millis(arguments.timeout_ms as u64)))
            // What follows a redirect would carry the key along.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("pyrex-canary/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let url = format!("{}/v1/chat/completions", arguments.url.trim_end_matches('/'));
        Ok(Self { agent, url, authorization })
    }

    /// Asks, and judges the answer.
    pub(super) fn ask(&self, probe: &Probe, max_latency_ms: f64) -> Answer {
        let began = Instant::now();
        let answer = self.post(&probe.body);
        let latency_ms = began.elapsed().as_secs_f64() * 1e3;
        let (text, wrong) = match answer {
            Ok(text) => {
                let late = || format!("it took {latency_ms:.0} ms, expected at most {max_latency_ms:.0}");
                let wrong = probe.judge(&text).or_else(|| (latency_ms > max_latency_ms).then(late));
                (Some(text), wrong)
            }
            Err(wrong) => (None, Some(wrong)),
        };
        Answer { probe: probe.name, latency_ms, text, wrong }
    }

    fn post(&self, body: &str) -> Result<String, String> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.send(body).map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        let body = body.map_err(|error| error.to_string())?;
        match status.as_u16() {
            200 => content(&body),
            300..400 => Err(format!("status {status}: the server sends elsewhere, and that is not followed")),
            _ => Err(format!("status {status}: {}", quoted(&body))),
        }
    }
}

/// What the model said.
fn content(body: &str) -> Result<String, String> {
    let answer: Value =
        serde_json::from_str(body).map_err(|error| format!("the answer is no JSON: {error}"))?;
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.map(str::to_owned).ok_or_else(|| format!("the answer has no content: {}", quoted(body)))
}

/// What an error of OpenAI's shape says, or else the beginning of the body.
fn quoted(body: &str) -> String {
    let error: Option<Value> = serde_json::from_str(body).ok();
    let message = error.as_ref().and_then(|error| error["error"]["message"].as_str());
    message.unwrap_or(body).chars().take(MAX_QUOTED_CHARS).collect()
}

fn server(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?}, expected one such as https://localhost:1337");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    let plain = uri.query().is_none() && uri.authority().is_some_and(|it| !it.as_str().contains('@'));
    if known && plain { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Whether what is sent there can be read on its way.
fn is_open(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return true };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("http") && !here
}

fn authorization(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    let key = text.trim_ascii();
    match std::str::from_utf8(key) {
        Ok(key) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(format!("Bearer {key}"))
        }
        _ => Err(Failure::Other(format!("{}: expected an API key and nothing else", path.display()))),
    }
}

fn tls(arguments: &ClientArguments) -> Result<TlsConfig, Failure> {
    let mut config = TlsConfig::builder();
    if let Some(path) = &arguments.ca {
        config = config.root_certs(RootCerts::new_with_certs(&certificates(path)?));
    }
    if let (Some(cert), Some(key)) = (&arguments.cert, &arguments.key) {
        let chain = certificates(cert)?;
        let unreadable = |_| Failure::Other(format!("{}: expected a private key as PEM", key.display()));
        let key = PrivateKey::from_pem(&read(key)?).map_err(unreadable)?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = read(path)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = parse_pem(&pem).filter_map(certificate).collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Failure::Other(format!("{}: expected certificates as PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_plain_url() {
        for (url, is_fine) in [
            ("http://127.0.0.1:8080", true),
            ("https://example.org/pyrex/", true),
            ("ftp://example.org", false),
            ("localhost:8080", false),
            ("https://user:word@example.org", false),
            ("https://example.org/?a=b", false),
            ("", false),
        ] {
            assert_eq!(server(url).is_ok(), is_fine, "{url}");
        }
    }

    #[test]
    fn a_key_is_open_on_a_plain_way_to_another_machine() {
        for (url, open) in [
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080", false),
            ("http://localhost", false),
            ("http://example.org", true),
            ("http://localhost.example.org", true),
            ("https://example.org", false),
        ] {
            assert_eq!(is_open(url), open, "{url}");
        }
    }
}
