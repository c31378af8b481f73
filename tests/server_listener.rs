//! The listener: connections, their time limits, clients that go away, and how a server stops.

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use pyrex_server::{Config, Shutdown};
use pyrex_tests::listener::{
    GONE, Guard, PATIENCE, Running, answer, config, endless, exchange, guard, status,
};
use pyrex_tests::resident_bytes;
use std::io::{Read, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const GET_LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// A router whose `/` says hello, and whose `/guarded` does this with a guard. What is received says that it has begun, and
/// when the guard was dropped.
fn guarded<F, R>(handle: fn(Guard) -> F) -> (Router, mpsc::Receiver<mpsc::Receiver<Instant>>)
where
    F: Future<Output = R> + Send + 'static,
    R: IntoResponse + 'static,
{
    let (begun, begins) = mpsc::channel();
    let handler = move || {
        let begun = begun.clone();
        async move {
            let (guard, end) = guard();
            begun.send(end).unwrap();
            handle(guard).await
        }
    };
    (hello().route("/guarded", get(handler)), begins)
}

async fn never(guard: Guard) -> &'static str {
    std::future::pending::<()>().await;
    drop(guard);
    "never"
}

async fn one_word(guard: Guard) -> Body {
    endless("word", guard)
}

/// Asks for `/guarded`, and waits until it has begun.
fn ask_guarded(
    server: &Running,
    begins: &mpsc::Receiver<mpsc::Receiver<Instant>>,
) -> (TcpStream, mpsc::Receiver<Instant>) {
    let mut client = server.connect();
    client.write_all(b"GET /guarded HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    (client, begins.recv_timeout(PATIENCE).unwrap())
}

fn assert_gone_in_time(left: Instant, end: &mpsc::Receiver<Instant>) {
    let ended = end.recv_timeout(PATIENCE).expect("what was done for the client ends");
    let took = ended.saturating_duration_since(left);
    assert!(took <= GONE, "it went on for {took:?}");
}

fn read_until(client: &mut TcpStream, word: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(word) {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = Running::start(&config(), hello());
    let mut client = server.connect();
    for _ in 0..3 {
        client.write_all(GET).unwrap();
        assert!(answer(&mut client).unwrap().ends_with("hello"));
    }
    // Several at once are answered in their order.
    client.write_all(&GET.repeat(5)).unwrap();
    for _ in 0..5 {
        assert!(answer(&mut client).unwrap().ends_with("hello"));
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_address_of_ipv6_is_served() {
    let server = Running::start(&Config { host: "::1".parse().unwrap(), ..config() }, hello());
    assert!(server.address.is_ipv6());
    server.assert_alive();
}

#[test]
fn a_port_that_is_taken_is_an_error_with_its_number() {
    let server = Running::start(&config(), hello());
    let taken = Config { port: server.address.port(), ..config() };
    let bound = tokio::runtime::Runtime::new().unwrap().block_on(pyrex_server::Server::bind(&taken, hello()));
    let message = bound.err().expect("the port is taken").to_string();
    assert!(message.contains(&server.address.to_string()), "{message}");
}

#[test]
fn a_client_that_goes_before_the_first_byte_ends_its_request() {
    let (router, begins) = guarded(never);
    let server = Running::start(&config(), router);
    let (client, end) = ask_guarded(&server, &begins);
    let left = Instant::now();
    drop(client);
    assert_gone_in_time(left, &end);
    server.assert_alive();
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_answer_ends_its_request() {
    let (router, begins) = guarded(one_word);
    let server = Running::start(&config(), router);
    let (mut client, end) = ask_guarded(&server, &begins);
    read_until(&mut client, "word");
    let left = Instant::now();
    drop(client);
    assert_gone_in_time(left, &end);
    server.assert_alive();
}

#[test]
fn a_client_that_closes_its_half_counts_as_gone() {
    let (router, begins) = guarded(never);
    let server = Running::start(&config(), router);
    let (mut client, end) = ask_guarded(&server, &begins);
    let left = Instant::now();
    client.shutdown(Half::Write).unwrap();
    assert_gone_in_time(left, &end);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    // The same before it has asked anything.
    let mut silent = server.connect();
    silent.shutdown(Half::Write).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    server.assert_alive();
}

#[test]
fn a_client_that_reads_nothing_is_closed() {
    let mut config = config();
    config.limits.stall_timeout_ms = 200;
    let (sender, receiver) = mpsc::channel();
    let flood = move || {
        let (guard, end) = guard();
        sender.send(end).unwrap();
        async move {
            let page = vec![b'x'; 64 * 1024];
            Body::from_stream(futures_util::stream::repeat_with(move || {
                let _held = &guard;
                Ok::<_, std::io::Error>(page.clone())
            }))
        }
    };
    let server = Running::start(&config, hello().route("/guarded", get(flood)));
    let (client, end) = ask_guarded(&server, &receiver);
    end.recv_timeout(PATIENCE).expect("an answer that nobody reads ends");
    drop(client);
    server.assert_alive();
}

#[test]
fn a_slow_head_is_told_408_while_others_are_served() {
    let mut config = config();
    config.limits.header_timeout_ms = 300;
    let server = Running::start(&config, hello());
    let mut slow = server.connect();
    let begun = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    server.assert_alive();
    let mut told = Vec::new();
    let mut reader = slow.try_clone().unwrap();
    let reading = thread::spawn(move || {
        reader.read_to_end(&mut told).unwrap();
        String::from_utf8(told).unwrap()
    });
    // A byte now and then changes nothing.
    while slow.write_all(b"a").is_ok() && begun.elapsed() < PATIENCE && !reading.is_finished() {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status(&reading.join().unwrap()), 408);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    server.assert_alive();
}

#[test]
fn a_connection_without_a_request_is_closed_after_a_while() {
    let mut config = config();
    config.limits.idle_timeout_ms = 300;
    let server = Running::start(&config, hello());
    let mut silent = server.connect();
    let mut kept = server.connect();
    kept.write_all(GET).unwrap();
    assert!(answer(&mut kept).unwrap().ends_with("hello"));
    for client in [&mut silent, &mut kept] {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn an_answer_may_take_longer_than_any_other_limit() {
    let mut config = config();
    let limits = &mut config.limits;
    limits.idle_timeout_ms = 100;
    limits.header_timeout_ms = 100;
    limits.stall_timeout_ms = 100;
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        "hello"
    };
    let server = Running::start(&config, Router::new().route("/", get(slow)));
    server.assert_alive();
}

#[test]
fn one_connection_too_many_is_told_503_until_another_closes() {
    let mut config = config();
    config.limits.max_connections = 2;
    let server = Running::start(&config, hello());
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(GET).unwrap();
        assert!(answer(client).unwrap().ends_with("hello"));
    }
    let told = exchange(server.connect(), b"");
    assert_eq!(status(&told), 503);
    assert!(told.contains("retry-after: 1\r\n"), "{told}");
    clients.pop();
    let started = Instant::now();
    while !server.exchange(GET_LAST).ends_with("hello") {
        assert!(started.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

/// How many connections this process can have both ends of.
fn num_possible() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let most: usize = files.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    (most.saturating_sub(300) / 2).min(10_000)
}

/// A server's share of a connection that says nothing: its task, its socket's registration. Of one that has asked before, also
/// the buffers of HTTP. The client's socket is in this process too.
const IDLE_BYTES: usize = 8 * 1024;
const KEPT_BYTES: usize = 24 * 1024;

#[test]
fn thousands_of_idle_connections_cost_little_and_harm_nobody() {
    let server = Running::start(&config(), hello());
    server.assert_alive();
    let num = num_possible();
    let before = resident_bytes();
    let mut clients: Vec<TcpStream> = (0..num).map(|_| server.connect()).collect();
    server.assert_alive();
    let idle = resident_bytes().saturating_sub(before) / num;
    for client in &mut clients {
        client.write_all(GET).unwrap();
        assert!(answer(client).unwrap().ends_with("hello"));
    }
    let kept = resident_bytes().saturating_sub(before) / num;
    println!("{num} connections: {idle} bytes for each idle one, {kept} for each kept one");
    assert!(idle <= IDLE_BYTES, "{idle} bytes for an idle connection");
    assert!(kept <= KEPT_BYTES, "{kept} bytes for a kept connection");
    let started = Instant::now();
    server.assert_alive();
    assert!(started.elapsed() < Duration::from_secs(1), "an answer took {:?}", started.elapsed());
    drop(clients);
    // What the first round took serves the next ones.
    let first = resident_bytes();
    for _ in 0..2 {
        let clients: Vec<TcpStream> = (0..num).map(|_| server.connect()).collect();
        server.assert_alive();
        drop(clients);
    }
    let grown = resident_bytes().saturating_sub(first) / num;
    assert!(grown <= IDLE_BYTES / 4, "{grown} bytes more for each connection of later rounds");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_panic_ends_its_own_connection() {
    async fn fail() {
        panic!("as the test wants");
    }
    let server = Running::start(&config(), hello().route("/panic", get(fail)));
    let mut other = server.connect();
    other.write_all(GET).unwrap();
    answer(&mut other).unwrap();
    assert_eq!(server.exchange(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n"), "");
    other.write_all(GET).unwrap();
    assert!(answer(&mut other).unwrap().ends_with("hello"));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_request_under_way_is_answered_while_new_ones_are_told_to_come_back() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let held = Arc::new(Mutex::new(Some((released, begun))));
    let handler = |shutdown: Shutdown| {
        move || async move {
            if shutdown.is_begun() {
                return (StatusCode::SERVICE_UNAVAILABLE, "later");
            }
            let (released, begun) = held.lock().unwrap().take().unwrap();
            begun.send(()).unwrap();
            released.await.unwrap();
            (StatusCode::OK, "hello")
        }
    };
    let server =
        Running::start_with(&config(), |_, shutdown| Router::new().route("/", get(handler(shutdown))));
    let (mut early, mut kept, mut silent) = (server.connect(), server.connect(), server.connect());
    early.write_all(GET).unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    server.shutdown.begin();
    for client in [&mut kept, &mut server.connect()] {
        client.write_all(GET).unwrap();
        let told = answer(client).unwrap();
        assert_eq!(status(&told), 503);
        assert!(told.contains("connection: close"), "{told}");
    }
    release.send(()).unwrap();
    assert!(answer(&mut early).unwrap().ends_with("hello"));
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let address = server.address;
    assert_eq!(server.stopped(), 0);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn stopping_under_load_loses_no_request_that_was_accepted() {
    let (accepted, answered) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let count = accepted.clone();
    let handler = |shutdown: Shutdown| {
        move || {
            let (count, shutdown) = (count.clone(), shutdown.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                if shutdown.is_begun() {
                    return (StatusCode::SERVICE_UNAVAILABLE, "later");
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                (StatusCode::OK, "hello")
            }
        }
    };
    let server =
        Running::start_with(&config(), |_, shutdown| Router::new().route("/", get(handler(shutdown))));
    let (address, shutdown) = (server.address, server.shutdown.clone());
    let ask_on = || {
        let Ok(mut client) = TcpStream::connect(address) else { return false };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // A connection is used until it is closed, as clients do.
        while client.write_all(GET).is_ok() {
            let Ok(told) = answer(&mut client) else { break };
            answered.fetch_add(1, Ordering::SeqCst);
            assert!(told.ends_with("hello") || status(&told) == 503, "{told}");
        }
        true
    };
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| while ask_on() {});
        }
        let started = Instant::now();
        while answered.load(Ordering::SeqCst) < 500 {
            assert!(started.elapsed() < PATIENCE);
            thread::yield_now();
        }
        shutdown.begin();
        assert_eq!(server.stopped(), 0);
    });
    assert_eq!(answered.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst));
}

#[test]
fn what_does_not_end_in_time_is_cut_off_and_counted() {
    let mut config = config();
    config.limits.drain_timeout_ms = 200;
    let (router, begins) = guarded(never);
    let server = Running::start(&config, router);
    let (mut client, end) = ask_guarded(&server, &begins);
    assert_eq!(server.stop(), 1);
    end.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_second_order_to_stop_ends_everything_at_once() {
    let (router, begins) = guarded(one_word);
    let server = Running::start(&config(), router);
    let (_client, end) = ask_guarded(&server, &begins);
    let _silent = server.connect();
    server.shutdown.begin();
    server.shutdown.cut();
    assert_eq!(server.stopped(), 1);
    end.recv_timeout(PATIENCE).unwrap();
}
