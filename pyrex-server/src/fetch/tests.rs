//! Against servers on this machine, whose addresses a test allows one by one.

use super::*;
use pyrex_core::ErrorKind;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use ureq::unversioned::resolver::ArrayVec;

/// Every name of a test, and a literal.
const ALL: &[&str] = &["*.test", "127.0.0.2"];
const PICTURE: &[u8] = b"\x89PNG, say";

/// Names mean what a test says, and one may mean something else each time it is asked for.
#[derive(Debug)]
struct Names {
    meanings: HashMap<&'static str, Vec<Vec<Ipv4Addr>>>,
    port: u16,
    num_asked: AtomicUsize,
}

#[derive(Debug)]
struct Shared(Arc<Names>);

impl Resolver for Shared {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let Self(names) = self;
        let asked = names.num_asked.fetch_add(1, Ordering::Relaxed);
        let meanings = names
            .meanings
            .get(&*uri.host().unwrap_or_default().to_lowercase())
            .ok_or(ureq::Error::HostNotFound)?;
        let mut found = ArrayVec::from_fn(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        for address in &meanings[asked % meanings.len()] {
            found.push(SocketAddr::from((*address, names.port)));
        }
        Ok(found)
    }
}

/// Answers each connection with what `answer` says to its path, and closes it.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let first = lines.next().expect("a request").expect("a line");
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).expect("a path");
            // A client that has read enough goes.
            let _ = stream.write_all(&answer(path));
        }
    });
    port
}

fn found(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn outside(_: IpAddr) -> bool {
    true
}

/// 127.0.0.1 plays a public address; all others are inside.
fn only_first(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn config(hosts: &[&str]) -> ImagesConfig {
    ImagesConfig {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        max_bytes: 64,
        timeout_ms: 20_000,
        max_redirects: 2,
        ..ImagesConfig::default()
    }
}

/// A fetcher for all names, a server behind them, and how often a name was asked for.
fn fetcher(hosts: &[&str]) -> (Fetcher, Arc<Names>) {
    let port = serve(|path| match path {
        "/picture.png" => found(PICTURE),
        "/large.png" => found(&[b'x'; 65]),
        "/endless.png" => b"HTTP/1.1 200 OK\r\n\r\n".iter().chain(&[b'x'; 100_000]).copied().collect(),
        "/nothing.png" => found(b""),
        "/near.png" => redirect("/picture.png"),
        "/inside.png" => redirect("http://inside.test/picture.png"),
        "/literal.png" => redirect("http://127.0.0.2/picture.png"),
        "/other.png" => redirect("http://other.test/picture.png"),
        "/file.png" => redirect("file:///etc/passwd"),
        "/round.png" => redirect("/round.png"),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    });
    let one = Ipv4Addr::LOCALHOST;
    let two = Ipv4Addr::new(127, 0, 0, 2);
    let names = Names {
        meanings: HashMap::from([
            ("pictures.test", vec![vec![one]]),
            ("deep.pictures.test", vec![vec![one]]),
            ("other.test", vec![vec![one]]),
            ("inside.test", vec![vec![two]]),
            ("127.0.0.2", vec![vec![two]]),
            ("both.test", vec![vec![one, two]]),
            ("turns.test", vec![vec![one], vec![two]]),
        ]),
        port,
        num_asked: AtomicUsize::new(0),
    };
    let names = Arc::new(names);
    let fetcher = Fetcher::with(&config(hosts), Shared(names.clone()), only_first).expect("a fetcher");
    (fetcher, names)
}

fn refused(hosts: &[&str], url: &str, why: &str) {
    let (fetcher, _) = fetcher(hosts);
    let error = fetcher.fetch(url).expect_err(url);
    assert!(error.message().contains(why), "{url}: {error}");
    assert!(matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Unsupported), "{url}: {error:?}");
}

#[test]
fn an_image_of_an_allowed_host_is_fetched_through_redirects() {
    for url in ["http://pictures.test/picture.png", "HTTP://Pictures.Test/near.png#top"] {
        let (fetcher, _) = fetcher(&["pictures.test"]);
        assert_eq!(&*fetcher.fetch(url).expect(url), PICTURE, "{url}");
    }
}

#[test]
fn a_host_that_is_not_on_the_list_is_refused_on_every_hop() {
    let why = "this server fetches no images from";
    refused(&["pictures.test"], "http://other.test/picture.png", why);
    refused(&["pictures.test"], "http://pictures.test/other.png", why);
    refused(&["pictures.test"], "http://deep.pictures.test/picture.png", why);
    refused(&["*.pictures.test"], "http://pictures.test/picture.png", why);
    refused(&["pictures.test"], "http://pictures.test:81/picture.png", why);
    refused(&["pictures.test:81"], "http://pictures.test/picture.png", why);
    refused(&["pictures.test"], "http://me:secret@pictures.test/picture.png", why);
    let (fetcher, _) = fetcher(&["*.pictures.test"]);
    fetcher.fetch("http://deep.pictures.test/picture.png").expect("a name below");
}

#[test]
fn an_address_that_is_not_public_is_refused_on_every_hop() {
    let why = "not public";
    refused(ALL, "http://inside.test/picture.png", why);
    refused(ALL, "http://127.0.0.2/picture.png", why);
    refused(ALL, "http://pictures.test/inside.png", why);
    refused(ALL, "http://pictures.test/literal.png", why);
    refused(ALL, "http://both.test/picture.png", why);
}

#[test]
fn a_name_is_asked_for_once_and_what_was_checked_is_connected_to() {
    let (fetcher, names) = fetcher(ALL);
    fetcher.fetch("http://turns.test/picture.png").expect("the first meaning is public");
    assert_eq!(names.num_asked.load(Ordering::Relaxed), 1);
    let error = fetcher.fetch("http://turns.test/picture.png").expect_err("the second is not");
    assert!(error.message().contains("not public"), "{error}");
}

#[test]
fn loopback_is_refused_unless_private_addresses_are_allowed() {
    let port = serve(|_| found(PICTURE));
    let public = config(&[&format!("127.0.0.1:{port}")]);
    let url = format!("http://127.0.0.1:{port}/picture.png");
    let error = Fetcher::new(&public).expect("a fetcher").fetch(&url).expect_err("loopback");
    assert!(error.message().contains("not public"), "{error}");
    let private = ImagesConfig { allow_private: true, ..public };
    assert_eq!(&*Fetcher::new(&private).expect("a fetcher").fetch(&url).expect("an image"), PICTURE);
}

#[test]
fn size_redirects_and_answers_have_limits() {
    refused(ALL, "http://pictures.test/large.png", "more than 64 bytes");
    refused(ALL, "http://pictures.test/endless.png", "more than 64 bytes");
    refused(ALL, "http://pictures.test/nothing.png", "leads to nothing");
    refused(ALL, "http://pictures.test/round.png", "redirects");
    refused(ALL, "http://pictures.test/missing.png", "404");
    refused(ALL, "http://pictures.test/file.png", "");
    refused(ALL, "http://unknown.test/picture.png", "host not found");
}

#[test]
fn time_has_a_limit() {
    // Nobody accepts: the connection stands, and no answer comes.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let names = Names {
        meanings: HashMap::from([("slow.test", vec![vec![Ipv4Addr::LOCALHOST]])]),
        port: listener.local_addr().expect("an address").port(),
        num_asked: AtomicUsize::new(0),
    };
    let hasty = ImagesConfig { timeout_ms: 50, ..config(ALL) };
    let fetcher = Fetcher::with(&hasty, Shared(Arc::new(names)), outside).expect("a fetcher");
    let error = fetcher.fetch("http://slow.test/picture.png").expect_err("no answer");
    assert!(error.message().contains("timeout"), "{error}");
}

