//! What HTTP costs: `cargo bench --workspace --bench server`.
//!
//! On the scripted model, whose steps are almost free, 64 clients ask at once: the engine itself, the router without
//! sockets, and the server over loopback, in turns. The differences are what the router and the sockets cost; the client's
//! own work is in the last, for it runs on the same cores. The same client asks a bare axum handler too, which reads a body of
//! the same length and answers one of the same length: what it takes and how often it answers is the bound of this machine.
//! Last the memory of a server that has answered and is idle, over that of the bundled model's engine alone. `-- --quick` asks
//! a tenth, to see that it runs.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use pyrex_core::models::scripted::Script;
use pyrex_core::{Engine, EngineOptions, KvCacheSize, Prompt, Request, SamplingParams};
use pyrex_server::{Config, Server, Shutdown};
use pyrex_tests::http::{post as post_to, site};
use pyrex_tests::scripted::open_with;
use pyrex_tests::{model_dir, resident_bytes};
use serde_json::json;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tower::ServiceExt;

const NUM_CLIENTS: usize = 64;
const NUM_TOKENS: usize = 64;
const NUM_ROUNDS: usize = 5;
/// Requests of one client in one round.
const NUM_STREAMS: usize = 20;
const NUM_SHORT: usize = 300;
const PATH: &str = "/v1/completions";

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let engine = scripted();
    let long = Question::new(NUM_TOKENS, true);
    let short = Question::new(1, false);
    let server = runtime.block_on(serve(engine.clone()));
    let echo = runtime.block_on(echo(long_enough(&runtime, server, &short)));
    let quick = std::env::args().any(|argument| argument == "--quick");
    let share = if quick { 10 } else { 1 };
    let (num_streams, num_short) = (NUM_STREAMS / share, NUM_SHORT / share);
    let round = || Round {
        num_streams,
        num_short,
        long: runtime.block_on(three_ways(&engine, server, &long, num_streams)),
        short: runtime.block_on(three_ways(&engine, server, &short, num_short)),
        echo: runtime.block_on(over_sockets(echo, &short, num_short)),
    };
    let rounds: Vec<Round> = (0..if quick { 1 } else { NUM_ROUNDS }).map(|_| round()).collect();
    report(&rounds);
    runtime.block_on(memory());
}

struct Round {
    num_streams: usize,
    num_short: usize,
    long: [Measured; 3],
    short: [Measured; 3],
    echo: Measured,
}

/// What all clients together took, and the median of what one request took.
struct Measured {
    all: Duration,
    median: Duration,
}

/// A completion to ask for, in each of the forms that it is asked in.
struct Question {
    request: Request,
    body: serde_json::Value,
    message: Vec<u8>,
}

impl Question {
    fn new(num_tokens: usize, stream: bool) -> Self {
        let sampling = SamplingParams { max_tokens: Some(num_tokens), ..SamplingParams::default() };
        let body = json!({"prompt": "ask", "temperature": 0, "max_tokens": num_tokens, "stream": stream});
        let text = body.to_string();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        Self {
            request: Request::new(Prompt::Text("ask".to_owned())).with_sampling(sampling),
            body,
            message: (head + &text).into_bytes(),
        }
    }
}

/// An engine whose answers are long enough, with a cache as large as 64 of them: the scripted model reads all of it in each step.
fn scripted() -> Engine {
    let answer = "a".repeat(2 * NUM_TOKENS);
    open_with(Script::of(&[("ask", &answer)]), |options: &mut EngineOptions| {
        options.max_sequences = Some(NUM_CLIENTS);
        options.max_model_len = Some(96);
        options.kv_cache = KvCacheSize::Bytes(NUM_CLIENTS * 96 * 16);
    })
}

async fn serve(engine: Engine) -> SocketAddr {
    let config = Config { port: 0, ..Config::default() };
    let server = Server::bind(&config, site(engine, |_| {}).router).await.expect("a server");
    let address = server.local_addr();
    tokio::spawn(server.serve(Shutdown::new()));
    address
}

/// The length of the server's answer to a short question.
fn long_enough(runtime: &Runtime, server: SocketAddr, question: &Question) -> usize {
    runtime.block_on(async {
        let mut stream = TcpStream::connect(server).await.expect("a connection");
        stream.write_all(&question.message).await.expect("a request");
        let mut buffer = Vec::new();
        read_answer(&mut stream, &mut buffer).await;
        let head_len = head_len(&buffer).expect("a head");
        buffer.len() - head_len
    })
}

