//! The server's routes, without a connection: on the scripted model, held where a test wants it, and on bundled ones.

use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use pyrex_core::models::scripted::{GateKeeper, Permit, Script};
use pyrex_core::{Engine, EngineOptions, Error, Event as EngineEvent, FinishReason, Timings, Usage};
use pyrex_server::{Accepted, Arrival, Config, Host, Rejected, TenantConfig};
use pyrex_tests::http::{Answered, Site, get, post, read, site, site_of, with_header};
use pyrex_tests::scripted::{gated, open, open_with, submit, text, wait_until};
use pyrex_tests::{model_dir, red_circle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
/// A prompt that is quite a bit longer than two blocks of the cache.
const LONG: &str = "a prompt that is quite a bit longer than two blocks of the cache";

fn script() -> Script {
    Script::of(&[("ab", "xyz"), (LONG, "ok")])
}

fn scripted() -> Site {
    site(open(script()), |_| {})
}

/// A site whose model waits at every step.
fn held(change: impl FnOnce(&mut EngineOptions)) -> (Site, GateKeeper) {
    let (script, keeper) = gated(script());
    (site(open_with(script, change), |_| {}), keeper)
}

fn chat(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": prompt}], "temperature": 0})
}

fn completion(prompt: &str) -> Value {
    json!({"prompt": prompt, "temperature": 0})
}

fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    body
}

/// What a streamed answer says, put together.
fn said(events: &[Value]) -> String {
    let piece = |event: &Value| {
        let choice = &event["choices"][0];
        let piece = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        piece.unwrap_or_default().to_owned()
    };
    events.iter().map(piece).collect()
}

async fn next_frame(response: &mut Response) -> String {
    let frame = response.body_mut().frame().await.expect("a frame").expect("no error");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

/// A runtime of its own with the router on it, so that a test can wait for the gate meanwhile.
fn begin(site: &Site, request: Request<Body>) -> tokio::task::JoinHandle<Response> {
    let router = site.router.clone();
    tokio::spawn(async move { tower::ServiceExt::oneshot(router, request).await.expect("a router answers") })
}

/// Waits until the engine holds nothing any more, and returns how long that took.
fn until_free(engine: &Engine) -> Duration {
    let started = Instant::now();
    wait_until("nothing is held", || {
        let stats = engine.stats();
        stats.num_leases == 0 && stats.num_waiting == 0 && stats.num_running == 0
    });
    let stats = engine.stats();
    assert_eq!(stats.num_free_blocks, stats.num_blocks, "{stats:?}");
    started.elapsed()
}

#[tokio::test]
async fn both_older_endpoints_say_streamed_what_they_say_whole() {
    let site = scripted();
    for (path, body, whole_at) in
        [(CHAT, chat("ab"), "/choices/0/message/content"), (COMPLETIONS, completion("ab"), "/choices/0/text")]
    {
        let whole = site.send(post(path, &body)).await;
        assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/json")));
        assert_eq!(whole.json().pointer(whole_at), Some(&json!("xyz")), "{}", whole.text());
        let usage = json!({"stream": true, "stream_options": {"include_usage": true}});
        let streamed = site.send(post(path, &with(body, usage))).await;
        assert_eq!(streamed.header("cache-control"), Some("no-cache"));
        assert_eq!(streamed.header("x-accel-buffering"), Some("no"));
        let events = streamed.events();
        assert_eq!(said(&events), "xyz", "{path}");
        let usage = &events.last().expect("usage")["usage"];
        assert_eq!(usage["completion_tokens"], whole.json()["usage"]["completion_tokens"], "{path}");
    }
}

#[tokio::test]
async fn responses_say_streamed_what_they_say_whole() {
    let site = scripted();
    let body = json!({"input": "ab", "temperature": 0});
    let whole = site.send(post(RESPONSES, &body)).await.json();
    let text = whole.pointer("/output/0/content/0/text");
    assert_eq!((text, &whole["status"]), (Some(&json!("xyz")), &json!("completed")), "{whole}");
    let streamed = site.send(post(RESPONSES, &with(body, json!({"stream": true})))).await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    let data = streamed.text().lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data
        .map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
        .collect();
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let said: String = deltas.map(|event| event["delta"].as_str().expect("a text")).collect();
    assert_eq!(
        (said.as_str(), &events.last().expect("an end")["type"]),
        ("xyz", &json!("response.completed"))
    );
}

#[tokio::test]
async fn text_becomes_tokens_and_tokens_text() {
    let site = scripted();
    let tokens = site.send(post("/tokenize", &json!({"prompt": "ab"}))).await.json();
    assert_eq!((&tokens["tokens"], &tokens["count"]), (&json!([97, 98]), &json!(2)));
    let turns = json!({"messages": [{"role": "user", "content": "ab"}]});
    assert_eq!(site.send(post("/tokenize", &turns)).await.json()["tokens"], json!([97, 98]));
    let said = site.send(post("/detokenize", &json!({"tokens": [97, 98]}))).await;
    assert_eq!(said.json()["prompt"], "ab");
    let refused = site.send(post("/detokenize", &json!({"tokens": [97, 5000]}))).await;
    assert_eq!((refused.error().0, refused.error().2.as_deref()), (400, Some("tokens[1]")));
    for path in ["/tokenize", "/detokenize"] {
        let other = with(json!({"prompt": "ab"}), json!({"model": "gpt-4o"}));
        let other = if path == "/tokenize" { other } else { json!({"tokens": [97], "model": "gpt-4o"}) };
        assert_eq!(site.send(post(path, &other)).await.error().0, 404, "{path}");
        assert_eq!(site.send(post(path, &json!({"colour": 1}))).await.error().0, 400, "{path}");
    }
}

/// Calls `see` with everything that stands below a name in JSON.
fn each(value: &Value, name: &str, see: &mut dyn FnMut(&Value)) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(found, value)| {
            if found == name {
                see(value);
            }
            each(value, name, see);
        }),
        Value::Array(items) => items.iter().for_each(|item| each(item, name, see)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_of_the_api_names_every_path_and_nothing_that_is_not_there() {
    let site = scripted();
    let document = site.send(get("/openapi.json")).await.json();
    each(&document, "$ref", &mut |reference| {
        let path = reference.as_str().expect("a reference").strip_prefix('#').expect("one of its own");
        assert!(document.pointer(path).is_some(), "{path} is not there");
    });
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 14);
    for (path, item) in paths {
        let (method, operation) = item.as_object().and_then(|item| item.iter().next()).expect("a method");
        let at = path.replace("{id}", "shapes");
        let request = if method == "get" { get(&at) } else { post(&at, &json!({"nothing": "known"})) };
        let answered = site.send(request).await;
        let response = &operation["responses"][answered.status.to_string()];
        assert!(response.is_object(), "{path}: {} is not in the document", answered.status);
        let media_type = answered.header("content-type").expect("a type").split(';').next().expect("a type");
        assert!(response["content"][media_type].is_object(), "{path}: {media_type} is not in the document");
        assert!(!site.send(get("/metrics")).await.text().contains("endpoint=\"other\""), "{path}");
    }
    assert!(document["components"]["securitySchemes"].is_null());
    let keyed = with_tenants(open(script()), "openapi").send(get("/openapi.json")).await.json();
    assert_eq!(keyed["paths"][CHAT]["post"]["security"], json!([{"key": []}]));
    assert!(keyed["paths"]["/health/live"]["get"]["security"].is_null());
}

