//! `pyrex canary` against servers that answer as a test wants.

mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::{Lines, Running, command, fails, pyrex, scratch, scratch_name, stderr, stdout};

/// What a client sent.
#[derive(Clone, Debug)]
struct Sent {
    head: String,
    body: Value,
}

/// Answers each request by how many came before it.
struct Stub {
    url: String,
    seen: Arc<Mutex<Vec<Sent>>>,
}

impl Stub {
    fn start(answer: impl Fn(usize, &Sent) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        thread::spawn(move || {
            for (idx, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a client");
                let sent = read(&stream);
                kept.lock().expect("nobody panics").push(sent.clone());
                // A client that gives up early is not the server's concern.
                let _ = stream.write_all(answer(idx, &sent).as_bytes());
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Sent> {
        self.seen.lock().expect("nobody panics").clone()
    }
}

fn read(stream: &TcpStream) -> Sent {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).expect("a line of the head");
    }
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("the body");
    Sent { head, body: serde_json::from_slice(&body).expect("JSON") }
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn says(text: &str) -> String {
    response("200 OK", &serde_json::json!({ "choices": [{ "message": { "content": text } }] }).to_string())
}

fn shows_an_image(sent: &Sent) -> bool {
    let url = sent.body["messages"][0]["content"][0]["image_url"]["url"].as_str();
    url.is_some_and(|url| url.starts_with("data:image/png;base64,iVBOR"))
}

/// Right answers.
fn right(sent: &Sent) -> String {
    says(if shows_an_image(sent) { "A solid RED circle." } else { "It is Paris." })
}

/// One round: the exit code and what is logged of it.
fn round(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = pyrex(&[&["canary"], arguments].concat());
    assert_eq!(stderr(&output), "", "{arguments:?}");
    let line = stdout(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    (output.status.code(), serde_json::from_str(line).expect("one object"))
}

/// One round whose first probe goes wrong.
fn breach(arguments: &[&str], needle: &str) {
    let (code, line) = round(arguments);
    let error = line["probes"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains(needle), "{needle}: {line}");
    assert_eq!(
        (code, &line["ok"], &line["breaches"]),
        (Some(1), &Value::from(false), &Value::from(1)),
        "{line}"
    );
}

#[test]
fn a_server_that_sees_and_speaks_is_well() {
    let stub = Stub::start(|_, sent| right(sent));
    let key = scratch_name("canary.key");
    fs::write(&key, "a key of this test\n".replace(' ', "-")).expect("the scratch folder is writable");
    let (code, line) = round(&["--url", &stub.url, "--key-file", &key, "--model-name", "shapes"]);
    assert_eq!(
        (code, &line["ok"], &line["breaches"]),
        (Some(0), &Value::from(true), &Value::from(0)),
        "{line}"
    );
    assert_eq!(line["probes"][0]["text"], "A solid RED circle.");
    assert!(line["probes"][1]["latency_ms"].as_f64() > Some(0.0), "{line}");
    assert_eq!((&line["window"]["rounds"], &line["window"]["success"]), (&1.into(), &1.0.into()), "{line}");
    let seen = stub.seen();
    assert_eq!(seen.iter().map(shows_an_image).collect::<Vec<_>>(), [true, false]);
    for sent in seen {
        assert!(sent.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", sent.head);
        assert!(
            sent.head.to_lowercase().contains("authorization: bearer a-key-of-this-test\r\n"),
            "{}",
            sent.head
        );
        assert_eq!((&sent.body["model"], &sent.body["temperature"]), (&"shapes".into(), &0.into()));
    }
}

#[test]
fn whatever_is_not_the_known_answer_in_time_is_a_breach() {
    let url = Stub::start(|_, _| says("A blue square. Rome.")).url;
    breach(&["--url", &url], "does not say \"red circle\"");
    breach(&["--url", &url, "--text-only", "--text-expect", "Rome", "--text-expect", "Paris"], "\"Paris\"");
    let slow = Stub::start(|_, sent| {
        thread::sleep(Duration::from_millis(20));
        right(sent)
    });
    breach(&["--url", &slow.url, "--max-latency-ms", "5"], "ms, expected at most 5");
    let refuses = "{\"error\": {\"message\": \"come again\"}}";
    let url = Stub::start(move |_, _| response("503 Service Unavailable", refuses)).url;
    breach(&["--url", &url], "status 503 Service Unavailable: come again");
    breach(&["--url", &Stub::start(|_, _| response("200 OK", "{}")).url], "no content");
    breach(&["--url", &Stub::start(|_, _| response("200 OK", "<html>")).url], "no JSON");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    breach(&["--url", &format!("http://{port}")], "refused");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    breach(&["--url", &url, "--text-only", "--timeout-ms", "50"], "timeout");
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = format!("http://{}/v1/chat/completions", elsewhere.local_addr().expect("an address"));
    for status in ["302 Found", "307 Temporary Redirect"] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        breach(&["--url", &Stub::start(move |_, _| answer.clone()).url], "elsewhere");
    }
    elsewhere.set_nonblocking(true).expect("a socket");
    assert_eq!(elsewhere.accept().expect_err("nobody came").kind(), ErrorKind::WouldBlock);
}

/// Rounds of one probe, of which all but these are wrong.
fn well_only(well: &'static [usize]) -> Stub {
    Stub::start(move |idx, sent| if well.contains(&idx) { right(sent) } else { says("Rome.") })
}

#[test]
fn watching_ends_after_so_many_breaches_in_a_row() {
    let stub = well_only(&[0, 2]);
    let output =
        pyrex(&["canary", "--url", &stub.url, "--text-only", "--watch", "--every", "0.001", "--window", "4"]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("one object")).collect();
    let breaches: Vec<_> = lines.iter().map(|line| line["breaches"].as_u64()).collect();
    assert_eq!(breaches, [0, 1, 0, 1, 2, 3].map(Some));
    assert_eq!((&lines[5]["window"]["rounds"], &lines[5]["window"]["success"]), (&4.into(), &0.25.into()));
}

#[test]
fn a_command_is_run_and_watching_goes_on() {
    let (stub, told) = (well_only(&[]), scratch("canary-told.json"));
    let _ = fs::remove_file(&told);
    let run = format!("cat >> '{}'", told.display());
    let arguments = ["--text-only", "--watch", "--every", "0.001", "--breaches", "2", "--run", &run];
    let mut running = Running(
        command(&[&["canary", "--url", &stub.url], &arguments[..]].concat())
            .spawn()
            .expect("the binary runs"),
    );
    let lines = Lines::of(running.0.stdout.take().expect("a pipe"));
    for _ in 0..2 {
        let ran: Value = serde_json::from_str(&lines.find("\"run\"")).expect("one object");
        assert_eq!((&ran["ok"], &ran["exit_code"]), (&Value::from(true), &Value::from(0)));
    }
    drop(running);
    let told = fs::read_to_string(&told).expect("the command ran");
    let told: Value = serde_json::from_str(told.lines().next().expect("a line")).expect("one object");
    assert_eq!(told["breaches"], 2);
}

#[test]
fn bad_arguments_ask_nobody() {
    for url in ["", "localhost:8080", "ftp://localhost", "https://user@localhost"] {
        fails(&["canary", "--url", url], 2, "expected one such as https://localhost:1337");
    }
    let key = scratch_name("canary-bad.key");
    fs::write(&key, "one\ntwo\n").expect("the scratch folder is writable");
    let with = |more: &'static [&str]| [&["canary", "--url", "http://192.0.2.1"], more].concat();
    fails(&with(&["--every", "0"]), 2, "--every");
    fails(&with(&["--breaches", "2"]), 2, "--watch");
    fails(&with(&["--cert", "x"]), 2, "--key");
    fails(&with(&["--ca", "/no/such/ca.pem"]), 1, "/no/such/ca.pem");
    fails(&[&with(&[])[..], &["--key-file", &key]].concat(), 1, "an API key and nothing else");
    fs::write(&key, "one-key-alone").expect("the scratch folder is writable");
    fails(&[&with(&[])[..], &["--key-file", &key]].concat(), 2, "use https, or say --insecure");
    fails(&[&with(&[])[..], &["--ca", &key]].concat(), 1, "expected certificates as PEM");
}
