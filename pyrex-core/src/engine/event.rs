//! [`Event`]: what an engine tells about a request, and [`EventSink`]: whom it tells.

use super::lobby::Guest;
use super::sampler::TokenLogprobs;
use crate::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What happens to a request, in order. Exactly one of `Finished` and `Failed` comes, and it comes last.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is encoded and waits for its turn.
    Started {
        /// What the model will read, image placeholders included.
        prompt_token_ids: Arc<[u32]>,
        /// How many of them are an image's.
        image_tokens: usize,
    },
    /// One token was chosen.
    Token {
        /// Of which completion; always 0 unless the request asked for several.
        index: usize,
        /// Which; a stop token is told too.
        token_id: u32,
        /// The text that is now certain: often empty, never half a character, never part of a stop string.
        text: String,
        /// How likely it was, if the request asked.
        logprobs: Option<TokenLogprobs>,
        /// Why it was the last of its completion, if it was.
        finish: Option<FinishReason>,
    },
    /// All completions of the request came to their ends.
    Finished {
        /// Why the first of them ended.
        reason: FinishReason,
        /// What the request took, in tokens.
        usage: Usage,
        /// What it took, in time.
        timings: Timings,
    },
    /// The request ended early; [`Cancelled`](crate::ErrorKind::Cancelled) if the caller wanted that.
    Failed(Error),
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed(_))
    }
}

/// Why a completion came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model said a stop token, its text reached a stop string, or its constraint is fulfilled.
    Stop,
    /// `max_tokens`, or the longest sequence of the engine.
    Length,
}

impl FinishReason {
    /// The reason as a word, the same in every binding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What a request took, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, its images' included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt's images alone.
    pub image_tokens: usize,
    /// Tokens of the prompt that the cache still held from an earlier request.
    pub cached_tokens: usize,
    /// Tokens chosen, stop tokens included, over all completions.
    pub completion_tokens: usize,
}

/// What a request took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Loading the model, once per engine.
    pub load_ms: f64,
    /// Rendering, tokenizing, decoding and resizing.
    pub preprocess_ms: f64,
    /// From submit to the first step that took it up.
    pub queue_ms: f64,
    /// The steps of the vision tower it took part in.
    pub encode_images_ms: f64,
    /// The decoder's steps over the prompt, up to and with the first token.
    pub prefill_ms: f64,
    /// The decoder's steps over the rest, one token at a time.
    pub decode_ms: f64,
    /// From submit to the first token, waiting included.
    pub ttft_ms: f64,
}

/// Whom an engine tells about one request.
///
/// Called on the engine's threads: a sink must not block, and one that panics loses the rest of its events.
pub trait EventSink: Send {
    /// Takes the next event.
    fn send(&mut self, event: Event);

    /// Whether it takes more tokens now. If not, the request pauses until its
    /// [`RequestControl::resume`](super::RequestControl::resume) is called; what is under way, and the final event, still come.
    fn has_room(&self) -> bool {
        true
    }
}

/// The engine's end of a sink. However a request ends, and whoever drops it, its sink sees one final event.
pub(crate) struct Outlet {
    sink: Option<Box<dyn EventSink>>,
    guest: Option<Guest>,
}

impl Outlet {
    pub(crate) fn new(sink: Box<dyn EventSink>, guest: Guest) -> Self {
        Self { sink: Some(sink), guest: Some(guest) }
    }

    pub(crate) fn send(&mut self, event: Event) {
        let Some(mut sink) = self.sink.take() else { return };
        let told = catch_unwind(AssertUnwindSafe(|| sink.send(event)));
        self.sink = told.is_ok().then_some(sink);
    }

    pub(crate) fn has_room(&self) -> bool {
        let ask = |sink: &dyn EventSink| catch_unwind(AssertUnwindSafe(|| sink.has_room())).unwrap_or(true);
        self.sink.as_deref().is_none_or(ask)
    }

    /// Where the request stands among all.
    pub(crate) fn guest(&mut self) -> Option<&mut Guest> {
        self.guest.as_mut()
    }

    /// Tells the final event. Whoever hears it finds the request gone.
    pub(crate) fn end(mut self, event: Event) {
        self.guest = None;
        self.send(event);
        self.sink = None;
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.guest = None;
        self.send(Event::Failed(Error::closed("the engine closed before the request ended")));
    }
}
