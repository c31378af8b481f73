//! Who gets in, and as whom: certificates, keys, tenants, and what a reload changes.

use axum::Router;
use axum::extract::Extension;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pyrex_server::{Config, Peer, Shutdown, Tenants};
use pyrex_tests::certificates::{Authority, Signed, tls, write};
use pyrex_tests::listener::{PATIENCE, Running, answer, config, exchange, status};
use pyrex_tests::process_folder;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const GET_LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Says who asks.
fn who(tenants: Arc<Tenants>, _: Shutdown) -> Router {
    let say = move |Extension(peer): Extension<Peer>, headers: HeaderMap| async move {
        let tenant = match tenants.identify(&peer, headers.get(AUTHORIZATION)) {
            Ok(tenant) => tenant,
            Err(denied) => {
                return (StatusCode::from_u16(denied.status()).unwrap(), denied.to_string()).into_response();
            }
        };
        match tenant.admit() {
            Ok(_permit) => tenant.name().to_owned().into_response(),
            Err(throttled) => throttled_response(&throttled.to_string(), throttled.retry_after.as_secs()),
        }
    };
    Router::new().route("/", get(say))
}

fn throttled_response(what: &str, seconds: u64) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], what.to_owned()).into_response()
}

/// A folder with a server's certificate, and the config that uses it.
struct Site {
    folder: PathBuf,
    authority: Authority,
    config: Config,
}

impl Site {
    /// A server that asks for certificates signed by `clients`.
    fn new(name: &str, clients: &Authority) -> Self {
        let folder = process_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), name);
        let authority = Authority::new("servers");
        let server = authority.server();
        let mut config = config();
        config.tls.cert = Some(write(&folder, "server.pem", &server.pem));
        config.tls.key = Some(write(&folder, "server.key", &server.key));
        config.tls.client_ca = Some(write(&folder, "clients.pem", &clients.pem));
        Self { folder, authority, config }
    }

    /// What a client hears that shows this; nothing if it does not get in.
    fn ask(&self, server: &Running, shows: Option<&Signed>) -> String {
        exchange(tls(server.connect(), &self.authority, shows), GET_LAST)
    }

    fn assert_heard(&self, server: &Running, shows: &Signed, word: &str) {
        let told = self.ask(server, Some(shows));
        assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with(word), "{told:?}");
    }

    fn assert_shut_out(&self, server: &Running, shows: Option<&Signed>) {
        assert_eq!(self.ask(server, shows), "");
    }
}

#[test]
fn only_those_get_in_who_show_a_certificate_of_the_right_authority() {
    let clients = Authority::new("clients");
    let site = Site::new("tls-doors", &clients);
    let server = Running::start_with(&site.config, who);
    site.assert_heard(&server, &clients.client("alice", 1), "default");
    site.assert_shut_out(&server, None);
    site.assert_shut_out(&server, Some(&Authority::new("clients").client("alice", 1)));
    site.assert_shut_out(&server, Some(&clients.expired_client("alice")));
    // A server's own authority signs no clients.
    site.assert_shut_out(&server, Some(&site.authority.client("alice", 1)));
    // Neither does whoever speaks no TLS.
    assert!(!server.exchange(GET_LAST).contains("HTTP"));
    site.assert_heard(&server, &clients.client("bob", 2), "default");
    assert_eq!(server.stop(), 0);
}

#[test]
fn without_an_authority_for_clients_everybody_gets_in_over_tls() {
    let clients = Authority::new("clients");
    let mut site = Site::new("tls-open", &clients);
    site.config.tls.client_ca = None;
    let server = Running::start_with(&site.config, who);
    assert!(site.ask(&server, None).ends_with("default"));
    site.assert_heard(&server, &clients.client("alice", 1), "default");
}

