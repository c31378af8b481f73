//! [`Reasoning`]: how a request lets the model think before its answer is held to a form.

use super::constraint::{TokenConstraint, TokenMask};
use crate::error::Result;
use crate::models::ReasoningMarks;
use std::sync::Arc;

/// How much a model may say to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// The most tokens between the marks of its reasoning; then it must end.
    pub max_tokens: Option<usize>,
}

/// Lets reasoning stand before what another constraint allows, and bounds it.
pub(crate) struct Thinking {
    marks: ReasoningMarks,
    tokens_left: usize,
    is_open: bool,
    /// Holds for what is not reasoning; without one, everything goes.
    answer: Option<Box<dyn TokenConstraint>>,
    /// Under a constraint, reasoning comes before the answer's first token or not at all.
    has_answer: bool,
    stop_ids: Arc<[u32]>,
}

impl Thinking {
    /// Before the first token of an answer; `is_open` if the prompt has begun its reasoning.
    pub(crate) fn new(
        reasoning: Reasoning,
        marks: ReasoningMarks,
        is_open: bool,
        answer: Option<Box<dyn TokenConstraint>>,
    ) -> Self {
        let tokens_left = reasoning.max_tokens.unwrap_or(usize::MAX);
        Self { marks, tokens_left, is_open, answer, has_answer: false, stop_ids: Arc::from([]) }
    }

    /// The same, where an answer that must have a form does not end within reasoning.
    pub(crate) fn with_stop_ids(self, stop_ids: &[u32]) -> Self {
        Self { stop_ids: stop_ids.into(), ..self }
    }
}

impl TokenConstraint for Thinking {
    fn allowed(&mut self, mask: &mut TokenMask) -> Result<()> {
        match &mut self.answer {
            _ if self.is_open && self.tokens_left == 0 => mask.allow(self.marks.close),
            answer if self.is_open => {
                mask.allow_all();
                let ends: &[u32] = if answer.is_some() { &self.stop_ids } else { &[] };
                ends.iter().for_each(|id| mask.forbid(*id));
            }
            Some(answer) => {
                answer.allowed(mask)?;
                if !self.has_answer && self.tokens_left > 0 {
                    mask.allow(self.marks.open);
                }
            }
            None => {
                mask.allow_all();
                if self.tokens_left == 0 {
                    mask.forbid(self.marks.open);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, token_id: u32) -> Result<()> {
        match &mut self.answer {
            _ if self.is_open && token_id == self.marks.close => self.is_open = false,
            _ if self.is_open => self.tokens_left = self.tokens_left.saturating_sub(1),
            Some(_) if token_id == self.marks.open && !self.has_answer => self.is_open = true,
            Some(answer) => {
                self.has_answer = true;
                answer.accept(token_id)?;
            }
            None => self.is_open = token_id == self.marks.open,
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        !self.is_open && self.answer.as_ref().is_some_and(|answer| answer.is_complete())
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        let answer = self.answer.as_ref().map(|answer| answer.fork());
        Box::new(Self { answer, stop_ids: self.stop_ids.clone(), ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: ReasoningMarks = ReasoningMarks { open: 1, close: 2 };

    /// Allows only one token, again and again.
    struct Only(u32);

    impl TokenConstraint for Only {
        fn allowed(&mut self, mask: &mut TokenMask) -> Result<()> {
            mask.allow(self.0);
            Ok(())
        }

        fn accept(&mut self, token_id: u32) -> Result<()> {
            assert_eq!(token_id, self.0);
            Ok(())
        }

        fn is_complete(&self) -> bool {
            false
        }

        fn fork(&self) -> Box<dyn TokenConstraint> {
            Box::new(Self(self.0))
        }
    }

    /// What is allowed of 0 to 4 before each of these tokens, and after the last.
    fn allowed(max_tokens: Option<usize>, is_open: bool, answer: Option<u32>, said: &[u32]) -> Vec<Vec<u32>> {
        let answer = answer.map(|only| Box::new(Only(only)) as Box<dyn TokenConstraint>);
        let thinking = Thinking::new(Reasoning { max_tokens }, MARKS, is_open, answer);
        let mut thinking: Box<dyn TokenConstraint> = Box::new(thinking.with_stop_ids(&[0]));
        let ask = |thinking: &mut dyn TokenConstraint| {
            let mut mask = TokenMask::new(5);
            thinking.allowed(&mut mask).unwrap();
            (0..5).filter(|id| mask.allows(*id)).collect::<Vec<u32>>()
        };
        let mut all = vec![ask(&mut *thinking)];
        for token_id in said {
            thinking.accept(*token_id).unwrap();
            thinking = thinking.fork();
            all.push(ask(&mut *thinking));
        }
        all
    }

    const ALL: [u32; 5] = [0, 1, 2, 3, 4];

    #[test]
    fn reasoning_ends_once_its_budget_is_used() {
        let said = [1, 3, 4, 2, 0];
        let without_open = [0, 2, 3, 4];
        let expected: [&[u32]; 6] = [&ALL, &ALL, &ALL, &[2], &without_open, &without_open];
        assert_eq!(allowed(Some(2), false, None, &said), expected);
        assert_eq!(allowed(None, false, None, &said), [&ALL[..]; 6]);
        assert_eq!(allowed(Some(1), true, None, &[3, 2]), [&ALL[..], &[2], &without_open]);
        assert_eq!(allowed(Some(0), false, None, &[]), [without_open]);
    }

    #[test]
    fn an_answer_is_held_to_its_form_behind_the_reasoning() {
        let on: [u32; 4] = [1, 2, 3, 4];
        let expected: [&[u32]; 5] = [&[1, 4], &on, &on, &[1, 4], &[4]];
        assert_eq!(allowed(None, false, Some(4), &[1, 3, 2, 4]), expected);
        assert_eq!(allowed(Some(0), false, Some(4), &[4]), [[4], [4]]);
        assert_eq!(allowed(None, true, Some(4), &[2, 4]), [&on[..], &[1, 4], &[4]]);
    }
}
