//! `pyrex_event_t`: what happens to a request, laid out for C.

use crate::status::pyrex_status_t;
use pyrex_core::{Event, FinishReason, TokenLogprobs};
use std::ffi::{c_char, c_void};
use std::{mem, ptr};

/// A kind of event: the prompt is encoded and waits for its turn.
pub const PYREX_EVENT_STARTED: i32 = 1;
/// A kind of event: one token was chosen.
pub const PYREX_EVENT_TOKEN: i32 = 2;
/// A kind of event: all completions came to their ends. Nothing comes after it.
pub const PYREX_EVENT_FINISHED: i32 = 3;
/// A kind of event: the request ended early. Nothing comes after it.
pub const PYREX_EVENT_FAILED: i32 = 4;

/// A finish reason: it goes on.
pub const PYREX_FINISH_NONE: i32 = 0;
/// A finish reason: a stop token or stop string, or what the answer was held to is complete.
pub const PYREX_FINISH_STOP: i32 = 1;
/// A finish reason: `max_tokens`, or the longest sequence of the engine.
pub const PYREX_FINISH_LENGTH: i32 = 2;

/// How likely a token was. This struct never grows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_token_logprob_t {
    /// The token.
    pub token_id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// What happens to a request. Exactly one of PYREX_EVENT_FINISHED and PYREX_EVENT_FAILED comes, and it comes last.
///
/// Pyrex makes it and only lends it: it is valid, with all it points to, until the next event of its request is read or the
/// request is freed. What does not belong to its kind is zero. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_event_t {
    /// One of PYREX_EVENT_STARTED, PYREX_EVENT_TOKEN, PYREX_EVENT_FINISHED, PYREX_EVENT_FAILED.
    pub kind: i32,
    /// FAILED: why; PYREX_CANCELLED if somebody wanted that. PYREX_OK otherwise.
    pub status: i32,
    /// TOKEN: the text that is now certain; often empty, never half a character, never part of a stop string.
    /// FAILED: what went wrong, in one line. Never NULL, and NUL-terminated.
    pub text: *const c_char,
    /// Bytes of `text`, without its NUL.
    pub text_len: usize,
    /// TOKEN: which; a stop token is told too.
    pub token_id: u32,
    /// TOKEN: of which completion; 0 unless the request asked for several.
    pub completion_idx: u32,
    /// TOKEN: why it was the last of its completion, if it was. FINISHED: why the first completion ended.
    pub finish_reason: i32,
    /// TOKEN: how likely it was, if the request asked: the natural logarithm of its probability.
    pub logprob: f32,
    /// TOKEN: the likeliest tokens in its place, likeliest first, if the request asked.
    pub top_logprobs: *const pyrex_token_logprob_t,
    /// TOKEN: how many.
    pub num_top_logprobs: usize,
    /// STARTED: what the model will read, image placeholders included.
    pub prompt_token_ids: *const u32,
    /// STARTED, FINISHED: how many tokens the prompt has, its images' included.
    pub num_prompt_tokens: usize,
    /// STARTED, FINISHED: how many of them are an image's.
    pub num_image_tokens: usize,
    /// FINISHED: how many of them the cache still held from an earlier request.
    pub num_cached_tokens: usize,
    /// FINISHED: tokens chosen, stop tokens included, over all completions.
    pub num_completion_tokens: usize,
    /// FINISHED: how long loading the model took, once per engine.
    pub load_ms: f64,
    /// FINISHED: rendering, tokenizing, decoding and resizing.
    pub preprocess_ms: f64,
    /// FINISHED: from submitting to the first step that took it up.
    pub queue_ms: f64,
    /// FINISHED: the steps of the vision tower it took part in.
    pub encode_images_ms: f64,
    /// FINISHED: the decoder's steps over the prompt, up to and with the first token.
    pub prefill_ms: f64,
    /// FINISHED: the decoder's steps over the rest, one token at a time.
    pub decode_ms: f64,
    /// FINISHED: from submitting to the first token, waiting included.
    pub ttft_ms: f64,
    /// The pointer that was given when the request was submitted.
    pub user_data: *mut c_void,
}

