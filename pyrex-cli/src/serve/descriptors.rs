//! Descriptors: each connection is one, and a system gives few unless asked.

use pyrex_server::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a server has open beside connections: files, signals, logs, its listener.
const OTHERS: u64 = 256;

/// How many a server may need.
pub(crate) fn needed(config: &Config) -> u64 {
    config.limits.max_connections as u64 + OTHERS
}

/// How many it can have; `None` if there is no limit.
pub(crate) fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Asks for as many as a server may need. With fewer it still serves, and says so once.
pub(super) fn ask(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(needed(config), |maximum| needed(config).min(maximum));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, "the limit of open files stays at {}", current.unwrap_or(u64::MAX));
    }
    if wanted < needed(config) {
        let max_connections = config.limits.max_connections;
        tracing::warn!(
            max_connections,
            "at most {wanted} files may be open, so that many connections cannot be"
        );
    }
}