/// What the log says of requests, in lines of `name=value`, and the spans that it opened.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        self.0.lock().unwrap().push(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, record: &Record<'_>) {
        let mut line = Line("record".to_owned());
        record.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn each_request_is_one_line_of_the_log_without_what_was_said_or_the_key() {
    // The process's own, for what other threads do first decides what a thread's own is told.
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).expect("no other test has one");
    let site = with_tenants(open(Script::of(&[("a secret", "told you")])), "log");
    let body = with(chat("a secret"), json!({"user": "a secret", "cache_salt": "a secret"}));
    site.send(with_header(of("ann", post(CHAT, &body)), "x-request-id", "this-one")).await;
    site.send(with_header(get("/a/secret/path?secret"), "x-request-id", "this-other")).await;
    let all = lines.0.lock().unwrap().clone();
    let about = |start: &str, id: &str| {
        let id = format!("request_id=\"{id}\"");
        let mut lines = all.iter().filter(|line| line.starts_with(start) && line.contains(&id));
        let line = lines.next().unwrap_or_else(|| panic!("no {start} of {id}"));
        assert_eq!(lines.next(), None);
        assert!(!["secret", "told", "0123456789"].iter().any(|word| line.contains(word)), "{line}");
        line
    };
    let answered = about("pyrex_server::access", "this-one");
    for told in [
        "method=\"POST\"",
        "path=\"/v1/chat/completions\"",
        "status=200",
        "tenant=\"ann\"",
        "prompt_tokens=8",
        "completion_tokens=9",
        "ttft_ms=",
        "duration_ms=",
        "outcome=\"ok\"",
    ] {
        assert!(answered.contains(told), "{told} is not in {answered}");
    }
    let refused = about("pyrex_server::access", "this-other");
    assert!(refused.contains("path=\"other\"") && refused.contains("status=404"), "{refused}");
    let span = about("span http", "this-one");
    assert!(
        span.contains("otel.name=POST /v1/chat/completions") && span.contains("otel.kind=\"server\""),
        "{span}"
    );
}

#[tokio::test]
async fn the_model_is_listed_by_its_name() {
    let site = scripted();
    let list = site.send(get("/v1/models")).await.json();
    assert_eq!((&list["data"][0]["id"], list["data"].as_array().map(Vec::len)), (&json!("shapes"), Some(1)));
    assert_eq!(site.send(get("/v1/models/shapes")).await.json(), list["data"][0]);
    let other = site.send(get("/v1/models/gpt-4o")).await;
    assert_eq!(other.error(), (404, "model_not_found".to_owned(), Some("model".to_owned())));
}

