//! [`Reception`]: the thread of an engine that submits.
//!
//! Submitting reads JSON and compiles grammars, the first of which takes a second with a large vocabulary: no scheduler can
//! wait for that. What is refused comes as the request's only event.

use crate::arrival::ArrivalResource;
use crate::bytes::KeptBinary;
use crate::mailbox::{Mailbox, Slot};
use crate::reply::{Fault, Wish};
use pyrex_core::{Engine, Error, Request, RequestControl, Result, SamplingParams};
use rustler::ResourceArc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What is asked, as it came.
pub(crate) enum Submission {
    /// A request, decoded.
    Request(Box<Request>),
    /// A body of OpenAI's protocol, what its transport decides, and the answer it wants, if it does.
    Json {
        body: KeptBinary,
        priority: Option<i8>,
        cache_salt: Option<String>,
        timeout_ms: Option<u64>,
        wish: Option<Wish>,
    },
    /// What a client of the HTTP server asks.
    Arrival(ResourceArc<ArrivalResource>),
    /// So many tokens that no model says, one each so many microseconds.
    #[cfg(feature = "test-util")]
    Flood { num_tokens: usize, every_us: u64 },
}

/// The way to the thread. It ends when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Reception {
    arrivals: Sender<Arrival>,
}

enum Arrival {
    Request(Submission, Arc<Mailbox>),
    /// Dropped once all that came before is submitted.
    Marker(Sender<()>),
}

impl Reception {
    /// Starts the thread.
    pub(crate) fn new(engine: Engine) -> Result<Self> {
        let (arrivals, inbox) = channel();
        let body = move || receive(&engine, &inbox);
        let spawned = thread::Builder::new().name("pyrex-reception".to_owned()).spawn(body);
        spawned.map_err(|e| Error::io(format_args!("cannot start the thread pyrex-reception: {e}")))?;
        Ok(Self { arrivals })
    }

    /// Has this submitted; its events go to `mailbox`.
    pub(crate) fn admit(&self, submission: Submission, mailbox: Arc<Mailbox>) {
        // The thread ends only once nobody can call this any more.
        let _ = self.arrivals.send(Arrival::Request(submission, mailbox));
    }

    /// Waits until all that was admitted before is submitted, for at most `timeout`: a drain is not to refuse it.
    pub(crate) fn catch_up(&self, timeout: Duration) {
        let (marker, reached) = channel();
        // Nothing is ever sent: either end of the wait is fine.
        if self.arrivals.send(Arrival::Marker(marker)).is_ok() {
            let _ = reached.recv_timeout(timeout);
        }
    }
}

fn receive(engine: &Engine, inbox: &Receiver<Arrival>) {
    #[cfg(feature = "test-util")]
    let flooder = crate::testing::Flooder::start();
    while let Ok(arrival) = inbox.recv() {
        let (submission, mailbox) = match arrival {
            Arrival::Request(submission, mailbox) => (submission, mailbox),
            Arrival::Marker(marker) => {
                drop(marker);
                continue;
            }
        };
        #[cfg(feature = "test-util")]
        if let Submission::Flood { num_tokens, every_us } = submission {
            flooder.flood(mailbox, num_tokens, every_us);
            continue;
        }
        let submitted = catch_unwind(AssertUnwindSafe(|| submit(engine, submission, &mailbox)));
        match submitted
            .unwrap_or_else(|_| Err(Error::internal("a panic while a request was submitted").into()))
        {
            Ok(control) => mailbox.submitted(control),
            Err(fault) => mailbox.refuse(fault),
        }
    }
}

fn submit(engine: &Engine, submission: Submission, mailbox: &Arc<Mailbox>) -> Result<RequestControl, Fault> {
    if mailbox.is_cancelled() {
        return Err(Error::cancelled("the request was cancelled").into());
    }
    if let Submission::Arrival(arrival) = submission {
        return Ok(arrival.submit(engine, mailbox)?);
    }
    let request = submission.request(engine, mailbox)?;
    Ok(engine.submit_to(request, Box::new(Slot(mailbox.clone())))?)
}

impl Submission {
    fn request(self, engine: &Engine, mailbox: &Mailbox) -> Result<Request, Fault> {
        match self {
            Self::Request(request) => Ok(*request),
            Self::Arrival(_) => Err(Error::internal("an arrival brings its request along").into()),
            #[cfg(feature = "test-util")]
            Self::Flood { .. } => Err(Error::internal("a flood is no request").into()),
            Self::Json { body, priority, cache_salt, timeout_ms, wish } => {
                let mut request = match wish {
                    None => {
                        pyrex_openai::read(body.as_ref(), &SamplingParams::from_model(engine.spec()))?.request
                    }
                    Some(wish) => {
                        let (request, reply) = wish.read(body.as_ref(), engine)?;
                        mailbox.begin(reply);
                        request
                    }
                };
                request.priority = priority.unwrap_or(request.priority);
                request.cache_salt = cache_salt.unwrap_or(request.cache_salt);
                let deadline =
                    timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
                request.deadline = deadline.or(request.deadline);
                Ok(request)
            }
        }
    }
}
