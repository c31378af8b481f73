//! Spans reach a collector, here a socket that takes what is sent.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use support::served::Served;
use support::{PATIENCE, fails, signal};

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|found| found == text.as_bytes())
}

#[test]
fn the_spans_of_a_request_reach_the_collector_before_the_server_ends() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", collector.local_addr().expect("an address"));
    let (sender, exported) = channel();
    thread::spawn(move || {
        for stream in collector.incoming() {
            let mut stream = stream.expect("a client");
            let (mut sent, mut bytes) = (Vec::new(), [0; 4096]);
            while !contains(&sent, "\r\n\r\n") || sent.len() < whole(&sent) {
                let len = stream.read(&mut bytes).expect("bytes");
                sent.extend(&bytes[..len]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .expect("it reads");
            let Ok(()) = sender.send(sent) else { return };
        }
    });
    let mut served = Served::start(&["--otlp", &url]);
    let mut response = ureq::get(served.at("/v1/models")).call().expect("an answer");
    assert!(response.body_mut().read_to_string().expect("text").contains("shapes"));
    signal(&served.running.0, "TERM");
    assert_eq!(served.running.ended().code(), Some(0));
    let sent = exported.recv_timeout(PATIENCE).expect("spans");
    assert!(sent.starts_with(b"POST /v1/traces HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&sent));
    for text in ["application/x-protobuf", "service.name", "pyrex", "/v1/models"] {
        assert!(contains(&sent, text), "{text}: {}", String::from_utf8_lossy(&sent));
    }
    fails(&["serve", "--port", "0", "--otlp", "localhost:4318"], 2, "--otlp");
}

/// How long a request is, by its head.
fn whole(sent: &[u8]) -> usize {
    let head = sent.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    let text = String::from_utf8_lossy(&sent[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    head + length.expect("a length")
}