#[tokio::test]
async fn only_the_model_that_is_served_answers() {
    let site = scripted();
    let named = site.send(post(CHAT, &with(chat("ab"), json!({"model": "shapes"})))).await;
    assert_eq!((named.status, &named.json()["model"]), (200, &json!("shapes")));
    let other = site.send(post(CHAT, &with(chat("ab"), json!({"model": "gpt-4o"})))).await;
    assert_eq!(other.error(), (404, "model_not_found".to_owned(), Some("model".to_owned())));
    assert!(other.message().contains("\"gpt-4o\"") && other.message().contains("\"shapes\""));
}

#[tokio::test]
async fn embeddings_are_refused_as_what_this_model_has_not() {
    let refused = scripted().send(post("/v1/embeddings", &json!({"input": "ab"}))).await;
    assert_eq!(refused.error(), (404, "not_supported_by_model".to_owned(), None));
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_by_its_field() {
    let site = scripted();
    for (body, param) in [
        (with(chat("ab"), json!({"temperature": "hot"})), Some("temperature")),
        (with(chat("ab"), json!({"colour": "red"})), Some("colour")),
        (json!({"messages": [{"role": "user", "content": 7}]}), Some("messages[0].content")),
        (json!([]), None),
    ] {
        let refused = site.send(post(CHAT, &body)).await;
        let (status, _, found) = refused.error();
        assert_eq!((status, found.as_deref()), (400, param), "{body}");
    }
    let broken = with_header(post(CHAT, &Value::Null), "content-type", "application/json");
    let broken = broken.map(|_| Body::from("{\"messages\": ["));
    assert_eq!(site.send(broken).await.error().0, 400);
}

/// The engine finds what is wrong with this prompt only later, when a stream could have begun.
#[tokio::test]
async fn a_stream_of_a_prompt_that_cannot_be_read_is_a_plain_error() {
    let refused = scripted().send(post(CHAT, &with(chat("a\0b"), json!({"stream": true})))).await;
    assert_eq!(refused.error().0, 400);
    assert!(refused.message().contains("NUL"), "{}", refused.text());
}

#[tokio::test]
async fn only_json_is_read() {
    let site = scripted();
    for (content_type, status) in [
        (Some("application/json; charset=utf-8"), 200),
        (Some("APPLICATION/JSON"), 200),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (None, 415),
    ] {
        let mut request = post(CHAT, &chat("ab"));
        request.headers_mut().remove("content-type");
        let request = match content_type {
            Some(content_type) => with_header(request, "content-type", content_type),
            None => request,
        };
        assert_eq!(site.send(request).await.status, status, "{content_type:?}");
    }
    let zipped = with_header(post(CHAT, &chat("ab")), "content-encoding", "gzip");
    assert_eq!(site.send(zipped).await.error().0, 415);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let site = site(open(script()), |config| config.limits.max_body_bytes = 100);
    let announced = with_header(post(CHAT, &Value::Null), "content-length", "101");
    // Whoever reads this body fails.
    let unread = futures_util::stream::once(async { Err::<&[u8], _>(std::io::Error::other("it was read")) });
    let refused = site.send(announced.map(|_| Body::from_stream(unread))).await;
    assert_eq!(refused.error(), (413, "body_too_large".to_owned(), None));
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 60]));
    let refused = site.send(post(CHAT, &Value::Null).map(|_| Body::from_stream(endless))).await;
    assert_eq!(refused.error(), (413, "body_too_large".to_owned(), None));
    let broken = futures_util::stream::once(async { Err::<&[u8], _>(std::io::Error::other("gone")) });
    let refused = site.send(post(CHAT, &Value::Null).map(|_| Body::from_stream(broken))).await;
    assert_eq!(refused.error(), (400, "body_broken".to_owned(), None));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let refused = site(open(script()), |config| config.limits.body_timeout_ms = 1)
        .send(post(CHAT, &Value::Null).map(|_| Body::from_stream(never)))
        .await;
    assert_eq!(refused.error(), (408, "body_timeout".to_owned(), None));
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_told_apart() {
    let site = scripted();
    assert_eq!(site.send(get("/v2/models")).await.error(), (404, "not_found".to_owned(), None));
    let wrong = site.send(get(CHAT)).await;
    assert_eq!(wrong.error(), (405, "method_not_allowed".to_owned(), None));
    assert_eq!(wrong.header("allow"), Some("POST"));
    let wrong = site.send(post("/v1/models", &json!({}))).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET,HEAD")));
    let request = |method, path: &str| {
        Request::builder().method(method).uri(path).body(Body::empty()).expect("a request")
    };
    let asked = site.send(request(Method::OPTIONS, CHAT)).await;
    assert_eq!((asked.status, asked.header("allow")), (204, Some("POST")));
    let head = site.send(request(Method::HEAD, "/v1/models")).await;
    let whole = site.send(get("/v1/models")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), whole.header("content-length"));
}