/// A handler that does nothing but read and answer.
async fn echo(len: usize) -> SocketAddr {
    let answer = Bytes::from(vec![b'x'; len]);
    let handler = async move |body: Bytes| {
        black_box(body.len());
        ([(CONTENT_TYPE, "application/json")], answer.clone())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route(PATH, post(handler));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    address
}

/// The engine itself, the router, the server.
async fn three_ways(engine: &Engine, server: SocketAddr, question: &Question, num: usize) -> [Measured; 3] {
    let router = site(engine.clone(), |_| {}).router;
    let direct = clients(num, async || {
        let handle = engine.submit(question.request.clone()).expect("the engine takes it");
        handle.into_stream().for_each(async |event| drop(black_box(event))).await;
    });
    let direct = direct.await;
    let routed = clients(num, async || {
        let answer = router.clone().oneshot(post_to(PATH, &question.body)).await.expect("an answer");
        let mut body: Body = answer.into_body();
        while let Some(frame) = body.frame().await {
            drop(black_box(frame.expect("a frame")));
        }
    });
    [direct, routed.await, over_sockets(server, question, num).await]
}

/// As many clients as there are, each asking so often.
async fn clients(num: usize, ask: impl AsyncFn()) -> Measured {
    let started = Instant::now();
    let client = async || {
        let mut took = Vec::with_capacity(num);
        for _ in 0..num {
            let began = Instant::now();
            ask().await;
            took.push(began.elapsed());
        }
        took
    };
    let took = join_all((0..NUM_CLIENTS).map(|_| client())).await;
    measured(started.elapsed(), took.concat())
}

async fn over_sockets(server: SocketAddr, question: &Question, num: usize) -> Measured {
    let client = async |message: Vec<u8>| {
        let mut stream = TcpStream::connect(server).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let (mut took, mut buffer) = (Vec::with_capacity(num), Vec::new());
        for _ in 0..num {
            let began = Instant::now();
            stream.write_all(&message).await.expect("a request");
            read_answer(&mut stream, &mut buffer).await;
            took.push(began.elapsed());
        }
        took
    };
    let started = Instant::now();
    let took = join_all((0..NUM_CLIENTS).map(|_| client(question.message.clone()))).await;
    measured(started.elapsed(), took.concat())
}

fn measured(all: Duration, mut took: Vec<Duration>) -> Measured {
    took.sort_unstable();
    Measured { all, median: took[took.len() / 2] }
}

/// Reads one answer, of a length that is told or in chunks.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    loop {
        let num_read = stream.read_buf(buffer).await.expect("an answer");
        assert!(num_read > 0, "the server closed");
        let Some(head_len) = head_len(buffer) else { continue };
        let head = std::str::from_utf8(&buffer[..head_len]).expect("a head of text");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let len = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let is_whole = match len {
            Some(len) => buffer.len() == head_len + len.parse::<usize>().expect("a length"),
            None => buffer.ends_with(b"\r\n0\r\n\r\n"),
        };
        if is_whole {
            return;
        }
    }
}

fn head_len(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn report(rounds: &[Round]) {
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let num_tokens = |round: &Round| (NUM_CLIENTS * round.num_streams * NUM_TOKENS) as f64;
    let token_us = |way: usize| of(&|round| round.long[way].all.as_secs_f64() * 1e6 / num_tokens(round));
    println!("{NUM_CLIENTS} clients, answers of {NUM_TOKENS} tokens, streamed: wall time of a token, µs");
    println!("  the engine         {:9.2}", token_us(0));
    println!("  the router adds    {:9.2}", token_us(1) - token_us(0));
    println!("  the server adds    {:9.2}", token_us(2) - token_us(0));
    let request_ms = |way: usize| of(&|round| round.short[way].median.as_secs_f64() * 1e3);
    println!("{NUM_CLIENTS} clients, answers of one token: median of a request, ms");
    println!("  the engine         {:9.3}", request_ms(0));
    println!("  the router adds    {:9.3}", request_ms(1) - request_ms(0));
    println!("  the server adds    {:9.3}", request_ms(2) - request_ms(0));
    println!("  bare axum, in all  {:9.3}", of(&|round| round.echo.median.as_secs_f64() * 1e3));
    let rate = |round: &Round, all: Duration| (NUM_CLIENTS * round.num_short) as f64 / all.as_secs_f64();
    let (ours, echo) =
        (of(&|round| rate(round, round.short[2].all)), of(&|round| rate(round, round.echo.all)));
    println!("answers of one token per second");
    println!("  the engine         {:9.0}", of(&|round| rate(round, round.short[0].all)));
    println!("  the server         {ours:9.0}");
    println!("  bare axum          {echo:9.0}");
    println!("  the server, % of it{:9.1}", ours / echo * 100.0);
}

/// What an idle server holds beside its engine.
async fn memory() {
    let engine = Engine::open(EngineOptions::new(model_dir("shapes"))).expect("the bundled model opens");
    let question = Question::new(1, false);
    engine.submit(question.request.clone()).expect("a request").wait().expect("an answer");
    let before = resident_mib();
    let server = serve(engine).await;
    over_sockets(server, &question, 1).await;
    println!("an idle server beside its engine, MiB {:9.1}", resident_mib() - before);
}

fn resident_mib() -> f64 {
    resident_bytes() as f64 / f64::from(1 << 20)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
