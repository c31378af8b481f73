//! Answers as OpenAI's clients read them, made of a request's events.

use crate::error;
use crate::terms::{bad_value, required};
use pyrex_core::{Engine, Error, Event, ImageBytes, Request, Result, SamplingParams};
use pyrex_openai::{Context, Endpoint, Refusal, Reply, Served, error_body, model_body, models_body, status};
use rustler::{Encoder, Env, NewBinary, NifResult, Term};

/// Which answer is wanted.
pub(crate) struct Wish {
    endpoint: Endpoint,
    served: Served,
}

impl Wish {
    /// Reads the map of `endpoint`, `id`, `created` and `model`.
    pub(crate) fn decode(term: Term<'_>) -> NifResult<Self> {
        let endpoint = match required::<Term<'_>>(term, "endpoint")?.atom_to_string()?.as_str() {
            "chat" => Endpoint::Chat,
            "completions" => Endpoint::Completions,
            "responses" => Endpoint::Responses,
            _ => return Err(bad_value("endpoint")),
        };
        let (id, created, model) =
            (required(term, "id")?, required(term, "created")?, required(term, "model")?);
        Ok(Self { endpoint, served: Served { id, created, model } })
    }

    /// Reads a body, and begins the answer to it.
    pub(crate) fn read(self, body: &[u8], engine: &Engine) -> Result<(Request, Reply), Fault> {
        let defaults = SamplingParams::from_model(engine.spec());
        let mut asked =
            pyrex_openai::read_at(self.endpoint, body, &Context { defaults: &defaults, fetch: &fetch })?;
        if let Some(other) = asked.model.as_ref().filter(|model| **model != self.served.model) {
            return Err(Fault::of_model(other, &self.served.model));
        }
        let reply = Reply::new(&mut asked, engine, self.served)?;
        Ok((asked.request, reply))
    }
}

fn fetch(_url: &str) -> Result<ImageBytes> {
    Err(Error::unsupported("nothing is fetched here, expected a data URL"))
}

/// Why a body is refused, and how.
pub(crate) struct Fault {
    error: Error,
    param: Option<String>,
    status: u16,
}

impl Fault {
    fn of_model(found: &str, expected: &str) -> Self {
        let what = format_args!("model: {found:?} is not served here, expected {expected:?}");
        Self { error: Error::invalid_request(what), param: Some("model".to_owned()), status: 404 }
    }

    pub(crate) fn error(&self) -> &Error {
        &self.error
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { status: status(error.kind()), param: None, error }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let param = refusal.param().map(str::to_owned);
        Self { param, ..Error::from(refusal).into() }
    }
}

/// The answer to one request as it grows.
#[derive(Default)]
pub(crate) struct Writing {
    reply: Option<Reply>,
    fault: Option<Fault>,
    is_told: bool,
}

impl Writing {
    /// The body was read.
    pub(crate) fn begin(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    /// The body was refused.
    pub(crate) fn refuse(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// What the client is to be sent after these events. `None` if there are none, and it is known already how an answer will
    /// come: as a stream or whole.
    pub(crate) fn write(&mut self, events: &[Event]) -> Option<Written> {
        let Some(reply) = &mut self.reply else { return self.write_fault(events) };
        if events.is_empty() && std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let mut bytes = Vec::new();
        for event in events {
            reply.push(event.clone(), &mut bytes);
        }
        Some(Written { status: reply.status(), content_type: reply.content_type(), bytes })
    }

    fn write_fault(&mut self, events: &[Event]) -> Option<Written> {
        let Some(Event::Failed(error)) = events.last() else { return None };
        Some(self.fault.take().unwrap_or_else(|| error.clone().into()).into())
    }
}

/// `{status, content_type, bytes}`.
pub(crate) struct Written {
    status: u16,
    content_type: &'static str,
    bytes: Vec<u8>,
}

impl From<Fault> for Written {
    fn from(Fault { error, param, status }: Fault) -> Self {
        Self { status, content_type: "application/json", bytes: error_body(&error, param.as_deref()) }
    }
}

impl Encoder for Written {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (self.status, self.content_type, binary(env, &self.bytes)).encode(env)
    }
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

/// The answer that an error is, of a request that no engine heard of.
#[rustler::nif]
fn openai_error(kind: Term<'_>, message: String) -> NifResult<Written> {
    let error = error::of_kind(&kind.atom_to_string()?, message);
    Ok(Fault::from(error).into())
}

#[rustler::nif]
fn openai_models<'a>(env: Env<'a>, models: Vec<(String, u64)>) -> Term<'a> {
    let models: Vec<_> = models.iter().map(|(name, created)| (name.as_str(), *created)).collect();
    binary(env, &models_body(&models))
}

#[rustler::nif]
fn openai_model<'a>(env: Env<'a>, name: String, created: u64) -> Term<'a> {
    binary(env, &model_body(&name, created))
}