#[tokio::test]
async fn a_request_has_one_name_everywhere() {
    let site = scripted();
    let named = site.send(with_header(post(CHAT, &chat("ab")), "x-request-id", "mine-1.a_B")).await;
    assert_eq!(named.header("x-request-id"), Some("mine-1.a_B"));
    assert_eq!(named.json()["id"], "chatcmpl-mine-1.a_B");
    let mut seen = BTreeSet::new();
    for insane in ["", "a b", "a\"b", &"x".repeat(129), "é"] {
        let request = with_header(post(CHAT, &chat("ab")), "x-request-id", insane);
        let answered = site.send(request).await;
        let id = answered.header("x-request-id").expect("an id").to_owned();
        assert_eq!(answered.json()["id"], format!("chatcmpl-{id}"));
        assert_ne!(id, insane);
        assert!(seen.insert(id), "the same id again");
    }
    let refused = site.send(with_header(get("/nowhere"), "x-request-id", "lost")).await;
    assert_eq!(refused.header("x-request-id"), Some("lost"));
}

#[tokio::test]
async fn every_answer_says_not_to_guess_what_it_is() {
    let site = scripted();
    for request in [get("/"), get("/nowhere"), get("/health/live"), post(CHAT, &chat("ab"))] {
        let answered = site.send(request).await;
        assert_eq!(answered.header("x-content-type-options"), Some("nosniff"));
        assert!(answered.header("server").is_some_and(|server| server.starts_with("pyrex/")));
    }
}

