//! [`Speech`]: one completion as it is heard, token by token, in pieces.

use super::Token;
use pyrex_core::{AnswerFormat, AnswerParser, AnswerPiece};
use std::sync::Arc;

/// Hears one completion.
pub(crate) struct Speech {
    format: Arc<dyn AnswerFormat>,
    parser: Box<dyn AnswerParser>,
    num_reasoning_tokens: usize,
}

impl Speech {
    pub(crate) fn new(format: &Arc<dyn AnswerFormat>) -> Self {
        Self { format: format.clone(), parser: format.parser(&[]), num_reasoning_tokens: 0 }
    }

    /// Hears what the model reads, which may have begun its reasoning.
    pub(crate) fn started(&mut self, prompt_token_ids: &[u32]) {
        if self.format.begins_reasoning(prompt_token_ids) {
            self.parser = self.format.parser(prompt_token_ids);
        }
    }

    /// Hears a token, and after the last one the end.
    pub(crate) fn push(&mut self, token: &mut Token, tell: &mut dyn FnMut(AnswerPiece)) {
        let was_reasoning = self.parser.is_reasoning();
        self.parser.push(token.token_id, std::mem::take(&mut token.text), tell);
        self.num_reasoning_tokens += usize::from(was_reasoning || self.parser.is_reasoning());
        if token.finish.is_some() {
            self.parser.finish(tell);
        }
    }

    /// How many tokens went into reasoning, its marks included.
    pub(crate) fn num_reasoning_tokens(&self) -> usize {
        self.num_reasoning_tokens
    }
}
