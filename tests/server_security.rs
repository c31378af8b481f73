//! The whole server under what the internet does to servers: bodies without end, bombs, garbage, clients that vanish, and an
//! order to stop in the middle of it all. After each it answers the next client, and holds what it held before.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pyrex_core::models::scripted::{GateKeeper, Permit, Script};
use pyrex_core::{Engine, EngineOptions};
use pyrex_server::{Config, EngineHost, router};
use pyrex_tests::listener::{GONE, PATIENCE, Running, answer, config, exchange, status};
use pyrex_tests::scripted::{gated, open, open_with, wait_until};
use pyrex_tests::{model_dir, repository, resident_bytes};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const MIB: usize = 1 << 20;

fn script() -> Script {
    Script::of(&[("ab", "xyz")])
}

/// The real router over an engine, on a port.
fn serve(engine: &Engine, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config();
    change(&mut config);
    Running::start_with(&config, |tenants, shutdown| {
        let host = Arc::new(EngineHost::new(engine.clone()));
        router(host, &config, tenants, shutdown).expect("a router")
    })
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n")
}

/// A request on a connection that ends with its answer, or stays.
fn post(path: &str, body: &[u8], more: &str) -> Vec<u8> {
    let mut request = head(path, &format!("{more}content-length: {}\r\n", body.len())).into_bytes();
    request.extend_from_slice(body);
    request
}

fn last(path: &str, body: &[u8]) -> Vec<u8> {
    post(path, body, "connection: close\r\n")
}

fn question(fields: Value) -> Vec<u8> {
    let mut body = json!({"prompt": "ab", "temperature": 0});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn body_of(told: &str) -> &str {
    told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body in {told:?}")).1
}

fn json_of(told: &str) -> Value {
    serde_json::from_str(body_of(told)).unwrap_or_else(|error| panic!("{error} in {told:?}"))
}

fn assert_answers(server: &Running) {
    let told = server.exchange(&last(COMPLETIONS, &question(json!({}))));
    assert_eq!(status(&told), 200, "{told}");
    assert_eq!(json_of(&told)["choices"][0]["text"], "xyz");
}

/// An error of OpenAI's shape with this status.
fn assert_refused(told: &str, expected: u16, what: &str) {
    assert_eq!(status(told), expected, "{what}: {told}");
    assert!(
        json_of(told)["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
        "{what}: {told}"
    );
}

#[test]
fn a_gigabyte_is_refused_at_the_limit_and_kept_nowhere() {
    let engine = open(script());
    let server = serve(&engine, |config| config.limits.max_body_bytes = 2 * MIB);
    assert_answers(&server);
    let before = resident_bytes();
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for framing in ["content-length: 1000000000\r\n", "transfer-encoding: chunked\r\n"] {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = server.connect();
                let (head, chunk) = (head(COMPLETIONS, framing), chunk.clone());
                thread::spawn(move || {
                    let mut sender = client.try_clone().unwrap();
                    let sending = thread::spawn(move || {
                        let mut num_sent = 0;
                        let _ = sender.write_all(head.as_bytes());
                        while num_sent < 1_000_000_000 && sender.write_all(&chunk).is_ok() {
                            num_sent += chunk.len();
                        }
                    });
                    let mut told = Vec::new();
                    // Whoever sends on and on may be cut off once it could read its answer.
                    let _ = client.read_to_end(&mut told);
                    sending.join().unwrap();
                    String::from_utf8(told).unwrap()
                })
            })
            .collect();
        for client in clients {
            assert_refused(&client.join().unwrap(), 413, framing);
        }
        assert_answers(&server);
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("16 clients with a gigabyte each: {} MiB more", grown / MIB);
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_body_that_stops_coming_is_told_408() {
    let engine = open(script());
    let server = serve(&engine, |config| config.limits.body_timeout_ms = 200);
    let told = server.exchange((head(COMPLETIONS, "content-length: 50\r\n") + "{").as_bytes());
    assert_refused(&told, 408, "half a body");
    assert_answers(&server);
}

/// A PNG whose header claims this size; what it holds is cut off.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let crc = header.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    });
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &header[..], &(!crc).to_be_bytes()].concat()
}

