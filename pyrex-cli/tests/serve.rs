//! `pyrex serve` as a shell, an administrator and systemd see it.

mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use support::served::Served;
use support::{PATIENCE, command, fails, pyrex, scratch, scratch_name, signal, stderr, stdout};
use ureq::Agent;

/// The status of an answer, and what it says.
fn get(url: &str, key: Option<&str>) -> (u16, String) {
    let request = agent().get(url);
    let request = match key {
        Some(key) => request.header("authorization", format!("Bearer {key}")),
        None => request,
    };
    let mut response = request.call().expect("an answer");
    (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent()
}

/// Asks for a chat of so many tokens of nonsense, and reads the head of the answer.
fn stream(served: &Served, max_tokens: usize) -> BufReader<TcpStream> {
    let body = format!(
        "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Who are you?\"}}], \"stream\": true, \
         \"temperature\": 2, \"top_k\": 2048, \"seed\": 2, \"ignore_eos\": true, \"max_tokens\": {max_tokens}}}"
    );
    let mut stream = TcpStream::connect(served.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("a line") > 0, "the answer begins");
    }
    reader
}

/// What is left of a stream, once it has ended in whatever way.
fn rest(reader: BufReader<TcpStream>) -> String {
    reader.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_bundled_model_is_served_on_a_free_port_until_told_to_stop() {
    let mut served = Served::start(&["--log", "json"]);
    assert_eq!(get(&served.at("/health/live"), None).0, 200);
    assert_eq!(get(&served.at("/health/ready"), None).0, 200);
    let (status, models) = get(&served.at("/v1/models"), None);
    assert!(status == 200 && models.contains("\"id\":\"shapes\""), "{models}");
    let (status, page) = get(&served.at("/"), None);
    assert!(status == 200 && page.contains("<html"), "{page}");
    assert!(get(&served.at("/metrics"), None).1.contains("# TYPE"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut example = Command::new("sh");
    let example = example.arg("examples/http/describe.sh").arg(&served.url).current_dir(root).output();
    let answer: Value = serde_json::from_slice(&example.expect("curl runs").stdout).expect("one object");
    let said = "This is a simple image of a solid red circle on a white background.";
    assert_eq!(answer["choices"][0]["message"]["content"], said, "{answer}");
    signal(&served.running.0, "TERM");
    assert_eq!(served.running.ended().code(), Some(0));
    let log = served.log.take().expect("nobody took it").rest();
    for line in log.lines() {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("one object a line: {line}"));
        assert!(object["level"].is_string() && object["timestamp"].is_string(), "{line}");
    }
    assert!(log.contains("\"message\":\"listening\""), "{log}");
}

#[test]
fn a_stream_under_way_ends_well_and_new_requests_are_told_to_come_back() {
    let mut served = Served::start(&[]);
    let stream = stream(&served, 60);
    signal(&served.running.0, "TERM");
    served.log().find("closing once the requests under way are answered");
    let body = r#"{"messages": [{"role": "user", "content": "Hello!"}]}"#;
    let refused =
        agent().post(served.at("/v1/chat/completions")).header("content-type", "application/json").send(body);
    let refused = refused.expect("an answer");
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
    assert_eq!(get(&served.at("/health/ready"), None).0, 503);
    let rest = rest(stream);
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(served.running.ended().code(), Some(0));
}

#[test]
fn a_second_signal_cuts() {
    let mut served = Served::start(&[]);
    let stream = stream(&served, 3000);
    signal(&served.running.0, "INT");
    served.log().find("closing once");
    signal(&served.running.0, "TERM");
    served.log().find("error: 1 requests were cut off");
    assert_eq!(served.running.ended().code(), Some(1));
    assert!(!rest(stream).contains("[DONE]"));
}

#[test]
fn draining_has_a_deadline() {
    let config = scratch_name("drain.toml");
    fs::write(&config, "[limits]\ndrain_timeout_ms = 1\n").expect("the scratch folder is writable");
    let mut served = Served::start(&["--config", &config]);
    let stream = stream(&served, 3000);
    signal(&served.running.0, "TERM");
    assert_eq!(served.running.ended().code(), Some(1));
    assert!(!rest(stream).contains("[DONE]"));
}

fn write_secret(path: &str, text: &str) {
    let _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.expect("the scratch folder is writable").write_all(text.as_bytes()).expect("a disk");
}

#[test]
fn keys_are_read_again_on_sighup_and_only_if_they_can_be_used() {
    let keys = scratch_name("reload.keys");
    let (old, new) = ("an-old-key-of-this-test", "a-new-key-of-this-test");
    write_secret(&keys, &format!("alice:{old}\n"));
    let served = Served::start(&["--keys", &keys]);
    let models = served.at("/v1/models");
    let status = |key| get(&models, key).0;
    assert_eq!((status(None), status(Some(old)), status(Some(new))), (401, 200, 401));
    write_secret(&keys, &format!("alice:{new}\n"));
    signal(&served.running.0, "HUP");
    served.log().find("certificates, keys and tenants were read again");
    assert_eq!((status(Some(old)), status(Some(new))), (401, 200));
    write_secret(&keys, "alice:short\n");
    signal(&served.running.0, "HUP");
    served.log().find("what was read again cannot be used");
    assert_eq!((status(Some(old)), status(Some(new))), (401, 200));
}

#[test]
fn systemd_is_told_how_it_stands() {
    let path = scratch("notify.socket");
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut serve = command(&["serve", "--port", "0"]);
    serve.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
    let mut served = Served::from(serve);
    let wait = |needle: &str| {
        let mut datagram = [0; 512];
        loop {
            let len = socket.recv(&mut datagram).unwrap_or_else(|error| panic!("no {needle}: {error}"));
            let told = std::str::from_utf8(&datagram[..len]).expect("UTF-8");
            if told.lines().any(|line| line.starts_with(needle)) {
                return told.to_owned();
            }
        }
    };
    wait("READY=1");
    (0..3).for_each(|_| drop(wait("WATCHDOG=1")));
    signal(&served.running.0, "HUP");
    assert!(wait("RELOADING=1").contains("MONOTONIC_USEC="));
    wait("READY=1");
    signal(&served.running.0, "TERM");
    assert!(wait("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(served.running.ended().code(), Some(0));
}

/// The file that says what these arguments do.
fn config(arguments: &[&str]) -> String {
    let output = pyrex(&[&["serve", "--print-config"], arguments].concat());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{arguments:?}");
    stdout(&output).to_owned()
}

#[test]
fn the_printed_config_parses_back_and_flags_come_before_it() {
    let flags = ["--port", "1337", "--model-name", "mine", "--kv-cache", "64MiB", "--max-sequences", "3"];
    let printed = config(&[&flags[..], &["--dtype", "bf16", "--insecure", "--host", "::"]].concat());
    for line in [
        "port = 1337",
        "model = \"mine\"",
        "[engine]",
        "kv_cache = \"64MiB\"",
        "max_sequences = 3",
        "host = \"::\"",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    let path = scratch_name("printed.toml");
    fs::write(&path, &printed).expect("the scratch folder is writable");
    assert_eq!(config(&["--config", &path]), printed);
    let over = config(&["--config", &path, "--port", "9", "--max-sequences", "4"]);
    let changed: Vec<_> =
        over.lines().filter(|line| !printed.lines().any(|before| before == *line)).collect();
    assert_eq!(changed, ["port = 9", "max_sequences = 4"]);
    assert!(config(&[]).contains("model = \"shapes\""));
}

#[test]
fn what_cannot_be_served_is_said_in_one_line_before_anything_starts() {
    let empty = scratch("serve-empty");
    fs::create_dir_all(&empty).expect("the scratch folder is writable");
    fails(&["serve", "--port", "0", "--model", empty.to_str().expect("UTF-8")], 1, "config.json");
    fails(&["serve", "--port", "0", "--model", "/no/such/folder"], 1, "/no/such/folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    fails(&["serve", "--port", &port], 1, &port);
    fails(&["serve", "--host", "0.0.0.0"], 1, "insecure");
    fails(&["serve", "--tls-cert", "x"], 1, "tls.key");
    fails(&["serve", "--tls-cert", "/no/such.pem", "--tls-key", "/no/such.key"], 1, "/no/such");
    fails(&["serve", "--keys", "/no/such.keys"], 1, "/no/such.keys");
    fails(&["serve", "--config", "/no/such.toml"], 1, "/no/such.toml");
    let config = scratch_name("bad.toml");
    fs::write(&config, "port = 9\n[engine]\nmax_sequence = 3\n").expect("the scratch folder is writable");
    fails(&["serve", "--config", &config], 1, "line 3, `max_sequence = 3`");
    fails(&["serve", "--port", "65536"], 2, "--port");
    fails(&["serve", "--kv-cache", "10MB"], 2, "512MiB");
    fails(&["serve", "--max-sequences", "0"], 2, "at least 1");
    fails(&["serve", "--log-level", "a=b=c"], 2, "log level");
    fails(&["serve", "--port", "0", "--max-model-len", "5000"], 1, "max_model_len");
}

#[test]
fn the_unit_of_systemd_starts_what_there_is() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/pyrex.service");
    let unit = fs::read_to_string(unit).expect("the unit is there");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/pyrex "))
        .expect("a command");
    let path = scratch_name("unit.toml");
    fs::write(&path, "port = 1337\n").expect("the scratch folder is writable");
    let start = start.replace("/etc/pyrex/pyrex.toml", &path);
    let output = pyrex(&[&start.split(' ').collect::<Vec<_>>()[..], &["--print-config"]].concat());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("port = 1337"));
}
