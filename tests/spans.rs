//! What an engine tells `tracing`: one span per request, with its preparation, queue, images, chunks and decodes inside.

use pyrex_core::models::scripted::{IMAGE_ID, IMAGE_TOKENS, Script};
use pyrex_core::{Chat, Message, Part, Request};
use pyrex_tests::scripted::{image, open_with, submit};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// A span's name behind its parent's.
type Path = (Option<&'static str>, &'static str);

/// Remembers the names of spans with their parents', and how many are open.
#[derive(Clone, Default)]
struct Names {
    next: Arc<AtomicU64>,
    names: Arc<Mutex<HashMap<u64, &'static str>>>,
    seen: Arc<Mutex<Vec<Path>>>,
}

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pyrex_core")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::AcqRel) + 1;
        let mut names = self.names.lock().unwrap();
        let parent = span.parent().and_then(|parent| names.get(&parent.into_u64()).copied());
        names.insert(id, span.metadata().name());
        self.seen.lock().unwrap().push((parent, span.metadata().name()));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn try_close(&self, id: Id) -> bool {
        self.names.lock().unwrap().remove(&id.into_u64()).is_some()
    }
}

/// Answers a prompt with an image, and asserts that `names` saw every phase of that and nothing else.
fn check(names: &Names, subscriber: Option<Dispatch>) {
    let prompt = [vec![IMAGE_ID; IMAGE_TOKENS], vec![u32::from(b'x')]].concat();
    let script = Script { answers: [(prompt, vec![97, 98])].into(), ..Script::of(&[]) };
    let engine = open_with(script, |options| {
        (options.max_batch_tokens, options.subscriber) = (Some(3), subscriber);
    });
    let parts = vec![image(7), Part::Text("x".into())];
    let chat = Chat::new(vec![Message::parts("user", parts)]);
    assert_eq!(submit(&engine, Request::new(chat)).wait().expect("the request finishes").text, "ab");
    assert_eq!(engine.drain(std::time::Duration::from_secs(60)), 0);
    let seen = names.seen.lock().unwrap().clone();
    let inside = |name| (Some("request"), name);
    let expected = [
        (None, "request"),
        inside("prepare"),
        inside("queue"),
        inside("prefill"),
        inside("encode"),
        inside("prefill"),
        inside("decode"),
        inside("decode"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_request_is_a_span_with_its_phases_inside() {
    let (everybody, own) = (Names::default(), Names::default());
    tracing::subscriber::set_global_default(everybody.clone()).expect("nobody listens yet");
    // What is told to an engine's own subscriber is told to nobody else.
    check(&own, Some(Dispatch::new(own.clone())));
    check(&everybody, None);
}
