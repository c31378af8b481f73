//! [`Tenants`]: who asks, and how much of the server is theirs.
//!
//! A request's key or its connection's certificate makes a [`Tenant`] of it. What one tenant uses up is counted for it alone,
//! so nobody can take what another may use. Nothing is known here of routes; [`config`](crate::config) says who there is.

use crate::config::{Config, TenantConfig};
use crate::keys::Keys;
use crate::peer::{Peer, PeerCertificate};
use axum::http::HeaderValue;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use pyrex_core::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Who those are that nobody lists.
const DEFAULT: &str = "default";

/// How long a client waits whose tenant has as many requests under way as it may: when one of them ends is not known.
const RETRY_CONCURRENT: Duration = Duration::from_secs(1);

/// Everybody who may ask.
///
/// A request needs a key if there is a file of keys, unless its certificate is listed by a tenant. Whoever gets in and is
/// listed nowhere is the tenant `default`, which is there if it is in the config or if no tenant is. Without a file of keys,
/// `Authorization` is not looked at: OpenAI's clients always send one.
pub struct Tenants {
    book: RwLock<Arc<Book>>,
}

/// All that a reload replaces.
pub(crate) struct Book {
    keys: Option<Keys>,
    by_key: HashMap<String, Tenant>,
    by_certificate: HashMap<String, Tenant>,
    default: Option<Tenant>,
}

/// Somebody who may ask. A clone is cheap, and is the same tenant.
#[derive(Clone)]
pub struct Tenant {
    account: Arc<Account>,
}

struct Account {
    name: String,
    priority: i8,
    salt: String,
    max_concurrent: Option<usize>,
    num_running: Arc<AtomicUsize>,
    rate: Option<Rate>,
}

/// How many requests may come in a minute.
#[derive(Clone)]
struct Rate {
    per_minute: NonZeroU32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

/// Why somebody may not ask at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no key, and one is needed.
    NoKey,
    /// What is there is not written `Bearer …`.
    NoBearer,
    /// Nobody has this key.
    WrongKey,
    /// Whoever this is, no tenant lists them.
    NoTenant,
    /// The key is one tenant's and the certificate another's.
    TwoTenants,
}

/// Why a tenant may not ask now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// When it may be worth asking again.
    pub retry_after: Duration,
    /// Which of its limits the tenant has reached.
    pub what: String,
}

/// Counts one request of a tenant, until it is dropped.
pub struct Permit {
    num_running: Arc<AtomicUsize>,
}

impl Tenants {
    /// Reads the file of keys, and who there is.
    ///
    /// # Errors
    /// `Io` or `InvalidRequest` about the file of keys, or a tenant with a key that is not in it.
    pub fn open(config: &Config) -> Result<Self> {
        Ok(Self { book: RwLock::new(Arc::new(Book::new(config, None)?)) })
    }

    /// Who asks.
    ///
    /// # Errors
    /// If nobody may ask this way.
    pub fn identify(&self, peer: &Peer, authorization: Option<&HeaderValue>) -> Result<Tenant, Denied> {
        let book = self.book();
        let by_certificate = book.certified(peer.certificate.as_ref())?;
        let key = match (&book.keys, authorization) {
            (Some(keys), Some(header)) => Some(keys.find(bearer(header)?).ok_or(Denied::WrongKey)?),
            (Some(_), None) if by_certificate.is_none() => return Err(Denied::NoKey),
            _ => None,
        };
        let by_key = key.and_then(|name| book.by_key.get(name));
        match (by_certificate, by_key) {
            (Some(one), Some(other)) if one.name() != other.name() => Err(Denied::TwoTenants),
            (Some(tenant), _) | (None, Some(tenant)) => Ok(tenant.clone()),
            (None, None) => book.default.clone().ok_or(Denied::NoTenant),
        }
    }

    /// Who there will be, read before anything changes.
    pub(crate) fn prepare(&self, config: &Config) -> Result<Book> {
        Book::new(config, Some(&self.book()))
    }

    /// Puts what was prepared in force. Requests under way stay counted, and so does what came in this minute where the limit
    /// is the same.
    pub(crate) fn install(&self, book: Book) {
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }

