//! The engine's self-test: a real forward with a known answer.
//!
//! What is known is that decoding and reading agree: tokens chosen one by one are as likely as when the same tokens are read
//! at once. A broken kernel, a mixed-up block or a cache that was written over shows here, whatever the model.

use super::{Completion, Engine, Request, SamplingParams};
use crate::error::{Error, Result};
use crate::prompt::EncodedPrompt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// Tokens of the prompt, and tokens that are chosen after it.
const PROMPT_TOKENS: usize = 20;
const ANSWER_TOKENS: usize = 4;
/// How far two logarithms of one probability may lie apart: far more than sums in another order make, even in bf16, far less
/// than a wrong token does.
const TOLERANCE: f32 = 0.25;

pub(super) fn probe(engine: &Engine, timeout: Duration) -> Result<()> {
    let deadline = Instant::now().checked_add(timeout);
    let vocab_size = engine.spec().vocab_size as u32;
    let room = engine.config().max_model_len.saturating_sub(ANSWER_TOKENS).clamp(1, PROMPT_TOKENS) as u32;
    // Ids spread over the vocabulary; no image placeholder is asked to be one, for nothing is put in its place.
    let prompt: Vec<u32> = (0..room).map(|idx| (idx * 7919 + 3) % vocab_size.min(10_000)).collect();
    let decoded = run(engine, prompt.clone(), ANSWER_TOKENS, deadline)?;
    for end in 1..decoded.token_ids.len() {
        let read = [&prompt, &decoded.token_ids[..end]].concat();
        let read = run(engine, read, 1, deadline)?;
        let (token_id, logprob) = (decoded.token_ids[end], decoded.logprobs[end].logprob);
        let found = read.logprobs.first().and_then(|logprobs| {
            logprobs.top.iter().find(|(top_id, _)| *top_id == token_id).map(|(_, logprob)| *logprob)
        });
        if found.is_none_or(|found| (found - logprob).abs() > TOLERANCE) {
            return Err(Error::internal(format_args!(
                "the engine contradicts itself: token {token_id} had a log-probability of {logprob} when it was chosen, and \
                 {found:?} when the tokens before it were read again"
            )));
        }
    }
    Ok(())
}

fn run(
    engine: &Engine,
    input_ids: Vec<u32>,
    max_tokens: usize,
    deadline: Option<Instant>,
) -> Result<Completion> {
    let sampling = SamplingParams {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        logprobs: Some(SamplingParams::MAX_LOGPROBS.min(engine.spec().vocab_size)),
        ..SamplingParams::default()
    };
    let request = Request {
        sampling,
        priority: i8::MAX,
        deadline,
        // Nothing it computes may come from the cache's memory.
        cache_salt: format!(
            "probe {:x}",
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        ),
        ..Request::new(EncodedPrompt { input_ids, images: Vec::new() })
    };
    engine.submit(request)?.wait()
}
