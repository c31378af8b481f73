//! Any bytes as the body of a request: refused, or a request that says the same when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyrex_core::{ErrorKind, SamplingParams};
use pyrex_fuzz::{assert_refusal, check};
use serde_json::{Map, Value};

fuzz_target!(|body: &[u8]| check(|| read(body)));

fn read(body: &[u8]) {
    let defaults = SamplingParams::default();
    let mut asked = match pyrex_openai::read(body, &defaults) {
        Ok(asked) => asked,
        Err(error) => return assert_refusal(&error, &[ErrorKind::InvalidRequest, ErrorKind::Unsupported]),
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