    fn book(&self) -> Arc<Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Book {
    fn new(config: &Config, before: Option<&Self>) -> Result<Self> {
        let keys = config.auth.keys.as_deref().map(Keys::read).transpose()?;
        let mut book = Self { keys, by_key: HashMap::new(), by_certificate: HashMap::new(), default: None };
        let known = before.map(Self::accounts).unwrap_or_default();
        let alone = TenantConfig::default();
        let implied = config.tenants.is_empty().then_some((DEFAULT, &alone));
        let listed = config.tenants.iter().map(|(name, tenant)| (name.as_str(), tenant));
        for (name, listed) in listed.chain(implied) {
            let tenant = Tenant::new(name, listed, known.get(name).copied());
            for key in &listed.keys {
                if !book.keys.as_ref().is_some_and(|keys| keys.contains(key)) {
                    let what = "is not in the file of `auth.keys`";
                    return Err(Error::invalid_request(format_args!("tenants.{name}.keys: {key:?} {what}")));
                }
                book.by_key.insert(key.clone(), tenant.clone());
            }
            let certificates = listed.certificates.iter().map(|listed| (listed.clone(), tenant.clone()));
            book.by_certificate.extend(certificates);
            if name == DEFAULT {
                book.default = Some(tenant);
            }
        }
        Ok(book)
    }

    fn accounts(&self) -> HashMap<&str, &Account> {
        let tenants = self.by_key.values().chain(self.by_certificate.values()).chain(&self.default);
        tenants.map(|tenant| (tenant.name(), &*tenant.account)).collect()
    }

    /// The tenant that lists a certificate, if one does.
    fn certified(&self, certificate: Option<&PeerCertificate>) -> Result<Option<&Tenant>, Denied> {
        let names = certificate.map_or(&[][..], PeerCertificate::names);
        let mut found = names.iter().filter_map(|name| self.by_certificate.get(name));
        let first = found.next();
        match first {
            Some(tenant) if found.any(|other| other.name() != tenant.name()) => Err(Denied::TwoTenants),
            _ => Ok(first),
        }
    }
}

impl Tenant {
    fn new(name: &str, config: &TenantConfig, before: Option<&Account>) -> Self {
        let rate = config.requests_per_minute.and_then(NonZeroU32::new).map(|per_minute| {
            let kept = before.and_then(|account| account.rate.clone());
            kept.filter(|rate| rate.per_minute == per_minute).unwrap_or_else(|| Rate::new(per_minute))
        });
        let account = Account {
            name: name.to_owned(),
            priority: config.priority,
            salt: config.salt(name),
            max_concurrent: config.max_concurrent,
            num_running: before.map(|account| account.num_running.clone()).unwrap_or_default(),
            rate,
        };
        Self { account: Arc::new(account) }
    }

    /// What the config calls it.
    pub fn name(&self) -> &str {
        &self.account.name
    }

    /// The priority of its requests, and the highest they may ask for.
    pub fn priority(&self) -> i8 {
        self.account.priority
    }

    /// What its prefixes are remembered under, and no other tenant's.
    pub fn salt(&self) -> &str {
        &self.account.salt
    }

    /// The salt of a request that brings one of its own: no two pairs of tenant and salt have the same.
    pub fn salt_with(&self, own: Option<&str>) -> String {
        match own {
            Some(own) => format!("{}:{}{own}", self.salt().len(), self.salt()),
            None => self.salt().to_owned(),
        }
    }

    /// How many of its requests are under way.
    pub fn num_running(&self) -> usize {
        self.account.num_running.load(Ordering::Relaxed)
    }

    /// Counts one more request.
    ///
    /// # Errors
    /// If as many are under way as may be, or came within a minute.
    pub fn admit(&self) -> Result<Permit, Throttled> {
        let Account { num_running, max_concurrent, rate, .. } = &*self.account;
        let one_more = |running: usize| max_concurrent.is_none_or(|most| running < most).then(|| running + 1);
        if let Err(running) = num_running.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            let what = format!("{running} requests are under way, as many as this tenant may have");
            return Err(Throttled { retry_after: RETRY_CONCURRENT, what });
        }
        let permit = Permit { num_running: num_running.clone() };
        rate.as_ref().map_or(Ok(()), Rate::check).map(|()| permit)
    }
}

impl Rate {
    fn new(per_minute: NonZeroU32) -> Self {
        Self {
            per_minute,
            limiter: Arc::new(DefaultDirectRateLimiter::direct(Quota::per_minute(per_minute))),
        }
    }

    fn check(&self) -> Result<(), Throttled> {
        self.limiter.check().map_err(|early| Throttled {
            retry_after: early.wait_time_from(DefaultClock::default().now()),
            what: format!(
                "{} requests came within a minute, as many as this tenant may send",
                self.per_minute
            ),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.num_running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Denied {
    /// The HTTP status: 401 where another key would do, and 403.
    pub fn status(self) -> u16 {
        match self {
            Self::NoKey | Self::NoBearer | Self::WrongKey => 401,
            Self::NoTenant | Self::TwoTenants => 403,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no API key, expected `Authorization: Bearer` and a key",
            Self::NoBearer => "`Authorization` has another form, expected `Bearer` and a key",
            Self::WrongKey => "the API key is not known",
            Self::NoTenant => "no tenant of this server has this certificate or key",
            Self::TwoTenants => "what was shown belongs to two tenants of this server, expected one",
        })
    }
}

impl std::error::Error for Denied {}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Throttled {}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenant").field(&self.name()).finish()
    }
}

/// The key of an `Authorization` header.
fn bearer(header: &HeaderValue) -> Result<&[u8], Denied> {
    let bytes = header.as_bytes();
    match bytes.split_at_checked("Bearer ".len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Ok(key.trim_ascii()),
        _ => Err(Denied::NoBearer),
    }
}
