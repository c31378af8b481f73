//! How an answer is read: which of its tokens are text, which are thoughts, and which call a tool.
//!
//! A family whose answers are more than text says so beside its template, as [`Processor::answer_format`]. Its marks are special
//! tokens, so a parser reads ids: the text of a mark's event is what was held back before the mark.
//!
//! [`Processor::answer_format`]: super::Processor::answer_format

/// A piece of an answer. Pieces of one kind that follow each other are one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece {
    /// What the model says to whoever asked.
    Text(String),
    /// What it says to itself before.
    Reasoning(String),
    /// It calls this tool; the arguments follow.
    Call(String),
    /// More of the JSON object that the present call's arguments are. All of them together are JSON, unless the answer was
    /// cut off in the middle of the call.
    Arguments(String),
}

/// Who hears the pieces of an answer.
pub type Tell<'a> = &'a mut dyn FnMut(AnswerPiece);

/// Reads one answer, token by token.
pub trait AnswerParser: Send {
    /// Takes the next token and the text of its event.
    fn push(&mut self, token_id: u32, text: String, tell: Tell<'_>);

    /// Takes the end: what was held back is told.
    fn finish(&mut self, tell: Tell<'_>);

    /// Whether the next token belongs to the model's reasoning.
    fn is_reasoning(&self) -> bool {
        false
    }
}

/// The tokens that begin and end a model's reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningMarks {
    /// Begins it.
    pub open: u32,
    /// Ends it.
    pub close: u32,
}

/// What an answer that calls tools may look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRules<'a> {
    /// The tools that may be called, by name.
    pub names: Vec<&'a str>,
    /// Whether text may stand before the calls, or in their place.
    pub text: bool,
    /// Whether there may be several calls.
    pub several: bool,
}

/// How a family's answers are read, and what the engine must know to hold one to its form.
pub trait AnswerFormat: Send + Sync {
    /// A parser for the answer to this prompt, which may have begun the answer's reasoning.
    fn parser(&self, prompt_token_ids: &[u32]) -> Box<dyn AnswerParser>;

    /// What stands around reasoning, if the family knows it.
    fn reasoning(&self) -> Option<ReasoningMarks> {
        None
    }

    /// Whether the prompt ends within reasoning, which the answer then goes on with.
    fn begins_reasoning(&self, prompt_token_ids: &[u32]) -> bool {
        let _ = prompt_token_ids;
        false
    }

    /// A grammar, in llguidance's Lark, of answers that keep to `rules`; `None` if the family knows no calls.
    fn call_grammar(&self, rules: &CallRules<'_>) -> Option<String> {
        let _ = rules;
        None
    }

    /// Special tokens that a grammar may name.
    fn marks(&self) -> Vec<u32> {
        Vec::new()
    }
}

/// Answers that are text and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct PlainAnswers;

impl AnswerFormat for PlainAnswers {
    fn parser(&self, _prompt_token_ids: &[u32]) -> Box<dyn AnswerParser> {
        Box::new(Self)
    }
}

impl AnswerParser for PlainAnswers {
    fn push(&mut self, _token_id: u32, text: String, tell: Tell<'_>) {
        if !text.is_empty() {
            tell(AnswerPiece::Text(text));
        }
    }

    fn finish(&mut self, _tell: Tell<'_>) {}
}
