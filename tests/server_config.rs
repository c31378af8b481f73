//! The config: its file, its defaults, and what cannot be.

use pyrex_server::{Config, Peer, PeerCertificate, TenantConfig, Tenants};
use pyrex_tests::{process_folder, repository};
use std::path::{Path, PathBuf};

/// Asserts that a file is refused with all of these in its message.
fn refused(text: &str, expected: &[&str]) {
    let refused = Config::from_toml(text).and_then(|config| config.validate());
    let message = refused.expect_err(text).to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn folder(name: &str) -> PathBuf {
    process_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), name)
}

#[test]
fn the_example_says_every_default() {
    let text = std::fs::read_to_string(repository().join("packaging/pyrex.toml")).unwrap();
    assert_eq!(Config::from_toml(&text).unwrap(), Config::default());
    let spoken: toml_fields::Fields = toml_fields::of(&text);
    let all = toml_fields::of(&Config::default().to_toml());
    let missing: Vec<_> = all.iter().filter(|field| !spoken.contains(*field)).collect();
    assert!(missing.is_empty(), "the example does not say {missing:?}");
    // What has no value by default stands there as a remark, and is right once it is uncommented.
    let uncommented: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n"
        })
        .collect();
    let full = Config::from_toml(&uncommented).unwrap();
    full.validate().unwrap();
    let optional = [full.model.is_some(), full.tls.client_crl.is_some(), full.auth.keys.is_some()];
    assert_eq!(optional, [true; 3]);
    let tenant = full.tenants.values().next().unwrap();
    assert!(
        tenant.max_concurrent.is_some()
            && tenant.requests_per_minute.is_some()
            && tenant.cache_salt.is_some()
    );
}

/// The fields of a file by their sections.
mod toml_fields {
    pub(super) type Fields = std::collections::BTreeSet<String>;

