//! [`Fetcher`]: images that a request names by URL, if the configuration allows where they come from.
//!
//! A server that fetches what a client names can be made to look behind its own firewall. So hosts and folders stand on a list
//! that is empty unless somebody fills it; every hop of a redirect is held to it; and what is connected to is the very address
//! that was checked, so that a name cannot mean one thing to the check and another to the connection. Nothing here is
//! asynchronous: it runs on threads that may wait.

mod address;
#[cfg(test)]
mod tests;

use crate::config::ImagesConfig;
use pyrex_core::{Error, ImageBytes, Result};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Fetches images as an [`ImagesConfig`] allows. Many threads may ask at once.
pub(crate) struct Fetcher {
    agent: ureq::Agent,
    has_hosts: bool,
    dirs: Vec<PathBuf>,
    max_bytes: u64,
}

impl Fetcher {
    /// # Errors
    /// `Io` if a folder of the config is not there.
    pub(crate) fn new(config: &ImagesConfig) -> Result<Self> {
        let is_allowed = if config.allow_private { |_| true } else { address::is_public };
        Self::with(config, DefaultResolver::default(), is_allowed)
    }

    fn with(config: &ImagesConfig, names: impl Resolver, is_allowed: fn(IpAddr) -> bool) -> Result<Self> {
        let ImagesConfig { dirs, max_bytes, timeout_ms, max_redirects, .. } = config;
        let canonical = |dir: &PathBuf| {
            let missing = |error| Error::io(format_args!("images.dirs: {}: {error}", dir.display()));
            dir.canonicalize().map_err(missing)
        };
        let hosts: Vec<String> = config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(*max_redirects)
            .max_redirects_will_error(true)
            .timeout_global(Some(Duration::from_millis(*timeout_ms)))
            // A connection that is kept would be one that nobody checked for the next URL.
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .max_response_header_size(16 << 10)
            .user_agent("pyrex")
            .accept("image/*")
            .accept_encoding("identity")
            .build();
        let has_hosts = !hosts.is_empty();
        let gate = Gate { names, hosts, is_allowed };
        Ok(Self {
            agent: ureq::Agent::with_parts(agent, DefaultConnector::default(), gate),
            has_hosts,
            dirs: dirs.iter().map(canonical).collect::<Result<_>>()?,
            max_bytes: *max_bytes as u64,
        })
    }

    /// Whether URLs of this one's kind are fetched at all.
    pub(crate) fn fetches(&self, url: &str) -> bool {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => self.has_hosts,
            "file" => !self.dirs.is_empty(),
            _ => false,
        }
    }

    /// The image at a URL. Waits for it.
    ///
    /// # Errors
    /// `Unsupported` if the configuration allows no URL of its kind, `InvalidRequest` if it does not allow this one or there is
    /// no image to be had. No message says what lies behind an address that was refused.
    pub(crate) fn fetch(&self, url: &str) -> Result<ImageBytes> {
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        match self.fetches(url) {
            false => Err(Error::unsupported(format_args!(
                "this server fetches no {} URLs, expected a data URL",
                scheme.to_ascii_lowercase()
            ))),
            true if scheme.eq_ignore_ascii_case("file") => self.read_file(rest),
            true => self.download(url),
        }
    }

    fn download(&self, url: &str) -> Result<ImageBytes> {
        let failed = |error| match error {
            ureq::Error::Other(refusal) => Error::invalid_request(refusal),
            ureq::Error::BodyExceedsLimit(limit) => {
                Error::invalid_request(format_args!("the image has more than {limit} bytes"))
            }
            error => Error::invalid_request(format_args!("the image cannot be fetched: {error}")),
        };
        // A fragment is the client's own business.
        let url = url.split('#').next().unwrap_or_default();
        let mut response = self.agent.get(url).call().map_err(failed)?;
        let bytes = response.body_mut().with_config().limit(self.max_bytes).read_to_vec().map_err(failed)?;
        if bytes.is_empty() {
            return Err(Error::invalid_request("the URL leads to nothing, expected an image"));
        }
        Ok(bytes.into())
    }

    /// `rest` is what follows `file:`.
    fn read_file(&self, rest: &str) -> Result<ImageBytes> {
        let wrong = || Error::invalid_request("expected file:///absolute/path");
        let path = rest.strip_prefix("//localhost").or(rest.strip_prefix("//")).unwrap_or(rest);
        let path = percent_decoded(path).filter(|path| path.starts_with('/')).ok_or_else(wrong)?;
        // Links are followed before the comparison. What is not there and what is not allowed look the same from outside.
        let refused = || Error::invalid_request("no file that this server may read");
        let path = Path::new(&path).canonicalize().map_err(|_| refused())?;
        let is_allowed = self.dirs.iter().any(|dir| path.starts_with(dir));
        if !is_allowed || !path.is_file() {
            return Err(refused());
        }
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|_| refused())?;
        file.take(self.max_bytes + 1).read_to_end(&mut bytes).map_err(|_| refused())?;
        match bytes.len() as u64 {
            0 => Err(Error::invalid_request("the file is empty, expected an image")),
            len if len > self.max_bytes => {
                Err(Error::invalid_request(format_args!("the image has more than {} bytes", self.max_bytes)))
            }
            _ => Ok(bytes.into()),
        }
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'))
}

/// Asked for the addresses of each hop, before anything is connected: what it returns is what is connected to.
#[derive(Debug)]
struct Gate<R> {
    names: R,
    hosts: Vec<String>,
    is_allowed: fn(IpAddr) -> bool,
}

impl<R: Resolver> Resolver for Gate<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let refuse = |why: String| ureq::Error::Other(why.into());
        if !self.allows(uri) {
            let host = uri.host().unwrap_or_default();
            let host: String = host.chars().take(64).collect();
            return Err(refuse(format!("this server fetches no images from {host}")));
        }
        let found = self.names.resolve(uri, config, timeout)?;
        // One that is not public among others is a trap too.
        let is_refused = |address: &SocketAddr| !(self.is_allowed)(address.ip());
        match found.iter().any(is_refused) {
            true => Err(refuse("the URL leads to an address that is not public".to_owned())),
            false => Ok(found),
        }
    }
}

impl<R> Gate<R> {
    fn allows(&self, uri: &Uri) -> bool {
        let Some(authority) = uri.authority() else { return false };
        // Names and passwords of URLs are sent to nobody.
        if authority.as_str().contains('@') {
            return false;
        }
        let own_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return false,
        };
        let port = authority.port_u16().unwrap_or(own_port);
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let matches = |entry: &String| {
            let (name, entry_port) = split_port(entry);
            entry_port.unwrap_or(own_port) == port
                && match name.strip_prefix("*.") {
                    Some(parent) => host.strip_suffix(parent).is_some_and(|child| child.ends_with('.')),
                    None => name == host,
                }
        };
        self.hosts.iter().any(matches)
    }
}

/// `host:port` or `host`; an IPv6 address stands in brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}