/// Held at the gate in each phase, its client goes; then the step that runs is let through.
async fn gone_in_phase(num_steps: usize) {
    let (site, keeper) = held(|_| {});
    let asked = begin(&site, post(CHAT, &with(chat("ab"), json!({"stream": true}))));
    for _ in 0..num_steps {
        keeper.wait().expect("a step");
        keeper.let_pass(Permit::Answer);
    }
    keeper.wait().expect("the step in which it goes");
    match num_steps {
        0 => {
            asked.abort();
            assert!(asked.await.is_err());
        }
        _ => drop(asked.await.expect("a response")),
    }
    keeper.let_pass(Permit::Answer);
    let took = until_free(&site.engine);
    assert!(took < Duration::from_millis(100), "{took:?} after {num_steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_its_prompt_is_read_frees_its_blocks_within_100_ms() {
    gone_in_phase(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_its_answer_is_written_frees_its_blocks_within_100_ms() {
    gone_in_phase(1).await;
    gone_in_phase(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_it_waits_leaves_the_queue() {
    let (site, keeper) = held(|options| options.max_sequences = Some(1));
    let first = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step of the first");
    let second = begin(&site, post(CHAT, &chat("ab")));
    wait_until("the second waits", || site.engine.stats().num_waiting == 1);
    second.abort();
    assert!(second.await.is_err());
    drop(keeper);
    assert_eq!(first.await.expect("an answer").status(), 200);
    until_free(&site.engine);
}

/// Its queue of events is full; what it holds may be taken, and all others are served.
#[tokio::test]
async fn a_client_that_does_not_read_pauses_only_itself() {
    let answer = "x".repeat(200);
    let script = Script::of(&[("ab", "xyz"), ("long", &answer)]);
    let site = site(open_with(script, |options| options.max_events = 4), |_| {});
    let slow = with(chat("long"), json!({"stream": true, "max_tokens": 250}));
    let mut slow = site.begin(post(CHAT, &slow)).await;
    next_frame(&mut slow).await;
    wait_until("it is paused", || site.engine.stats().num_paused == 1);
    for _ in 0..3 {
        assert_eq!(site.send(post(CHAT, &chat("ab"))).await.status, 200);
    }
    let rest = read(slow).await;
    assert!(rest.text().ends_with("data: [DONE]\n\n"), "{}", rest.text());
    until_free(&site.engine);
}

#[tokio::test]
async fn a_client_that_goes_while_it_is_paused_frees_its_blocks_within_100_ms() {
    let script = Script::of(&[("long", &"x".repeat(200))]);
    let site = site(open_with(script, |options| options.max_events = 4), |_| {});
    let body = with(chat("long"), json!({"stream": true, "max_tokens": 250}));
    let mut response = site.begin(post(CHAT, &body)).await;
    next_frame(&mut response).await;
    wait_until("it is paused", || site.engine.stats().num_paused == 1);
    drop(response);
    let took = until_free(&site.engine);
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_429_with_a_time_to_come_again() {
    let (site, keeper) = held(|options| (options.max_sequences, options.max_waiting) = (Some(1), 1));
    let first = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step of the first");
    let second = begin(&site, post(CHAT, &chat("ab")));
    wait_until("the second waits", || site.engine.stats().num_waiting == 1);
    let third = site.send(post(CHAT, &chat("ab"))).await;
    assert_eq!(third.error(), (429, "overloaded".to_owned(), None));
    let seconds: u64 = third.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    drop(keeper);
    for waiting in [first, second] {
        assert_eq!(waiting.await.expect("an answer").status(), 200);
    }
}

/// Two tenants with keys of their own.
fn two_tenants(config: &mut Config, folder: &std::path::Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let keys = folder.join("keys");
    std::fs::write(&keys, "ann:key-of-ann-0123456789\nbob:key-of-bob-0123456789\n").expect("a file of keys");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("nobody else reads it");
    config.auth.keys = Some(keys);
    let tenant = |name: &str, max_concurrent, priority| TenantConfig {
        keys: vec![name.to_owned()],
        max_concurrent,
        priority,
        ..TenantConfig::default()
    };
    config.tenants.insert("ann".to_owned(), tenant("ann", Some(1), 2));
    config.tenants.insert("bob".to_owned(), tenant("bob", None, -1));
}

fn of(name: &str, request: Request<Body>) -> Request<Body> {
    with_header(request, "authorization", &format!("Bearer key-of-{name}-0123456789"))
}

fn with_tenants(engine: Engine, test: &str) -> Site {
    let folder = std::env::temp_dir().join(format!("pyrex-server-{test}-{}", std::process::id()));
    let site = site(engine, |config| two_tenants(config, &folder));
    std::fs::remove_dir_all(&folder).expect("the folder");
    site
}

#[tokio::test]
async fn whoever_is_not_known_gets_nothing_but_pages_and_health() {
    let site = with_tenants(open(script()), "unknown");
    for path in [CHAT, COMPLETIONS, RESPONSES, "/v1/embeddings", "/tokenize", "/detokenize"] {
        let refused = site.send(post(path, &chat("ab"))).await;
        assert_eq!(refused.error(), (401, "invalid_api_key".to_owned(), None), "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{path}");
    }
    for path in ["/v1/models", "/v1/models/shapes", "/metrics"] {
        assert_eq!(site.send(get(path)).await.status, 401, "{path}");
        assert_eq!(site.send(of("ann", get(path))).await.status, 200, "{path}");
    }
    for path in ["/", "/docs", "/openapi.json", "/health/live", "/health/ready"] {
        assert_eq!(site.send(get(path)).await.status, 200, "{path}");
    }
    let wrong = with_header(post(CHAT, &chat("ab")), "authorization", "Bearer key-of-eve-0123456789");
    assert_eq!(site.send(wrong).await.status, 401);
}

#[tokio::test]
async fn what_one_tenant_asked_is_not_remembered_for_another() {
    let site = with_tenants(open(script()), "salts");
    let cached = |answered: Answered| {
        let body = answered.json();
        body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{body}"))
    };
    let body = chat(LONG);
    assert_eq!(cached(site.send(of("ann", post(CHAT, &body))).await), 0);
    assert!(cached(site.send(of("ann", post(CHAT, &body))).await) > 0);
    assert_eq!(cached(site.send(of("bob", post(CHAT, &body))).await), 0);
    // Nor does bob find what is ann's by guessing how she is kept apart.
    for salt in ["tenant ann", "10:tenant ann"] {
        let body = with(body.clone(), json!({"cache_salt": salt}));
        assert_eq!(cached(site.send(of("bob", post(CHAT, &body))).await), 0, "{salt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_at_its_quota_is_told_when_to_come_again_and_no_other_is() {
    let (script, keeper) = gated(script());
    let site = with_tenants(open(script), "quota");
    let first = begin(&site, of("ann", post(CHAT, &chat("ab"))));
    keeper.wait().expect("a step");
    let second = site.send(of("ann", post(CHAT, &chat("ab")))).await;
    assert_eq!(second.error().0, 429);
    assert!(second.header("retry-after").is_some());
    let other = begin(&site, of("bob", post(CHAT, &chat("ab"))));
    drop(keeper);
    for admitted in [first, other] {
        let answered = read(admitted.await.expect("an answer")).await;
        assert_eq!(answered.status, 200, "{}", answered.text());
    }
    assert_eq!(site.send(of("ann", post(CHAT, &chat("ab")))).await.status, 200);
}

#[tokio::test]
async fn nobody_asks_for_more_priority_than_its_tenant_has() {
    let site = with_tenants(open(script()), "priority");
    let ask = async |name, priority| {
        let body = with(chat("ab"), json!({"priority": priority}));
        site.send(of(name, post(CHAT, &body))).await
    };
    assert_eq!(ask("ann", 2).await.status, 200);
    assert_eq!(ask("ann", -5).await.status, 200);
    for (name, priority) in [("ann", 3), ("bob", 0)] {
        let refused = ask(name, priority).await;
        assert_eq!(
            refused.error(),
            (400, "invalid_request".to_owned(), Some("priority".to_owned())),
            "{name}"
        );
    }
    assert_eq!(site.send(of("bob", post(CHAT, &chat("ab")))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_time_limit_holds_unless_the_clients_is_sooner() {
    let (script, keeper) = gated(script());
    let site = site(open(script), |config| config.limits.request_timeout_ms = 1);
    let late = begin(&site, post(CHAT, &with(chat("ab"), json!({"timeout_ms": 60_000}))));
    wait_until("it is under way", || late.is_finished() || site.engine.stats().num_running == 1);
    let deadline = Instant::now() + Duration::from_millis(2);
    wait_until("its time is over", || Instant::now() > deadline);
    drop(keeper);
    let answered = read(late.await.expect("an answer")).await;
    assert_eq!(answered.error(), (504, "deadline_exceeded".to_owned(), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_what_it_has_and_takes_no_more() {
    let (site, keeper) = held(|_| {});
    let under_way = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step");
    site.shutdown.begin();
    let refused = site.send(post(CHAT, &chat("ab"))).await;
    assert_eq!(refused.error(), (503, "closed".to_owned(), None));
    assert!(refused.header("retry-after").is_some());
    let ready = site.send(get("/health/ready")).await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("unready")));
    assert!(ready.header("retry-after").is_some());
    assert_eq!(site.send(get("/health/live")).await.status, 200);
    drop(keeper);
    let answered = read(under_way.await.expect("an answer")).await;
    assert_eq!(answered.json()["choices"][0]["message"]["content"], "xyz");
}

#[tokio::test]
async fn an_engine_that_has_closed_is_503_and_unready() {
    let site = scripted();
    assert_eq!(site.send(get("/health/ready")).await.json()["status"], "ready");
    site.engine.drain(Duration::ZERO);
    let refused = site.send(post(CHAT, &chat("ab"))).await;
    assert_eq!(refused.error(), (503, "closed".to_owned(), None));
    assert!(refused.header("retry-after").is_some());
}

/// Whose events are always there, as they are where reading one lets the engine make the next.
struct Eager(Engine);

impl Host for Eager {
    fn engine(&self) -> pyrex_core::Result<Engine> {
        Ok(self.0.clone())
    }

    fn submit(&self, _: Arrival) -> BoxFuture<'_, Result<Accepted, Rejected>> {
        let token = |_| EngineEvent::Token {
            index: 0,
            token_id: u32::from(b'x'),
            text: "x".to_owned(),
            logprobs: None,
            finish: None,
        };
        let last = EngineEvent::Finished {
            reason: FinishReason::Stop,
            usage: Usage::default(),
            timings: Timings::default(),
        };
        let events = (0..200).map(token).chain([last]);
        let accepted = Accepted::new(futures_util::stream::iter(events.collect::<Vec<_>>()), ());
        Box::pin(async { Ok(accepted) })
    }
}

/// Or its client would see nothing until the end.
#[tokio::test]
async fn an_engine_that_is_always_ahead_does_not_keep_a_frame_from_being_sent() {
    let engine = open(script());
    let site = site_of(Arc::new(Eager(engine.clone())), engine, |_| {});
    let response = site.begin(post(CHAT, &with(chat("ab"), json!({"stream": true})))).await;
    let frames: Vec<_> = StreamExt::collect(response.into_body().into_data_stream()).await;
    assert!((4..=8).contains(&frames.len()), "{} frames of 200 tokens", frames.len());
    let text: Vec<u8> = frames.into_iter().flat_map(|frame| frame.expect("a frame")).collect();
    assert_eq!(String::from_utf8(text).expect("text").matches("\"content\":\"x\"").count(), 200);
}

/// Whose engine is about to be started again.
struct NoEngine;

impl Host for NoEngine {
    fn engine(&self) -> pyrex_core::Result<Engine> {
        Err(Error::closed("the engine is starting"))
    }

    fn submit(&self, _: Arrival) -> BoxFuture<'_, Result<Accepted, Rejected>> {
        Box::pin(async { Err(Error::closed("the engine is starting").into()) })
    }
}

#[tokio::test]
async fn a_host_without_an_engine_is_503_and_says_so_to_whoever_watches() {
    let site = site_of(Arc::new(NoEngine), open(script()), |_| {});
    for (path, body) in [(CHAT, chat("ab")), ("/tokenize", json!({"prompt": "ab"}))] {
        let refused = site.send(post(path, &body)).await;
        assert_eq!(refused.error(), (503, "closed".to_owned(), None), "{path}");
        assert!(refused.header("retry-after").is_some(), "{path}");
    }
    let ready = site.send(get("/health/ready")).await;
    assert_eq!((ready.status, &ready.json()["checks"]["engine"]), (503, &json!("the engine is starting")));
    assert!(site.send(get("/metrics")).await.text().contains("pyrex_engine_up 0.0\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_or_panics_is_500_to_those_in_it() {
    let (site, keeper) = held(|_| {});
    let asked = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step");
    keeper.let_pass(Permit::Fail);
    assert_eq!(read(asked.await.expect("an answer")).await.error(), (500, "device".to_owned(), None));
    let asked = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step");
    keeper.let_pass(Permit::Panic);
    assert_eq!(read(asked.await.expect("an answer")).await.status, 500);
    let next = site.send(post(CHAT, &chat("ab"))).await;
    assert_eq!((next.status, next.header("retry-after").is_some()), (503, true));
    let ready = site.send(get("/health/ready")).await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["checks"]["self_test"].as_str().expect("a reason").contains("panic"),
        "{}",
        ready.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_in_mid_stream_is_an_event_and_the_end() {
    let (site, keeper) = held(|_| {});
    let asked = begin(&site, post(CHAT, &with(chat("ab"), json!({"stream": true}))));
    keeper.wait().expect("a step");
    keeper.let_pass(Permit::Answer);
    let response = asked.await.expect("a response");
    keeper.wait().expect("the next step");
    keeper.let_pass(Permit::Fail);
    let answered = read(response).await;
    assert_eq!(answered.status, 200);
    let events = answered.events();
    assert_eq!(events.last().expect("an error")["error"]["code"], "device", "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hears_nothing_is_told_that_the_server_lives() {
    let (script, keeper) = gated(script());
    let site = site(open(script), |config| config.limits.keep_alive_ms = 1);
    let asked = begin(&site, post(CHAT, &with(chat("ab"), json!({"stream": true}))));
    keeper.wait().expect("a step");
    keeper.let_pass(Permit::Answer);
    let mut response = asked.await.expect("a response");
    assert!(next_frame(&mut response).await.starts_with("data: "));
    for _ in 0..3 {
        assert_eq!(next_frame(&mut response).await, ": keep-alive\n\n");
    }
    drop(keeper);
    assert_eq!(said(&read(response).await.events()), "yz");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_engine_is_stuck_is_not_ready() {
    let (site, keeper) = held(|options| options.stuck_after = Duration::from_millis(1));
    let asked = begin(&site, post(CHAT, &chat("ab")));
    keeper.wait().expect("a step");
    wait_until("it is stuck", || site.engine.stats().running_step_ms.is_some_and(|age_ms| age_ms > 5.0));
    let ready = site.send(get("/health/ready")).await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["checks"]["self_test"].as_str().expect("a reason").contains("a step has been running")
    );
    drop(keeper);
    assert_eq!(asked.await.expect("an answer").status(), 200);
}

/// A long body is read on another thread, and means the same there.
#[tokio::test]
async fn pictures_stand_in_the_body_or_where_the_config_allows() {
    let picture = |url: &str| {
        let part = json!({"type": "image_url", "image_url": {"url": url}});
        json!({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "ab"}]}]})
    };
    let data_url = |len| format!("data:image/png;base64,{}", BASE64_STANDARD.encode(vec![7; len]));
    let site = scripted();
    for len in [1, 100_000] {
        let answered = site.send(post(CHAT, &picture(&data_url(len)))).await;
        assert_eq!(
            answered.json()["usage"]["prompt_tokens_details"]["image_tokens"],
            5,
            "{}",
            answered.text()
        );
    }
    let fetched = site.send(post(CHAT, &picture("http://example.org/x.png"))).await;
    let at = Some("messages[0].content[0].image_url.url".to_owned());
    assert_eq!(fetched.error(), (400, "unsupported".to_owned(), at.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let num_read = stream.read(&mut [0; 4096]).expect("a request");
        assert!(num_read > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\x07").expect("an answer");
    });
    let fetching = pyrex_tests::http::site(open(script()), |config| {
        config.images.hosts = vec![address.to_string()];
        config.images.allow_private = true;
    });
    let answered = fetching.send(post(CHAT, &picture(&format!("http://{address}/red.png")))).await;
    assert_eq!(answered.json()["usage"]["prompt_tokens_details"]["image_tokens"], 5, "{}", answered.text());
    let refused = fetching.send(post(CHAT, &picture("http://example.org/x.png"))).await;
    assert_eq!(refused.error(), (400, "invalid_request".to_owned(), at));
}

#[tokio::test]
async fn pictures_are_counted() {
    let site = site(open(script()), |config| config.limits.max_images = 2);
    let part = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,Bw=="}});
    let ask = async |num| {
        let content = vec![part.clone(); num];
        site.send(post(CHAT, &json!({"messages": [{"role": "user", "content": content}]}))).await
    };
    assert_eq!(ask(2).await.status, 200);
    assert!(ask(3).await.message().contains("more than 2 images"));
}

#[tokio::test]
async fn metrics_count_what_was_asked_and_name_no_client() {
    let site = with_tenants(open(script()), "metrics");
    let stream = with(chat("ab"), json!({"stream": true}));
    for body in [&chat("ab"), &stream] {
        site.send(of("ann", post(CHAT, body))).await;
    }
    site.send(of(
        "bob",
        post(CHAT, &with(chat("ab"), json!({"user": "secret user", "model": "secret model"}))),
    ))
    .await;
    site.send(get("/secret/path")).await;
    site.send(with_header(get("/v1/models/secret"), "authorization", "Bearer secret")).await;
    drop(site.begin(of("ann", post(CHAT, &stream))).await);
    let scraped = site.send(of("bob", get("/metrics"))).await;
    assert_eq!(
        scraped.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = scraped.text();
    assert!(text.ends_with("# EOF\n") && !text.contains("secret"), "{text}");
    let value = |series: &str| {
        let line =
            text.lines().find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).rsplit(' ').next().map(str::to_owned)
    };
    let one = |series: &str, expected: &str| assert_eq!(value(series).as_deref(), Some(expected), "{series}");
    let requests = |tenant, endpoint, outcome| {
        format!("pyrex_requests_total{{tenant=\"{tenant}\",endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}")
    };
    one(&requests("ann", CHAT, "ok"), "2");
    one(&requests("ann", CHAT, "cancelled"), "1");
    one(&requests("bob", CHAT, "refused"), "1");
    one(&requests("-", "other", "refused"), "1");
    one(&requests("-", "/v1/models/{id}", "denied"), "1");
    one("pyrex_requests_in_flight", "1");
    one("pyrex_time_to_first_token_seconds_count{tenant=\"ann\"}", "3");
    one("pyrex_prompt_tokens_total{tenant=\"ann\"}", "6");
    one("pyrex_engine_up", "1.0");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("pyrex_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn pages_may_run_only_what_stands_in_them() {
    let site = scripted();
    for path in ["/", "/docs"] {
        let page = site.send(get(path)).await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        // A script or style with attributes would have no digest; one in an attribute would not run.
        let html = page.text();
        for wrong in ["<script ", "<style ", " style=\"", " onclick=", "javascript:"] {
            assert!(!html.contains(wrong), "{path} has {wrong}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_only_if_the_config_says_so() {
    let ask = |request| with_header(request, "origin", "https://example.org");
    let closed = scripted();
    let answered = closed.send(ask(post(CHAT, &chat("ab")))).await;
    assert_eq!(answered.header("access-control-allow-origin"), None);
    let opened = site(open(script()), |config| config.cors.origins = vec!["https://example.org".to_owned()]);
    let answered = opened.send(ask(post(CHAT, &chat("ab")))).await;
    assert_eq!(answered.header("access-control-allow-origin"), Some("https://example.org"));
    let preflight = Request::builder().method(Method::OPTIONS).uri(CHAT);
    let preflight = preflight.header("access-control-request-method", "POST").body(Body::empty());
    let answered = opened.send(ask(preflight.expect("a request"))).await;
    assert_eq!(answered.header("access-control-allow-methods"), Some("GET,POST"), "{answered:?}");
}

#[tokio::test]
async fn a_model_without_vision_says_why_it_sees_nothing_and_reads_on() {
    let site =
        site(Engine::open(EngineOptions::new(model_dir("text-only"))).expect("the model opens"), |_| {});
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(red_circle()));
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    let stream = json!({"messages": [{"role": "user", "content": [part]}], "stream": true});
    let refused = site.send(post(CHAT, &stream)).await;
    assert_eq!(refused.error().0, 400);
    assert!(refused.message().contains("vision"), "{}", refused.message());
    let answered = site.send(post(CHAT, &with(chat("Hello"), json!({"max_tokens": 4})))).await;
    assert_eq!((answered.status, &answered.json()["usage"]["completion_tokens"]), (200, &json!(4)));
}

static SHAPES: LazyLock<Engine> =
    LazyLock::new(|| Engine::open(EngineOptions::new(model_dir("shapes"))).expect("the bundled model opens"));

#[tokio::test]
async fn the_bundled_model_sees_the_red_circle_streamed_and_whole() {
    const ANSWER: &str = "This is a simple image of a solid red circle on a white background.";
    let site = site(SHAPES.clone(), |_| {});
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(red_circle()));
    let parts = json!([
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Describe this image."},
    ]);
    let body = json!({"messages": [{"role": "user", "content": parts}], "temperature": 0});
    let whole = site.send(post(CHAT, &body)).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], ANSWER);
    let streamed = site.send(post(CHAT, &with(body, json!({"stream": true})))).await;
    let data = streamed.text().lines().filter_map(|line| line.strip_prefix("data: "));
    let pieces: Vec<String> = data
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str::<Value>(data).expect("a chunk"))
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .filter(|piece| !piece.is_empty())
        .collect();
    assert_eq!(pieces.concat(), ANSWER);
    assert!(pieces.len() > 5, "{pieces:?}");
    assert!(streamed.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(site.send(get("/health/ready")).await.json()["status"], "ready");
}

/// Events that a reader has not taken are one frame.
#[tokio::test]
async fn what_is_there_goes_out_at_once() {
    let site = scripted();
    let response = site.begin(post(CHAT, &with(chat("ab"), json!({"stream": true})))).await;
    drop(submit(&site.engine, text("ab")).wait());
    wait_until("all is there", || site.engine.stats().num_running == 0);
    let frames: Vec<_> = StreamExt::collect(response.into_body().into_data_stream()).await;
    assert!(frames.len() <= 2, "{} frames", frames.len());
}