/// The event that was read last, and all it points to. Its room is used again for the next.
pub(crate) struct Shown {
    event: pyrex_event_t,
    /// With a NUL behind it.
    text: Vec<u8>,
    top_logprobs: Vec<pyrex_token_logprob_t>,
    /// Keeps the ids of the prompt.
    source: Option<Event>,
    user_data: *mut c_void,
}

// SAFETY: the pointers are to what this owns, and the host's, which it says may be handed on.
unsafe impl Send for Shown {}

impl Shown {
    pub(crate) fn new(user_data: *mut c_void) -> Self {
        Self { event: blank(), text: Vec::new(), top_logprobs: Vec::new(), source: None, user_data }
    }

    /// Lays `event` out.
    pub(crate) fn show(&mut self, event: Event) -> *const pyrex_event_t {
        let event = self.source.insert(event);
        self.text.clear();
        self.top_logprobs.clear();
        self.event = match event {
            Event::Started { prompt_token_ids, image_tokens } => pyrex_event_t {
                kind: PYREX_EVENT_STARTED,
                prompt_token_ids: prompt_token_ids.as_ptr(),
                num_prompt_tokens: prompt_token_ids.len(),
                num_image_tokens: *image_tokens,
                ..blank()
            },
            Event::Token { index, token_id, text, logprobs, finish } => {
                self.text.extend_from_slice(text.as_bytes());
                let top = logprobs.iter().flat_map(|logprobs| &logprobs.top);
                let top = top.map(|&(token_id, logprob)| pyrex_token_logprob_t { token_id, logprob });
                self.top_logprobs.extend(top);
                token(*index, *token_id, logprobs.as_ref(), *finish)
            }
            Event::Finished { reason, usage, timings } => pyrex_event_t {
                kind: PYREX_EVENT_FINISHED,
                finish_reason: finish_reason(Some(*reason)),
                num_prompt_tokens: usage.prompt_tokens,
                num_image_tokens: usage.image_tokens,
                num_cached_tokens: usage.cached_tokens,
                num_completion_tokens: usage.completion_tokens,
                load_ms: timings.load_ms,
                preprocess_ms: timings.preprocess_ms,
                queue_ms: timings.queue_ms,
                encode_images_ms: timings.encode_images_ms,
                prefill_ms: timings.prefill_ms,
                decode_ms: timings.decode_ms,
                ttft_ms: timings.ttft_ms,
                ..blank()
            },
            Event::Failed(error) => {
                self.text.extend_from_slice(error.message().as_bytes());
                let status = pyrex_status_t::from(error.kind()) as i32;
                pyrex_event_t { kind: PYREX_EVENT_FAILED, status, ..blank() }
            }
        };
        self.point()
    }

    /// Sets the pointers to what the other fields own.
    fn point(&mut self) -> *const pyrex_event_t {
        let text_len = self.text.len();
        self.text.push(0);
        self.event = pyrex_event_t {
            text: self.text.as_ptr().cast(),
            text_len,
            num_top_logprobs: self.top_logprobs.len(),
            top_logprobs: match self.top_logprobs.is_empty() {
                true => ptr::null(),
                false => self.top_logprobs.as_ptr(),
            },
            user_data: self.user_data,
            ..self.event
        };
        &raw const self.event
    }
}

fn token(
    index: usize,
    token_id: u32,
    logprobs: Option<&TokenLogprobs>,
    finish: Option<FinishReason>,
) -> pyrex_event_t {
    pyrex_event_t {
        kind: PYREX_EVENT_TOKEN,
        token_id,
        completion_idx: index as u32,
        finish_reason: finish_reason(finish),
        logprob: logprobs.map_or(0.0, |logprobs| logprobs.logprob),
        ..blank()
    }
}

fn finish_reason(reason: Option<FinishReason>) -> i32 {
    match reason {
        None => PYREX_FINISH_NONE,
        Some(FinishReason::Length) => PYREX_FINISH_LENGTH,
        Some(_) => PYREX_FINISH_STOP,
    }
}

fn blank() -> pyrex_event_t {
    // SAFETY: numbers and pointers may be zero.
    unsafe { mem::zeroed() }
}
