//! Answers that keep to a grammar: on the scripted model through the engine, and with the bundled model's real tokenizer.

use candle_core::DType;
use pyrex_core::engine::grammar::GrammarCompiler;
use pyrex_core::engine::options::ModelInput;
use pyrex_core::engine::sampler::Sampler;
use pyrex_core::models::scripted::Script;
use pyrex_core::trace::NoTap;
use pyrex_core::{
    Chat, Completion, Constraint, Engine, EngineOptions, Error, ErrorKind, FinishReason, Grammar, Message,
    Part, Prompt, Request, SamplingParams, TokenConstraint, TokenMask,
};
use pyrex_tests::{LAST, Run, load_model, model_dir};
use serde_json::Value;
use std::sync::Arc;

const COUNT: &str = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
                       "additionalProperties": false}"#;

fn open(said: &str) -> Engine {
    let model = ModelInput::Loaded(Script::of(&[("p", said)]).load());
    Engine::open(EngineOptions { num_threads: Some(1), ..EngineOptions::new(model) })
        .expect("the engine opens")
}

fn ask(engine: &Engine, constraint: impl Into<Constraint>) -> Result<Completion, Error> {
    let request = Request::new(Prompt::Text("p".to_owned())).with_constraint(constraint);
    engine.submit(request)?.wait()
}

#[test]
fn an_answer_ends_with_its_grammar() {
    let engine = open(r#"{"n": 12} and so on"#);
    let done = ask(&engine, Grammar::JsonSchema(COUNT.to_owned())).expect("an answer");
    assert_eq!(done.text, r#"{"n": 12}"#);
    assert_eq!((done.finish_reason, done.usage.completion_tokens), (FinishReason::Stop, 9));
}

#[test]
fn a_model_that_would_say_something_else_keeps_to_the_grammar() {
    let engine = open("no JSON at all");
    let grammar = Grammar::Regex("no (way|JSON in sight)".to_owned());
    assert_eq!(ask(&engine, grammar).expect("an answer").text, "no JSON in sight");
    let done = ask(&engine, Grammar::Lark("start: \"no JSON\" /[!?]/".to_owned())).expect("an answer");
    assert_eq!(done.text, "no JSON!");
}

#[test]
fn a_wrong_grammar_is_refused_when_it_is_submitted() {
    let engine = open("1");
    let request =
        Request::new(Prompt::Text("p".to_owned())).with_constraint(Grammar::JsonSchema("{".to_owned()));
    let error = engine.submit(request).expect_err("no schema");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().starts_with("json_schema: "), "{error}");
    assert_eq!(ask(&engine, Grammar::Regex("[0-9]".to_owned())).expect("an answer").text, "1");
}

/// Allows the letters of `abc` in turn, and fails or panics at the end.
struct Alphabet {
    next: u32,
    panics: bool,
}

impl TokenConstraint for Alphabet {
    fn allowed(&mut self, mask: &mut TokenMask) -> Result<(), Error> {
        mask.allow(self.next);
        match self.next {
            ..=99 => Ok(()),
            _ if self.panics => panic!("after c"),
            _ => Err(Error::invalid_request("after c")),
        }
    }

    fn accept(&mut self, token_id: u32) -> Result<(), Error> {
        self.next = token_id + 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        Box::new(Self { ..*self })
    }
}

#[test]
fn a_constraint_of_the_callers_may_fail_or_panic() {
    let engine = open("abc");
    for (panics, kind) in [(false, ErrorKind::InvalidRequest), (true, ErrorKind::Internal)] {
        let constraint = Constraint::Custom(Arc::new(move || Box::new(Alphabet { next: 97, panics })));
        let error = ask(&engine, constraint).expect_err("a failure");
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains("after c"), "{error}");
    }
    let cannot = Constraint::Custom(Arc::new(|| panic!("no constraint today")));
    assert_eq!(ask(&engine, cannot).expect_err("a failure").kind(), ErrorKind::Internal);
    assert_eq!(ask(&engine, Grammar::Regex("[a-c]+".to_owned())).expect("an answer").text, "abc");
}

/// The model was trained to describe shapes and nothing else: it never closes a string by itself, hence `maxLength`.
#[test]
fn the_bundled_model_answers_in_json() {
    let loaded = load_model("shapes", DType::F32);
    let spec = loaded.model.spec();
    let compiler = GrammarCompiler::new(&loaded.processor.vocabulary(), &spec.stop_ids).expect("a compiler");
    let schema = r#"{"type": "object", "properties": {"shape": {"type": "string", "maxLength": 40}},
                     "required": ["shape"], "additionalProperties": false}"#;
    for image in ["red_circle", "pink_square"] {
        let file =
            std::fs::read(model_dir("shapes").join(format!("examples/{image}.png"))).expect("an example");
        let parts = vec![Part::Image(file.into()), Part::Text("Describe this image.".to_owned())];
        let prompt = Prompt::Chat(Chat::new(vec![Message::parts("user", parts)]));
        let prompt = loaded.processor.encode(&prompt).expect("the prompt is readable");
        let constraint = compiler.compile(&Grammar::JsonSchema(schema.to_owned())).expect("a constraint");
        let (params, ids) = (SamplingParams::default(), prompt.input_ids.as_slice());
        let mut sampler = Sampler::new(&params, &spec.stop_ids, ids.into(), 0, Some(constraint));

        let mut run = Run::new(loaded.model.as_ref(), ids.len() + 200);
        let soft = run.encode_images(&mut NoTap, &prompt);
        let mut logits = run.forward(&mut NoTap, ids, soft.as_ref(), LAST);
        let mut detokenizer = loaded.processor.detokenizer();
        let mut text = String::new();
        for position in ids.len()..ids.len() + 200 {
            let row = logits.flatten_all().and_then(|row| row.to_vec1::<f32>()).expect("one row");
            let sampled = sampler.sample(&row, position).expect("a token");
            text += &detokenizer.push(sampled.token_id);
            if sampled.ends {
                break;
            }
            logits = run.forward(&mut NoTap, &[sampled.token_id], None, LAST);
        }
        text += &detokenizer.finish();
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(json["shape"].is_string(), "{text}");
    }
}