fn shown(image: &[u8]) -> Vec<u8> {
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(image));
    let parts = json!([{"type": "image_url", "image_url": {"url": url}}]);
    json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 1}).to_string().into_bytes()
}

#[test]
fn images_that_would_not_fit_anywhere_are_refused_and_take_no_memory() {
    let engine = Engine::open(EngineOptions::new(model_dir("shapes"))).unwrap();
    let server = serve(&engine, |_| {});
    let circle = repository().join("models/shapes/examples");
    let circle = std::fs::read_dir(circle).unwrap().map(|entry| entry.unwrap().path());
    let real =
        circle.filter(|path| path.extension().is_some_and(|extension| extension == "png")).min().unwrap();
    let real = std::fs::read(real).unwrap();
    let see = || {
        let told = server.exchange(&last(CHAT, &shown(&real)));
        assert_eq!(status(&told), 200, "{told}");
    };
    see();
    let before = resident_bytes();
    let gif = [&b"GIF89a\xff\xff\xff\xff\0\0\0"[..], b",\0\0\0\0\xff\xff\xff\xff\0\x08\0;"].concat();
    let bmp = [
        &b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\xff\xff\xff\x7f\xff\xff\xff\x7f\x01\0\x18\0"[..],
        &[0; 24],
    ]
    .concat();
    let bombs = [
        ("a huge PNG", png(1_000_000, 1_000_000)),
        ("the largest PNG", png(u32::MAX >> 1, u32::MAX >> 1)),
        ("a PNG of no size", png(0, 0)),
        ("a PNG that is one line", png(0x7fff_ffff, 1)),
        ("a huge GIF", gif),
        ("a huge BMP", bmp),
        ("half an image", real[..real.len() / 2].to_vec()),
        ("no image", vec![7; 1000]),
        ("nothing", Vec::new()),
    ];
    for (what, bomb) in &bombs {
        for _ in 0..8 {
            assert_refused(&server.exchange(&last(CHAT, &shown(bomb))), 400, what);
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("{} bombs: {} MiB more", bombs.len() * 8, grown / MIB);
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
    see();
}

/// Bodies that are no JSON, or none that says what is asked.
fn malformed() -> Vec<Vec<u8>> {
    let texts = [
        "",
        " ",
        "null",
        "true",
        "0",
        "\"\"",
        "[]",
        "{}",
        "{",
        "}",
        "{\"",
        "{\"prompt\"",
        "{\"prompt\":",
        "{\"prompt\":}",
        "{\"prompt\":\"ab\"",
        "{\"prompt\":\"ab\",}",
        "{\"prompt\":\"ab\"}}",
        "{\"prompt\":\"ab\"} x",
        "{prompt:\"ab\"}",
        "{'prompt':'ab'}",
        "{\"prompt\":\"ab\",\"prompt\":\"ab\"}",
        "{\"prompt\":\"ab\" \"n\":1}",
        "\u{feff}{\"prompt\":\"ab\"}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"prompt\":\"\\udc00\\ud800\"}",
        "{\"prompt\":\"\\u12\"}",
        "{\"prompt\":\"\\x\"}",
        "{\"prompt\":\"a\nb\"}",
        "{\"prompt\":\"a\u{0}b\"}",
        "{\"prompt\":\"\\u0000\"}",
        "{\"prompt\":{}}",
        "{\"prompt\":[[[]]]}",
        "{\"prompt\":\"ab\",\"temperature\":NaN}",
        "{\"prompt\":\"ab\",\"temperature\":Infinity}",
        "{\"prompt\":\"ab\",\"temperature\":1e999}",
        "{\"prompt\":\"ab\",\"temperature\":-1}",
        "{\"prompt\":\"ab\",\"n\":1.5}",
        "{\"prompt\":\"ab\",\"max_tokens\":-1}",
        "{\"prompt\":\"ab\",\"max_tokens\":99999999999999999999999}",
        "{\"prompt\":\"ab\",\"max_tokens\":\"3\"}",
        "{\"prompt\":\"ab\",\"seed\":01}",
        "{\"prompt\":\"ab\",\"n\":+1}",
        "{\"prompt\":\"ab\",\"stop\":{}}",
        "{\"prompt\":\"ab\",\"logit_bias\":[]}",
        "{\"prompt\":\"ab\",\"stream\":\"yes\"}",
        "{\"prompt\":\"ab\",\"__proto__\":{}}",
        "{\"prompt\":\"ab\",\"\":1}",
        "<xml/>",
        "prompt=ab",
        "\u{7f}",
        "//{}",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend([
        b"\xff\xfe{\0}\0".to_vec(),
        b"{\"prompt\":\"\xff\"}".to_vec(),
        b"{\"prompt\":\"\xc0\xaf\"}".to_vec(),
    ]);
    all.push(vec![b'['; 200_000]);
    all.push([&b"{\"prompt\":"[..], &b"[".repeat(100_000), &b"]".repeat(100_000), b"}"].concat());
    all.push(b"{\"a\":".repeat(100_000));
    all.push([&b"{\"prompt\":\"ab\",\"seed\":"[..], &b"9".repeat(500_000), b"}"].concat());
    all.push([&b"{\"prompt\":\"ab\",\"user\":\""[..], &b"\\".repeat(500_001), b"\"}"].concat());
    all
}

#[test]
fn bodies_that_are_no_question_are_refused_and_change_nothing() {
    let engine = open(script());
    let server = serve(&engine, |_| {});
    for body in malformed() {
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_refused(&server.exchange(&last(COMPLETIONS, &body)), 400, &what);
    }
    assert_answers(&server);
}

#[test]
fn every_beginning_and_every_small_damage_of_a_question_is_answered_or_refused() {
    let engine = open(script());
    let server = serve(&engine, |_| {});
    let whole =
        question(json!({"max_tokens": 3, "stop": ["q"], "logit_bias": {"1": -1}, "user": "me", "n": 1}));
    let mut client = server.connect();
    for end in 0..whole.len() {
        client.write_all(&post(COMPLETIONS, &whole[..end], "")).unwrap();
        assert_eq!(status(&answer(&mut client).unwrap()), 400, "the first {end} bytes");
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..500 {
        let mut damaged = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % damaged.len();
            damaged[at] = (state >> 17) as u8;
        }
        client.write_all(&post(COMPLETIONS, &damaged, "")).unwrap();
        let told = answer(&mut client).unwrap();
        assert!([200, 400, 404].contains(&status(&told)), "{}: {told}", String::from_utf8_lossy(&damaged));
    }
    assert_answers(&server);
    wait_until("nothing is held", || is_free(&engine));
}

fn ask(server: &Running, fields: Value) -> TcpStream {
    let mut client = server.connect();
    client.write_all(&post(COMPLETIONS, &question(fields), "")).unwrap();
    client
}

/// How long a step of the model takes while a client goes: an answer would go on for a second and more.
const STEP: Duration = Duration::from_millis(5);
const LONG_ANSWER: [u8; 240] = [b'x'; 240];

/// A model with a long answer, held at every step.
fn slow() -> (Script, GateKeeper) {
    gated(Script::of(&[("ab", std::str::from_utf8(&LONG_ANSWER).unwrap())]))
}

/// Lets steps through until this holds: how long that took. It must not take all that there is to say.
fn step_until(keeper: &GateKeeper, holds: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    for _ in &LONG_ANSWER[10..] {
        keeper.let_pass(Permit::Answer);
        while started.elapsed() < PATIENCE {
            if holds() {
                return started.elapsed();
            }
            if keeper.fed.recv_timeout(STEP).is_ok() {
                thread::sleep(STEP);
                break;
            }
        }
    }
    panic!("the model has said it all to nobody");
}

fn is_free(engine: &Engine) -> bool {
    let stats = engine.stats();
    stats.num_leases + stats.num_running + stats.num_waiting == 0
}

/// Its client goes in the step behind so many others.
fn gone_after(num_steps: usize, fields: &Value) {
    let (script, keeper) = slow();
    let engine = open(script);
    let server = serve(&engine, |_| {});
    let client = ask(&server, fields.clone());
    for _ in 0..num_steps {
        keeper.wait().expect("a step");
        keeper.let_pass(Permit::Answer);
    }
    keeper.wait().expect("the step in which it goes");
    assert_eq!(engine.stats().num_running, 1);
    drop(client);
    let took = step_until(&keeper, || is_free(&engine));
    assert!(took <= GONE, "{took:?} after {num_steps} steps");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_client_that_goes_in_prefill_or_decode_frees_its_blocks_in_time() {
    for fields in [json!({"stream": true}), json!({"stream": false})] {
        for num_steps in [0, 1, 2] {
            gone_after(num_steps, &fields);
        }
    }
}

#[test]
fn a_client_that_goes_while_it_waits_leaves_the_queue_in_time() {
    let (script, keeper) = slow();
    let engine = open_with(script, |options| options.max_sequences = Some(1));
    let server = serve(&engine, |_| {});
    let mut first = ask(&server, json!({"max_tokens": 200}));
    keeper.wait().expect("a step of the first");
    let second = ask(&server, json!({"stream": true}));
    wait_until("the second waits", || engine.stats().num_waiting == 1);
    drop(second);
    let took = step_until(&keeper, || engine.stats().num_waiting == 0);
    assert!(took <= GONE, "{took:?}");
    drop(keeper);
    assert_eq!(json_of(&answer(&mut first).unwrap())["choices"][0]["text"].as_str().unwrap().len(), 200);
}

#[test]
fn hundreds_of_clients_that_go_anywhere_leave_nothing_behind() {
    let engine = open(script());
    let server = serve(&engine, |_| {});
    let request = post(COMPLETIONS, &question(json!({"stream": true})), "");
    thread::scope(|scope| {
        for first in 0..8 {
            let (server, request) = (&server, &request);
            scope.spawn(move || {
                for end in (first..request.len()).step_by(8).chain([request.len(); 20]) {
                    let mut client = server.connect();
                    client.write_all(&request[..end]).unwrap();
                    // A word of the answer, or none.
                    if end == request.len() {
                        client.read_exact(&mut [0; 12]).unwrap();
                    }
                }
            });
        }
    });
    wait_until("nothing is held", || is_free(&engine));
    assert_answers(&server);
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_order_to_stop_under_load_loses_no_answer_and_tells_the_rest_to_come_back() {
    let (script, keeper) = gated(script());
    let engine = open(script);
    let server = serve(&engine, |_| {});
    let mut held = ask(&server, json!({}));
    keeper.wait().expect("a step of the one that is held");
    let (num_early, num_late) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (address, shutdown) = (server.address, server.shutdown.clone());
    let early: Vec<TcpStream> = (0..32).map(|idx| ask(&server, json!({"stream": idx % 2 == 0}))).collect();
    // All are taken in: one runs, the others wait behind its step.
    wait_until("all are there", || {
        let stats = engine.stats();
        stats.num_running + stats.num_waiting == 33
    });
    shutdown.begin();
    thread::scope(|scope| {
        for mut client in early {
            scope.spawn(|| {
                let mut told = String::new();
                client.read_to_string(&mut told).unwrap();
                assert_eq!(status(&told), 200, "{told}");
                match told.contains("text/event-stream") {
                    true => assert!(told.contains("[DONE]"), "{told}"),
                    false => assert_eq!(json_of(&told)["choices"][0]["text"], "xyz"),
                }
                num_early.fetch_add(1, Ordering::SeqCst);
                drop(client);
            });
        }
        for _ in 0..16 {
            scope.spawn(|| {
                let client = TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let told = exchange(client, &post(COMPLETIONS, &question(json!({})), ""));
                assert_refused(&told, 503, "while it stops");
                assert!(told.contains("retry-after: "), "{told}");
                num_late.fetch_add(1, Ordering::SeqCst);
            });
        }
        wait_until("the late ones are told", || num_late.load(Ordering::SeqCst) == 16);
        assert_eq!(num_early.load(Ordering::SeqCst), 0);
        drop(keeper);
    });
    assert_eq!(json_of(&answer(&mut held).unwrap())["choices"][0]["text"], "xyz");
    assert_eq!(num_early.load(Ordering::SeqCst), 32);
    assert_eq!(server.stopped(), 0);
    wait_until("nothing is held", || is_free(&engine));
}
