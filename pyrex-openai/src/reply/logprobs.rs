//! How likely tokens were, as the endpoints tell it.
//!
//! Every token of an answer has its entry, those that say nothing too: their text is empty. OpenAI knows no minus infinity:
//! what could not be said has −9999.

use pyrex_core::{Engine, TokenLogprobs};
use serde::Serialize;
use serde_json::{Map, Value};

const IMPOSSIBLE: f32 = -9999.0;

/// Says what tokens are.
#[derive(Clone)]
pub(crate) struct Words(Engine);

impl Words {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self(engine.clone())
    }

    /// What a token says alone; half a character is U+FFFD.
    fn word(&self, token_id: u32) -> (String, Box<[u8]>) {
        let bytes = self.0.token_bytes(token_id).unwrap_or_default();
        (String::from_utf8_lossy(&bytes).into_owned(), bytes)
    }
}

/// Those of a conversation.
#[derive(Default, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<String>,
}

#[derive(Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    likely: Likely,
    top_logprobs: Vec<Likely>,
}

#[derive(Serialize)]
struct Likely {
    token: String,
    logprob: f32,
    bytes: Box<[u8]>,
}

impl ChatLogprobs {
    pub(crate) fn push(&mut self, words: &Words, token_id: u32, found: &TokenLogprobs) {
        let likely = |(token_id, logprob): (u32, f32)| {
            let (token, bytes) = words.word(token_id);
            Likely { token, logprob: logprob.max(IMPOSSIBLE), bytes }
        };
        let top_logprobs = found.top.iter().copied().map(likely).collect();
        self.content.push(TokenLogprob { likely: likely((token_id, found.logprob)), top_logprobs });
    }
}

/// Those of a text completion.
#[derive(Default, Serialize)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
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
