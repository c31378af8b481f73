//! What no honest client sends: each is told what it deserves, and the next client is served.

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::get;
use pyrex_tests::listener::{Running, config, exchange, status};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The most that the body of a request may have here.
const MAX_BODY_BYTES: usize = 1000;

/// Says hello, and how long the body of a POST is.
fn router() -> Router {
    let read = |body: Body| async {
        match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
            Ok(bytes) => (StatusCode::OK, format!("{} bytes", bytes.len())),
            Err(error) if error.to_string().contains("length limit") => {
                (StatusCode::PAYLOAD_TOO_LARGE, String::new())
            }
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        }
    };
    Router::new().route("/", get(|| async { "hello" }).post(read))
}

/// Sends each to a server of its own turn, and asserts the status of the first answer; 0 means closed without one.
fn check(cases: &[(&str, &[u8], u16)]) {
    let server = Running::start(&config(), router());
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let client = server.connect();
        let told = exchange(&client, bytes);
        let found = if told.is_empty() { 0 } else { status(&told) };
        if found != *expected {
            wrong.push(format!("{name}: expected {expected}, found {told:?}"));
        }
        server.assert_alive();
    }
    assert_eq!(server.stop(), 0);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A POST with these headers and this body, on a connection that ends with it.
fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn a_body_whose_end_is_in_doubt_is_refused_or_ends_the_connection() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    check(&[
        ("two lengths", &post("content-length: 5\r\ncontent-length: 6\r\n", "hello!"), 400),
        ("two lengths in one", &post("content-length: 5, 6\r\n", "hello!"), 400),
        ("a negative length", &post("content-length: -5\r\n", "hello"), 400),
        ("a length with a sign", &post("content-length: +5\r\n", "hello"), 400),
        ("a length in hexadecimal", &post("content-length: 0x5\r\n", "hello"), 400),
        ("a length beyond numbers", &post("content-length: 99999999999999999999\r\n", ""), 400),
        ("an empty length", &post("content-length: \r\n", ""), 400),
        ("chunked, but not last", &post("transfer-encoding: chunked, identity\r\n", ""), 400),
        ("another encoding", &post("transfer-encoding: gzip\r\n", ""), 400),
        ("chunked misspelt", &post("transfer-encoding: xchunked\r\n", ""), 400),
        ("chunked with a tab before", &post("transfer-encoding:\tchunked\r\n", "0\r\n\r\n"), 200),
        ("chunked in HTTP/1.0", format!("POST / HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n").as_bytes(), 400),
        ("a chunk beyond numbers", &post(chunked, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400),
        ("a huge chunk", &post(chunked, &format!("7fffffffffffffff\r\n{}", "x".repeat(2000))), 413),
        ("a negative chunk", &post(chunked, "-5\r\nhello\r\n0\r\n\r\n"), 400),
        ("a chunk that is longer than it says", &post(chunked, "3\r\nhello\r\n0\r\n\r\n"), 400),
        (
            "a chunk with an endless remark",
            &post(chunked, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000))),
            400,
        ),
        ("endless trailers", &post(chunked, &format!("0\r\n{}\r\n", "a: b\r\n".repeat(100_000))), 400),
        (
            "chunks beyond the limit",
            &post(chunked, &format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024))),
            413,
        ),
    ]);
    // Both a length and chunks: the chunks count, and what comes behind them is nobody's request.
    let server = Running::start(&config(), router());
    for headers in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        let told = server.exchange(request.as_bytes());
        assert_eq!(told.matches("HTTP/1.1").count(), 1, "{told}");
        assert!(told.ends_with("0 bytes") && told.contains("connection: close"), "{told}");
        server.assert_alive();
    }
}