#[test]
fn without_a_list_no_url_is_followed() {
    let fetcher = Fetcher::new(&config(&[])).expect("a fetcher");
    for url in
        ["http://pictures.test/picture.png", "HTTPS://pictures.test/", "file:///etc/passwd", "ftp://x/"]
    {
        assert!(!fetcher.fetches(url), "{url}");
        assert_eq!(fetcher.fetch(url).expect_err(url).kind(), ErrorKind::Unsupported, "{url}");
    }
}

#[test]
fn a_file_is_read_only_beneath_an_allowed_folder() {
    let all = std::env::temp_dir().join(format!("pyrex-fetch-{}", std::process::id()));
    let folder = all.join("allowed pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("red.png"), PICTURE).expect("a file");
    std::fs::write(folder.join("large.png"), [b'x'; 65]).expect("a file");
    std::fs::write(all.join("secret.png"), PICTURE).expect("a file");
    std::os::unix::fs::symlink(all.join("secret.png"), folder.join("link.png")).expect("a link");
    let listed = ImagesConfig { dirs: vec![folder.clone()], ..config(&[]) };
    let fetcher = Fetcher::new(&listed).expect("a fetcher");
    let base = folder.display().to_string().replace(' ', "%20");
    let fetch = |url: String| fetcher.fetch(&url).map_err(|error| error.message().to_owned());
    for start in ["file://", "FILE:", "file://localhost"] {
        assert_eq!(&*fetch(format!("{start}{base}/red.png")).expect(start), PICTURE);
    }
    for refused in ["link.png", "../secret.png", "%2e%2e/secret.png", "missing.png", "", "red.png%00"] {
        let error = fetch(format!("file://{base}/{refused}")).expect_err(refused);
        assert!(
            error.contains("no file that this server may read") || error.contains("expected file:"),
            "{error}"
        );
    }
    assert!(fetch(format!("file://{base}/large.png")).expect_err("large").contains("more than 64 bytes"));
    assert!(fetch("file://elsewhere/red.png".to_owned()).is_err());
    std::fs::remove_dir_all(&all).expect("the folder");
}
