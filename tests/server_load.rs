//! Many clients at once on the bundled model: every answer is the one that the engine gives alone, none fails, and an order to
//! stop in the middle of it loses none that was taken. `make soak` runs it for half an hour.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pyrex_core::{Engine, EngineOptions, SamplingParams};
use pyrex_server::{EngineHost, router};
use pyrex_tests::listener::{PATIENCE, Running, config};
use pyrex_tests::{model_dir, repository};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use ureq::Agent;

const NUM_CLIENTS: usize = 64;
const TEXTS: [&str; 3] = ["Who are you?", "What do you see?", "Describe a blue square."];

/// A body, and the text that answers it.
struct Question {
    body: Value,
    answer: String,
}

/// What a client saw when it asked.
enum Seen {
    Answer,
    /// The server stops.
    Refused,
}

fn questions(engine: &Engine) -> Vec<Question> {
    let examples = repository().join("models/shapes/examples");
    let mut pictures: Vec<_> =
        std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    pictures.sort();
    let shown = pictures.iter().map(|path| {
        let data = BASE64_STANDARD.encode(std::fs::read(path).unwrap());
        json!([
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}},
            {"type": "text", "text": "Describe this image."},
        ])
    });
    let contents: Vec<Value> = shown.chain(TEXTS.iter().map(|text| json!(text))).collect();
    assert_eq!(contents.len(), 13, "ten pictures and three texts");
    contents.into_iter().map(|content| Question::new(engine, content)).collect()
}

impl Question {
    fn new(engine: &Engine, content: Value) -> Self {
        let body =
            json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 64});
        let asked = pyrex_openai::read(body.to_string().as_bytes(), &SamplingParams::default()).unwrap();
        let answer = engine.submit(asked.request).unwrap().wait().unwrap().text;
        assert!(!answer.is_empty());
        Self { body, answer }
    }

    /// Asks, streamed or whole, and compares.
    fn ask(&self, agent: &Agent, url: &str, streamed: bool) -> Seen {
        let mut body = self.body.clone();
        body["stream"] = streamed.into();
        let sent = agent.post(url).content_type("application/json").send(body.to_string());
        let mut response = match sent {
            Ok(response) => response,
            // The listener is gone.
            Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) => return Seen::Refused,
            Err(error) => panic!("{error}"),
        };
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().expect("the whole answer");
        if status == 503 {
            assert!(response.headers().contains_key("retry-after"), "{text}");
            return Seen::Refused;
        }
        assert_eq!(status, 200, "{text}");
        let answer = if streamed { told(&text) } else { said(&text) };
        assert_eq!(answer, self.answer);
        Seen::Answer
    }
}

fn said(text: &str) -> String {
    let reply: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    reply["choices"][0]["message"]["content"].as_str().expect("content").to_owned()
}

/// The pieces of a stream put together.
fn told(text: &str) -> String {
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let delta = |data: &str| {
        let chunk: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    };
    chunks.map(delta).collect()
}

#[test]
fn every_client_gets_its_answer_until_the_server_is_told_to_stop() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(10, |seconds| seconds.parse().expect("a number"));
    let engine = Engine::open(EngineOptions::new(model_dir("shapes"))).expect("the bundled model opens");
    let questions = questions(&engine);
    let red_circle = "This is a simple image of a solid red circle on a white background.";
    assert!(questions.iter().any(|question| question.answer == red_circle));
    let config = config();
    let running = Running::start_with(&config, |tenants, shutdown| {
        let host = Arc::new(EngineHost::new(engine.clone()));
        router(host, &config, tenants, shutdown).expect("a router")
    });
    let url = format!("http://{}/v1/chat/completions", running.address);
    let shutdown = running.shutdown.clone();
    let num_answers = AtomicUsize::new(0);
    let client = |client: usize| {
        let agent: Agent =
            Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
        for turn in client.. {
            match questions[turn * 7 % questions.len()].ask(&agent, &url, turn % 2 == 0) {
                Seen::Answer => num_answers.fetch_add(1, Ordering::Relaxed),
                Seen::Refused if shutdown.is_begun() => return,
                Seen::Refused => panic!("refused before the server was told to stop"),
            };
        }
    };
    let began = Instant::now();
    let num_cut = thread::scope(|scope| {
        let clients: Vec<_> = (0..NUM_CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        while began.elapsed() < Duration::from_secs(seconds) && !clients.iter().any(|it| it.is_finished()) {
            thread::sleep(Duration::from_millis(50));
        }
        running.stop()
    });
    assert_eq!(num_cut, 0, "requests that were cut off");
    let num_answers = num_answers.into_inner();
    println!(
        "{num_answers} exact answers to {NUM_CLIENTS} clients in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(num_answers >= NUM_CLIENTS, "{num_answers} answers");
    let stats = engine.stats();
    assert_eq!((stats.num_leases, stats.num_waiting, stats.num_running), (0, 0, 0), "{stats:?}");
}