#[test]
fn a_client_that_does_not_shake_hands_is_closed_and_keeps_nobody_out() {
    let clients = Authority::new("clients");
    let mut site = Site::new("tls-slow", &clients);
    site.config.limits.handshake_timeout_ms = 200;
    let server = Running::start_with(&site.config, who);
    let mut slow = server.connect();
    slow.write_all(b"\x16\x03\x01").unwrap();
    site.assert_heard(&server, &clients.client("alice", 1), "default");
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_certificate_revoked_by_a_reload_is_refused_and_its_open_connection_closes() {
    let clients = Authority::new("clients");
    let (alice, bob) = (clients.client("alice", 11), clients.client("bob", 12));
    let mut site = Site::new("tls-revoked", &clients);
    site.config.tls.client_crl = Some(write(&site.folder, "crl.pem", &clients.revoked(&[])));
    let server = Running::start_with(&site.config, who);
    let mut open = tls(server.connect(), &site.authority, Some(&alice));
    open.write_all(GET).unwrap();
    assert!(answer(&mut open).unwrap().ends_with("default"));
    write(&site.folder, "crl.pem", &clients.revoked(&[&alice]));
    site.assert_heard(&server, &alice, "default");
    assert_eq!(server.reloader.reload(&site.config).unwrap(), [""; 0]);
    site.assert_shut_out(&server, Some(&alice));
    site.assert_heard(&server, &bob, "default");
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn another_authority_after_a_reload_shuts_the_old_ones_clients_out() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let site = Site::new("tls-authority", &before);
    let server = Running::start_with(&site.config, who);
    let (old, new) = (before.client("alice", 1), after.client("alice", 1));
    site.assert_heard(&server, &old, "default");
    site.assert_shut_out(&server, Some(&new));
    write(&site.folder, "clients.pem", &after.pem);
    server.reloader.reload(&site.config).unwrap();
    site.assert_shut_out(&server, Some(&old));
    site.assert_heard(&server, &new, "default");
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let clients = Authority::new("clients");
    let mut site = Site::new("tls-broken", &clients);
    let keys = write_keys(&site.folder, "one:0123456789abcdef0\n");
    site.config.auth.keys = Some(keys.clone());
    let alice = clients.client("alice", 1);
    let server = Running::start_with(&site.config, who);
    let with_key = || {
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer 0123456789abcdef0\r\n\r\n";
        exchange(tls(server.connect(), &site.authority, Some(&alice)), request)
    };
    assert_eq!(status(&with_key()), 200);
    let good = std::fs::read_to_string(site.folder.join("server.pem")).unwrap();
    let broken = [
        ("server.pem", "no PEM".to_owned(), good.clone(), "server.pem"),
        ("server.pem", site.authority.server().pem, good, "server.key"),
        ("clients.pem", String::new(), clients.pem.clone(), "clients.pem"),
        ("keys", "one:short".to_owned(), "one:0123456789abcdef0\n".to_owned(), "keys"),
    ];
    for (file, wrong, right, named) in broken {
        write(&site.folder, file, &wrong);
        let message = server.reloader.reload(&site.config).unwrap_err().to_string();
        assert!(message.contains(named), "{named} is not in {message:?}");
        assert_eq!(status(&with_key()), 200, "after {message}");
        write(&site.folder, file, &right);
    }
    let mut plain = site.config.clone();
    plain.tls = Default::default();
    assert!(server.reloader.reload(&plain).unwrap_err().to_string().contains("tls.cert"));
    let mut moved = site.config.clone();
    moved.port = 1;
    moved.limits.max_images = 1;
    assert_eq!(server.reloader.reload(&moved).unwrap(), ["port", "limits"]);
}

#[test]
fn a_certificate_makes_its_tenant() {
    let clients = Authority::new("clients");
    let mut site = Site::new("tls-tenants", &clients);
    let tenants = "[tenants.robots]\ncertificates = [\"CN:robot-1\", \"URI:spiffe://x/robot\"]\n\
                   [tenants.people]\ncertificates = [\"CN:alice\"]";
    site.config.tenants = Config::from_toml(tenants).unwrap().tenants;
    let server = Running::start_with(&site.config, who);
    site.assert_heard(&server, &clients.client("robot-1", 1), "robots");
    site.assert_heard(&server, &clients.client_with_uri("robot-2", "spiffe://x/robot"), "robots");
    site.assert_heard(&server, &clients.client("alice", 2), "people");
    let refused = |shows: &Signed, word: &str| {
        let told = site.ask(&server, Some(shows));
        assert!(status(&told) == 403 && told.contains(word), "{told}");
    };
    refused(&clients.client("mallory", 3), "no tenant");
    refused(&clients.client_with_uri("alice", "spiffe://x/robot"), "two tenants");
    // A name is no other kind of name.
    refused(&clients.client_with_uri("bob", "alice:x"), "no tenant");
    // A tenant that a reload takes away is refused where it was served.
    let mut without = site.config.clone();
    without.tenants.remove("people");
    server.reloader.reload(&without).unwrap();
    refused(&clients.client("alice", 2), "no tenant");
    site.assert_heard(&server, &clients.client("robot-1", 1), "robots");
}

fn write_keys(folder: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = write(folder, "keys", text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// A config with three keys: `alice…`, of her tenant; `bob…`, by its digest, of his; `carol…`, of nobody.
fn keys_config(name: &str, tenants: &str) -> Config {
    let folder = process_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), name);
    let bob = sha256_hex(b"bob-0123456789abcdef");
    let keys = write_keys(
        &folder,
        &format!("# keys\nalice:alice-0123456789abcdef\n\nbob:sha256:{bob}\ncarol:carol-0123456789abcdef\n"),
    );
    Config { port: 0, ..Config::from_toml(&format!("[auth]\nkeys = {keys:?}\n{tenants}")).unwrap() }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client with this `Authorization` hears.
fn ask(server: &Running, authorization: &str) -> (u16, String) {
    let header =
        if authorization.is_empty() { String::new() } else { format!("authorization: {authorization}\r\n") };
    let told =
        server.exchange(format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n").as_bytes());
    let body = told.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    (status(&told), body)
}

const TENANTS: &str = "[tenants.a]\nkeys = [\"alice\"]\n[tenants.b]\nkeys = [\"bob\"]\n";

#[test]
fn a_key_makes_its_tenant_and_nothing_else_gets_in() {
    let server = Running::start_with(&keys_config("keys-doors", TENANTS), who);
    assert_eq!(ask(&server, "Bearer alice-0123456789abcdef"), (200, "a".into()));
    assert_eq!(ask(&server, "bearer  bob-0123456789abcdef "), (200, "b".into()));
    for (wrong, expected) in [
        ("", 401),
        ("Bearer alice-0123456789abcdeg", 401),
        ("Bearer alice-0123456789abcde", 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        ("Basic alice-0123456789abcdef", 401),
        ("alice-0123456789abcdef", 401),
        // The name or the digest of a key is no key.
        ("Bearer alice", 401),
        ("Bearer carol-0123456789abcdef", 403),
    ] {
        let (found, said) = ask(&server, wrong);
        assert_eq!(found, expected, "{wrong}: {said}");
        assert!(!said.contains("0123"), "{said}");
    }
    assert_eq!(ask(&server, &format!("Bearer {}", sha256_hex(b"bob-0123456789abcdef"))).0, 401);
}

#[test]
fn a_key_of_nobody_is_the_default_tenants_if_there_is_one() {
    let server =
        Running::start_with(&keys_config("keys-default", &format!("{TENANTS}[tenants.default]\n")), who);
    assert_eq!(ask(&server, "Bearer carol-0123456789abcdef"), (200, "default".into()));
    assert_eq!(ask(&server, "Bearer alice-0123456789abcdef"), (200, "a".into()));
    assert_eq!(ask(&server, "").0, 401);
    let server = Running::start_with(&keys_config("keys-alone", ""), who);
    assert_eq!(ask(&server, "Bearer carol-0123456789abcdef"), (200, "default".into()));
    assert_eq!(ask(&server, "Bearer wrong-0123456789abcdef").0, 401);
}

#[test]
fn without_keys_authorization_is_not_looked_at() {
    let server = Running::start_with(&config(), who);
    assert_eq!(ask(&server, "Bearer anything"), (200, "default".into()));
    assert_eq!(ask(&server, ""), (200, "default".into()));
}

#[test]
fn a_key_that_a_reload_takes_away_is_refused() {
    let config = keys_config("keys-reload", "");
    let server = Running::start_with(&config, who);
    assert_eq!(ask(&server, "Bearer carol-0123456789abcdef").0, 200);
    write_keys(config.auth.keys.as_deref().unwrap().parent().unwrap(), "alice:alice-0123456789abcdef");
    server.reloader.reload(&config).unwrap();
    assert_eq!(ask(&server, "Bearer carol-0123456789abcdef").0, 401);
    assert_eq!(ask(&server, "Bearer alice-0123456789abcdef").0, 200);
}

#[test]
fn a_key_and_a_certificate_must_be_of_one_tenant() {
    let clients = Authority::new("clients");
    let mut site = Site::new("tls-and-keys", &clients);
    let keys = keys_config("keys-and-tls", &format!("{TENANTS}[tenants.default]"));
    (site.config.auth, site.config.tenants) = (keys.auth, keys.tenants);
    site.config.tenants.get_mut("a").unwrap().certificates.push("CN:alice".into());
    let server = Running::start_with(&site.config, who);
    let ask = |shows: &Signed, key: &str| {
        let header = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
        let told = exchange(tls(server.connect(), &site.authority, Some(shows)), request.as_bytes());
        (status(&told), told.split("\r\n\r\n").nth(1).unwrap().to_owned())
    };
    let (alice, stranger) = (clients.client("alice", 1), clients.client("stranger", 2));
    // A listed certificate needs no key; one that is not listed does.
    assert_eq!(ask(&alice, ""), (200, "a".into()));
    assert_eq!(ask(&stranger, "").0, 401);
    assert_eq!(ask(&stranger, "bob-0123456789abcdef"), (200, "b".into()));
    assert_eq!(ask(&stranger, "carol-0123456789abcdef"), (200, "default".into()));
    assert_eq!(ask(&alice, "alice-0123456789abcdef"), (200, "a".into()));
    assert_eq!(ask(&alice, "bob-0123456789abcdef").0, 403);
    assert_eq!(ask(&alice, "wrong-0123456789abcdef").0, 401);
}

#[test]
fn what_one_tenant_uses_up_another_still_has() {
    let limits = "[tenants.a]\nkeys = [\"alice\"]\nrequests_per_minute = 3\n[tenants.b]\nkeys = [\"bob\"]\nrequests_per_minute = 60\n";
    let config = keys_config("keys-rate", limits);
    let server = Running::start_with(&config, who);
    let (alice, bob) = ("Bearer alice-0123456789abcdef", "Bearer bob-0123456789abcdef");
    for _ in 0..3 {
        assert_eq!(ask(&server, alice).0, 200);
    }
    for _ in 0..20 {
        let (status, said) = ask(&server, alice);
        assert_eq!(status, 429);
        assert!(said.contains("3 requests"), "{said}");
        assert_eq!(ask(&server, bob).0, 200);
    }
    // What came in this minute is not forgotten by a reload.
    server.reloader.reload(&config).unwrap();
    assert_eq!(ask(&server, alice).0, 429);
}

#[test]
fn a_permit_is_given_back_when_it_is_dropped() {
    let limits = "[tenants.a]\nkeys = [\"alice\"]\nmax_concurrent = 2\n[tenants.b]\nkeys = [\"bob\"]\nmax_concurrent = 1\n";
    let tenants = Tenants::open(&keys_config("keys-concurrent", limits)).unwrap();
    let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None };
    let tenant = |key: &str| tenants.identify(&peer, Some(&key.parse().unwrap())).unwrap();
    let (alice, bob) = (tenant("Bearer alice-0123456789abcdef"), tenant("Bearer bob-0123456789abcdef"));
    let first = alice.admit().unwrap();
    let _second = alice.admit().unwrap();
    let throttled = alice.admit().err().unwrap();
    assert!(throttled.what.contains("2 requests are under way") && !throttled.retry_after.is_zero());
    // The same tenant, asked for again.
    assert!(tenant("Bearer alice-0123456789abcdef").admit().is_err());
    let _bobs = bob.admit().unwrap();
    drop(first);
    assert_eq!(alice.num_running(), 1);
    let started = Instant::now();
    drop(alice.admit().unwrap());
    assert!(started.elapsed() < PATIENCE);
}