    pub(super) fn of(text: &str) -> Fields {
        let mut section = String::new();
        let mut fields = Fields::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if let Some((field, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                fields.insert(format!("{section} {field}"));
            }
        }
        fields
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let mut config = Config { model: Some("shapes".into()), insecure: true, ..Config::default() };
    config.tls.client_ca = Some("/etc/pyrex/clients.pem".into());
    config.images.hosts.push("*.example.org".into());
    let tenant = TenantConfig { requests_per_minute: Some(60), priority: -3, ..TenantConfig::default() };
    config.tenants.insert("with.dots".into(), tenant);
    assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_place() {
    refused("port = \"x\"", &["line 1", "port = \"x\"", "string", "u16"]);
    refused("[limits]\nmax_bodies = 3", &["line 2", "max_bodies", "unknown field", "max_body_bytes"]);
    refused("host = \"localhost\"", &["line 1", "host", "IP address"]);
    refused("port = 80\nport = 81", &["line 2", "duplicate"]);
    refused("port", &["line 1"]);
    let path = folder("server-config").join("wrong.toml");
    std::fs::write(&path, "port = 99999").unwrap();
    let message = Config::read(&path).unwrap_err().to_string();
    assert!(message.contains("wrong.toml") && message.contains("99999"), "{message}");
    let message = Config::read(Path::new("/nowhere/pyrex.toml")).unwrap_err().to_string();
    assert!(message.contains("/nowhere/pyrex.toml"), "{message}");
}

#[test]
fn fields_that_cannot_be_together_are_refused_by_name() {
    refused("host = \"0.0.0.0\"", &["host", "0.0.0.0", "insecure"]);
    refused("host = \"::\"", &["host", "tls.cert"]);
    refused("[tls]\ncert = \"a\"", &["tls.key"]);
    refused("[tls]\nkey = \"a\"", &["tls.cert"]);
    refused("[tls]\nclient_ca = \"a\"", &["tls.cert", "tls.client_ca"]);
    refused("[tls]\ncert = \"a\"\nkey = \"b\"\nclient_crl = \"c\"", &["tls.client_ca"]);
    refused("[limits]\nmax_header_bytes = 100", &["limits.max_header_bytes", "100", "8192"]);
    refused("[limits]\nidle_timeout_ms = 0", &["limits.idle_timeout_ms", "at least 1"]);
    refused("[limits]\nmax_connections = 5000000000", &["limits.max_connections"]);
    refused("[images]\nhosts = [\"http://example.org\"]", &["images.hosts", "http://example.org"]);
    refused("[images]\ndirs = [\"pictures\"]", &["images.dirs", "pictures"]);
    refused("[cors]\norigins = [\"example.org\"]", &["cors.origins", "https://example.org"]);
    refused("[tenants.one]\n", &["tenants.one", "nobody"]);
    refused("[tenants.\"a b\"]\n", &["a b", "letters"]);
    refused("[tenants.one]\nkeys = [\"k\"]", &["tenants.one.keys", "auth.keys"]);
    refused("[tenants.one]\ncertificates = [\"CN:k\"]", &["tenants.one.certificates", "tls.client_ca"]);
    let keys = "[auth]\nkeys = \"keys\"\n";
    refused(
        &format!("{keys}[tenants.a]\nkeys = [\"k\"]\n[tenants.b]\nkeys = [\"k\"]"),
        &["tenants.b.keys", "\"k\"", "twice"],
    );
    refused(&format!("{keys}[tenants.a]\nkeys = [\"k\"]\nmax_concurrent = 0"), &["tenants.a.max_concurrent"]);
    refused(
        &format!(
            "{keys}[tenants.a]\nkeys = [\"k\"]\ncache_salt = \"s\"\n[tenants.b]\nkeys = [\"l\"]\ncache_salt = \"s\""
        ),
        &["tenants.b.cache_salt", "another tenant"],
    );
    let tls = "[tls]\ncert = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n";
    refused(
        &format!("{tls}[tenants.a]\ncertificates = [\"alice\"]"),
        &["tenants.a.certificates", "alice", "CN"],
    );
    for fine in ["host = \"127.0.0.9\"", "host = \"::1\"", "host = \"0.0.0.0\"\ninsecure = true"] {
        Config::from_toml(fine).unwrap().validate().unwrap();
    }
}

/// What is wrong with a file of keys.
fn keys_refused(text: &str, expected: &[&str]) {
    let path = folder("server-keys").join("refused");
    write_private(&path, text);
    let mut config = Config::default();
    config.auth.keys = Some(path);
    let message = Tenants::open(&config).err().expect(text).to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains("hunter"), "{message}");
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_wrong_file_of_keys_is_refused_without_telling_a_key() {
    keys_refused("hunter2hunter2hunter2", &["refused", "line 1", "name:key"]);
    keys_refused("# all\n\nalice:hunter2", &["line 3", "16 characters"]);
    keys_refused("alice:hunter2 hunter2 hunter2", &["line 1", "visible ASCII"]);
    keys_refused("a b:hunter2hunter2hunter2", &["line 1", "letters"]);
    keys_refused("alice:sha256:hunter", &["line 1", "64 hexadecimal digits"]);
    keys_refused("a:hunter2hunter2hunter2\nb:hunter2hunter2hunter2", &["line 2", "`a` again"]);
    keys_refused("a:hunter2hunter2hunter2\na:hunter3hunter3hunter3", &["line 2", "`a` again"]);
}

#[test]
fn a_file_of_keys_that_everybody_can_read_is_refused_unless_it_holds_digests() {
    use std::os::unix::fs::PermissionsExt;
    let path = folder("server-modes").join("keys");
    let mut config = Config::default();
    config.auth.keys = Some(path.clone());
    let open = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        Tenants::open(&config)
    };
    let message = open("a:hunter2hunter2hunter2").err().unwrap().to_string();
    assert!(message.contains("644") && message.contains("sha256"), "{message}");
    open(&format!("a:sha256:{}", "0f".repeat(32))).unwrap();
}

#[test]
fn a_tenant_with_a_key_that_is_not_in_the_file_is_refused() {
    let path = folder("server-unknown").join("keys");
    write_private(&path, "a:hunter2hunter2hunter2");
    let text = format!("[auth]\nkeys = {path:?}\n[tenants.one]\nkeys = [\"a\", \"b\"]");
    let message = Tenants::open(&Config::from_toml(&text).unwrap()).err().unwrap().to_string();
    assert!(message.contains("tenants.one.keys") && message.contains("\"b\""), "{message}");
}

#[test]
fn a_salt_of_a_request_keeps_tenants_apart() {
    let config = Config::from_toml("[auth]\nkeys = \"\"\n[tenants.default]\ncache_salt = \"a\"");
    let mut config = config.unwrap();
    config.auth.keys = None;
    let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None };
    let tenant = |config: &Config| Tenants::open(config).unwrap().identify(&peer, None).unwrap();
    let one = tenant(&config);
    config.tenants.get_mut("default").unwrap().cache_salt = Some("a:1".into());
    let other = tenant(&config);
    let salts =
        [one.salt_with(None), one.salt_with(Some("x")), other.salt_with(None), other.salt_with(Some("x"))];
    let different: std::collections::BTreeSet<_> = salts.iter().collect();
    assert_eq!(different.len(), 4, "{salts:?}");
    assert_eq!(
        PeerCertificate::from_der(b"no certificate").unwrap_err().kind(),
        pyrex_core::ErrorKind::InvalidRequest
    );
}
