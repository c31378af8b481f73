//! Any bytes as the body of a request: refused, or a request that says the same when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyrex_core::{Error, ErrorKind, SamplingParams};
use pyrex_fuzz::{assert_refusal, check};
use pyrex_openai::{Context, Endpoint, Refusal, read_at, read_detokenize, read_tokenize};
use serde_json::{Map, Value};

/// What a body may be refused with.
const REFUSALS: [ErrorKind; 2] = [ErrorKind::InvalidRequest, ErrorKind::Unsupported];

fuzz_target!(|body: &[u8]| check(|| {
    read(body);
    read_everywhere(body);
}));

/// Reads a body as that of every endpoint.
fn read_everywhere(body: &[u8]) {
    let fetch = |_: &str| Err(Error::unsupported("nothing is fetched"));
    let context = Context { defaults: &SamplingParams::default(), fetch: &fetch };
    let endpoints = [Endpoint::Chat, Endpoint::Completions, Endpoint::Responses];
    let answered = endpoints.map(|endpoint| read_at(endpoint, body, &context).map(drop));
    let tokens = [read_tokenize(body, &context).map(drop), read_detokenize(body).map(drop)];
    let refused = answered.into_iter().chain(tokens).filter_map(Result::err);
    refused.for_each(|refusal: Refusal| assert_refusal(refusal.error(), &REFUSALS));
}

fn read(body: &[u8]) {
    let defaults = SamplingParams::default();
    let mut asked = match pyrex_openai::read(body, &defaults) {
        Ok(asked) => asked,
        Err(error) => return assert_refusal(&error, &REFUSALS),
    };
    let fields: Map<String, Value> = serde_json::from_slice(body).expect("what was read is an object");
    let spelled = Value::Object(fields.clone()).to_string();
    // A float may change its last bit when it is spelled anew.
    if serde_json::from_str::<Map<String, Value>>(&spelled).is_ok_and(|same| same == fields) {
        let mut again = pyrex_openai::read(spelled.as_bytes(), &defaults).expect("what was read once");
        // The clock goes on between the two.
        assert_eq!(asked.request.deadline.take().is_some(), again.request.deadline.take().is_some());
        assert_eq!(format!("{asked:?}"), format!("{again:?}"));
    }
}