#[test]
fn a_malformed_head_is_refused() {
    let head =
        |line: &str| format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{line}\r\n\r\n").into_bytes();
    check(&[
        ("a folded header", &head("a: b\r\n c"), 400),
        ("a header without a colon", &head("a"), 400),
        ("a header without a name", &head(": a"), 400),
        ("a space before the colon", &head("content-length : 5"), 400),
        ("a space in a name", &head("a b: c"), 400),
        ("a NUL in a value", &head("a: b\0c"), 400),
        ("a NUL in a name", &head("a\0b: c"), 400),
        ("a return without a line", &head("a: b\rc: d"), 400),
        ("a control in a value", &head("a: \x01"), 400),
        ("a huge header", &head(&format!("a: {}", "x".repeat(100_000))), 431),
        ("too many headers", &head(&"a: b\r\n".repeat(200)), 431),
        ("an endless head", &vec![b'x'; 200_000], 431),
        ("an endless header", &head(&"x".repeat(200_000)), 431),
        ("no request at all", b"\r\n\r\n\r\n\r\nhello\r\n\r\n", 400),
        ("no version", b"GET /\r\n\r\n", 400),
        ("another version", b"GET / HTTP/3.0\r\n\r\n", 400),
        ("two spaces", b"GET  / HTTP/1.1\r\n\r\n", 400),
        ("no path", b"GET HTTP/1.1\r\n\r\n", 400),
        ("a wrong method", b"G@T / HTTP/1.1\r\n\r\n", 400),
        ("bytes beyond ASCII in the path", b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        ("a path of a megabyte", &[b"GET /", &vec![b'a'; 1_000_000][..], b" HTTP/1.1\r\n\r\n"].concat(), 431),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("zeros", &[0; 64], 400),
    ]);
}

#[test]
fn lines_that_end_with_a_bare_line_feed_are_read_as_lines() {
    // RFC 9112 §2.2 lets a server read them so; there is no body whose end they could hide.
    check(&[("bare line feeds", b"GET / HTTP/1.1\nhost: x\nconnection: close\n\n", 200)]);
}

#[test]
fn a_body_that_ends_early_ends_its_connection() {
    let server = Running::start(&config(), router());
    for headers in ["content-length: 9\r\n", "transfer-encoding: chunked\r\n"] {
        let mut client = server.connect();
        client.write_all(&post(headers, "5\r\nhel")).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let told = exchange(client, b"");
        assert!(told.is_empty() || status(&told) == 400, "{told}");
        server.assert_alive();
    }
}

#[test]
fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = Running::start(&config(), router());
    let mut client = server.connect();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n").unwrap();
    let page = vec![b'x'; 64 * 1024];
    let mut sender = client.try_clone().unwrap();
    // Some clients hear nothing before they have sent all they wanted to; these send until they cannot.
    let sending = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut num_sent = 0;
        while begun.elapsed() < Duration::from_secs(1) && sender.write_all(&page).is_ok() {
            num_sent += page.len();
        }
        num_sent
    });
    let mut told = Vec::new();
    let _ = client.read_to_end(&mut told);
    let num_sent = sending.join().unwrap();
    assert_eq!(status(&String::from_utf8_lossy(&told)), 413, "after {num_sent} bytes");
    server.assert_alive();
}

#[test]
fn a_server_without_free_files_waits_and_recovers() {
    // In a process of its own, which may open few files.
    let test = std::env::current_exe().unwrap();
    let script = "ulimit -n 64; exec \"$0\" --exact --nocapture few_files";
    let ran =
        Command::new("sh").args(["-c", script]).arg(test).env("PYREX_TEST_FEW_FILES", "1").output().unwrap();
    let output = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{output}");
    assert!(output.contains("few files were survived"), "{output}");
}

#[test]
fn few_files() {
    if std::env::var_os("PYREX_TEST_FEW_FILES").is_none() {
        return;
    }
    let server = Running::start(&config(), router());
    let stat = File::open("/proc/self/stat").unwrap();
    let mut clients = Vec::new();
    // The last ones wait in the system's queue: this end has a file, the server's has none.
    while let Ok(client) = std::net::TcpStream::connect(server.address) {
        clients.push(client);
    }
    let before = processor_ticks(&stat);
    std::thread::sleep(Duration::from_millis(500));
    let used = processor_ticks(&stat) - before;
    assert!(used <= 10, "{used} hundredths of a second of the processor in half a second");
    clients.clear();
    server.assert_alive();
    println!("few files were survived");
}

/// Hundredths of a second of the processor that this process has used.
fn processor_ticks(stat: &File) -> u64 {
    let mut bytes = [0; 1024];
    let len = stat.read_at(&mut bytes, 0).unwrap();
    let stat = std::str::from_utf8(&bytes[..len]).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
