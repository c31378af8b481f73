//! [`Session`]: a conversation that grows turn by turn.
//!
//! Every turn is a request of its own over the whole conversation, as the model's template renders it. What the cache
//! remembers of the turns before is not computed again; so a session holds nothing of the engine between its turns.

use super::{Completion, Engine, Request, SamplingParams};
use crate::error::Result;
use crate::prompt::{Chat, Message};

/// A conversation with one engine. Change its fields before a turn.
#[derive(Clone)]
pub struct Session {
    /// The turns so far, with tools and template variables.
    pub chat: Chat,
    /// How answers are chosen.
    pub sampling: SamplingParams,
    /// Only sessions of the same salt share what the cache remembers.
    pub cache_salt: String,
    engine: Engine,
}

impl Session {
    pub(super) fn new(engine: Engine) -> Self {
        let (chat, sampling) = (Chat::default(), SamplingParams::default());
        Self { chat, sampling, cache_salt: String::new(), engine }
    }

    /// Says something, waits for the answer, and keeps both. If there is no answer, neither is kept.
    ///
    /// # Errors
    /// As [`Engine::submit`], and the error the request failed with.
    pub fn ask(&mut self, message: Message) -> Result<Completion> {
        let completion = self.engine.submit(self.request(message.clone()))?.wait()?;
        self.keep(message, &completion.text);
        Ok(completion)
    }

    /// The request that says `message` after the turns so far; nothing is kept. For those who stream: submit it, and
    /// [`keep`](Self::keep) what came.
    pub fn request(&self, message: Message) -> Request {
        let mut chat = self.chat.clone();
        chat.messages.push(message);
        Request { sampling: self.sampling.clone(), cache_salt: self.cache_salt.clone(), ..Request::new(chat) }
    }

    /// Adds a turn and its answer to the conversation.
    pub fn keep(&mut self, message: Message, answer: &str) {
        self.chat.messages.extend([message, Message::text("assistant", answer)]);
    }
}
