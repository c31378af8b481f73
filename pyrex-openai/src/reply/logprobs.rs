//! How likely tokens were, as the endpoints tell it.
//!
//! Every token of an answer has its entry, those that say nothing too: their text is empty. OpenAI knows no minus infinity:
//! what could not be said has −9999.

use pyrex_core::{Engine, TokenBytes, TokenLogprobs};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

const IMPOSSIBLE: f32 = -9999.0;

/// Says what tokens are.
pub(crate) struct Words(Box<dyn Fn(u32) -> TokenBytes + Send>);

impl Words {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self(engine.token_reader())
    }

    /// What a token says alone; half a character is U+FFFD.
    fn word(&self, token_id: u32) -> (String, Box<[u8]>) {
        let bytes = (self.0)(token_id).unwrap_or_default();
        (String::from_utf8_lossy(&bytes).into_owned(), bytes)
    }
}

/// How likely each token of a conversation's answer was.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    /// Always null.
    refusal: Option<String>,
}

/// How likely a token was, and what else might have been.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    token: String,
    logprob: f32,
    #[schema(value_type = Vec<u32>)]
    bytes: Box<[u8]>,
    /// The likeliest tokens, as many as were asked for.
    top_logprobs: Vec<Likely>,
}

/// A token and how likely it was.
#[derive(Serialize, ToSchema)]
pub(crate) struct Likely {
    /// What it says; half a character is U+FFFD, and a special token says nothing.
    token: String,
    /// The natural logarithm of its probability; −9999 if it was impossible.
    logprob: f32,
    /// The same as bytes.
    #[schema(value_type = Vec<u32>)]
    bytes: Box<[u8]>,
}

impl ChatLogprobs {
    pub(crate) fn push(&mut self, words: &Words, token_id: u32, found: &TokenLogprobs) {
        let likely = |(token_id, logprob): (u32, f32)| {
            let (token, bytes) = words.word(token_id);
            Likely { token, logprob: logprob.max(IMPOSSIBLE), bytes }
        };
        let top_logprobs = found.top.iter().copied().map(likely).collect();
        let Likely { token, logprob, bytes } = likely((token_id, found.logprob));
        self.content.push(TokenLogprob { token, logprob, bytes, top_logprobs });
    }
}

/// How likely each token of a text completion was; one entry for each token in every list.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The likeliest tokens, by what they say.
    #[schema(value_type = Vec<std::collections::HashMap<String, f32>>)]
    top_logprobs: Vec<Map<String, Value>>,
    /// Where the token's text begins in the completion, in characters.
    text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// Takes a token at `offset`, in characters. Of several alternatives of one text, the likeliest is told.
    pub(crate) fn push(&mut self, words: &Words, token_id: u32, found: &TokenLogprobs, offset: usize) {
        let mut top = Map::new();
        for (token_id, logprob) in &found.top {
            top.entry(words.word(*token_id).0).or_insert_with(|| logprob.max(IMPOSSIBLE).into());
        }
        self.tokens.push(words.word(token_id).0);
        self.token_logprobs.push(found.logprob.max(IMPOSSIBLE));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }
}
