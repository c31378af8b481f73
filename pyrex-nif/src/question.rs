//! What an engine is asked beside requests. Answers come as messages: each takes a tokenizer, a template, a picture or time.

use crate::atoms;
use crate::error::Told;
use crate::prompt::Asked;
use crate::reception::Reception;
use crate::terms::bad_value;
use pyrex_core::{EncodedPrompt, Engine, Error, Input, Prompt, Result};
use rustler::{Decoder, Encoder, Env, LocalPid, NifMap, NifResult, OwnedEnv, Term};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// A question, decoded.
pub(crate) enum Question {
    Probe(Duration),
    Drain(Duration),
    Tokenize(String),
    Detokenize(Vec<u32>),
    Encode(Input),
    Render(Input),
}

enum Answer {
    Ok,
    Count(usize),
    Ids(Vec<u32>),
    Text(String),
    Encoded(EncodedMap),
}

#[derive(NifMap)]
struct EncodedMap {
    token_ids: Vec<u32>,
    image_tokens: usize,
}

impl<'a> Decoder<'a> for Question {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (kind, asked) = term.decode::<(Term<'a>, Term<'a>)>()?;
        match kind.atom_to_string()?.as_str() {
            "probe" => asked.decode().map(Duration::from_millis).map(Self::Probe),
            "drain" => asked.decode().map(Duration::from_millis).map(Self::Drain),
            "tokenize" => asked.decode().map(Self::Tokenize),
            "detokenize" => asked.decode().map(Self::Detokenize),
            "encode" => asked.decode().map(|Asked(input)| Self::Encode(input)),
            "render" => asked.decode().map(|Asked(input)| Self::Render(input)),
            _ => Err(bad_value("question")),
        }
    }
}

impl Question {
    /// Asks on a thread of its own; `{:pyrex_reply, id, answer}` goes to `owner`.
    pub(crate) fn ask(
        self,
        (engine, reception): (Engine, Reception),
        id: u64,
        owner: LocalPid,
    ) -> Result<()> {
        let body = move || {
            let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&engine, &reception)));
            let answer =
                answer.unwrap_or_else(|_| Err(Error::internal("a panic while the engine was asked")));
            // Whoever is gone does not miss the answer.
            let _ = OwnedEnv::new()
                .send_and_clear(&owner, |env| (atoms::pyrex_reply(), id, answer.map_err(Told)).encode(env));
        };
        let spawned = thread::Builder::new().name("pyrex-question".to_owned()).spawn(body);
        spawned.map(drop).map_err(|e| Error::overloaded(format_args!("cannot start a thread: {e}")))
    }

    fn answer(self, engine: &Engine, reception: &Reception) -> Result<Answer> {
        match self {
            Self::Probe(timeout) => engine.probe(timeout).map(|()| Answer::Ok),
            Self::Drain(timeout) => {
                let began = Instant::now();
                reception.catch_up(timeout);
                Ok(Answer::Count(engine.drain(timeout.saturating_sub(began.elapsed()))))
            }
            Self::Tokenize(text) => engine.tokenize(&text).map(Answer::Ids),
            Self::Detokenize(token_ids) => Ok(Answer::Text(engine.detokenize(&token_ids))),
            Self::Encode(Input::Prompt(prompt)) => engine.encode(&prompt).map(Answer::encoded),
            Self::Encode(Input::Encoded(encoded)) => Ok(Answer::encoded(encoded)),
            Self::Render(Input::Prompt(Prompt::Chat(chat))) => engine.render(&chat).map(Answer::Text),
            Self::Render(_) => {
                Err(Error::invalid_request("the prompt is no conversation, expected one to render"))
            }
        }
    }
}

impl Answer {
    fn encoded(encoded: EncodedPrompt) -> Self {
        let image_tokens = encoded.images.iter().map(|image| image.tokens.len()).sum();
        Self::Encoded(EncodedMap { token_ids: encoded.input_ids, image_tokens })
    }
}

impl Encoder for Answer {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Ok => atoms::ok().encode(env),
            Self::Count(count) => count.encode(env),
            Self::Ids(ids) => ids.encode(env),
            Self::Text(text) => text.encode(env),
            Self::Encoded(encoded) => encoded.encode(env),
        }
    }
}
