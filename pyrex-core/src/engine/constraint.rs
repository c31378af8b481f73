//! [`TokenConstraint`]: what may be said next, and [`Constraint`]: how a request asks for one.
//!
//! The sampler asks before every token which ids are allowed and hides the others; it tells the constraint what was
//! chosen. A grammar is one kind of constraint; a caller may bring any other.

use super::grammar::GrammarCompiler;
use crate::error::{Error, Result};
use crate::models::Processor;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Says, token by token, how an answer may go on.
pub trait TokenConstraint: Send {
    /// Allows in `mask`, which comes with nothing allowed, every id that may come next. Where the answer may end,
    /// the model's stop ids are among them.
    ///
    /// # Errors
    /// Whatever keeps it from telling: the request fails.
    fn allowed(&mut self, mask: &mut TokenMask) -> Result<()>;

    /// Takes the token that was chosen. A stop id of the model is not told: nothing comes after it.
    ///
    /// # Errors
    /// If the token is not allowed here: the request fails.
    fn accept(&mut self, token_id: u32) -> Result<()>;

    /// Whether nothing but the end may follow. [`allowed`](Self::allowed) is not asked any more then.
    fn is_complete(&self) -> bool;

    /// The same constraint in the same state, for another completion.
    fn fork(&self) -> Box<dyn TokenConstraint>;
}

/// What the answer of a request must look like.
#[derive(Clone)]
pub enum Constraint {
    /// Text of a grammar.
    Grammar(Grammar),
    /// The caller's own; called once for each request.
    Custom(Arc<dyn Fn() -> Box<dyn TokenConstraint> + Send + Sync>),
}

/// A grammar that the whole answer matches, special tokens apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// A JSON schema, as JSON.
    JsonSchema(String),
    /// A regular expression in the syntax of Rust's `regex` crate, matched from the first byte to the last.
    Regex(String),
    /// A context-free grammar in llguidance's variant of Lark.
    Lark(String),
}

impl From<Grammar> for Constraint {
    fn from(grammar: Grammar) -> Self {
        Self::Grammar(grammar)
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grammar(grammar) => f.debug_tuple("Grammar").field(grammar).finish(),
            Self::Custom(_) => f.debug_tuple("Custom").finish_non_exhaustive(),
        }
    }
}

/// A set of token ids: one bit for each id of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocab_size: usize,
}

const BITS: usize = u32::BITS as usize;

impl TokenMask {
    /// No id of a vocabulary of `vocab_size`.
    pub fn new(vocab_size: usize) -> Self {
        Self { words: vec![0; vocab_size.div_ceil(BITS)], vocab_size }
    }

    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Puts an id in; one outside of the vocabulary changes nothing.
    pub fn allow(&mut self, token_id: u32) {
        if (token_id as usize) < self.vocab_size {
            self.words[token_id as usize / BITS] |= 1 << (token_id as usize % BITS);
        }
    }

    /// Takes an id out.
    pub fn forbid(&mut self, token_id: u32) {
        if (token_id as usize) < self.vocab_size {
            self.words[token_id as usize / BITS] &= !(1 << (token_id as usize % BITS));
        }
    }

    /// Puts every id in.
    pub fn allow_all(&mut self) {
        self.words.fill(!0);
        self.trim();
    }

    /// Takes every id out.
    pub fn forbid_all(&mut self) {
        self.words.fill(0);
    }

    /// Whether an id is in.
    pub fn allows(&self, token_id: u32) -> bool {
        (token_id as usize) < self.vocab_size
            && self.words[token_id as usize / BITS] >> (token_id as usize % BITS) & 1 == 1
    }

    /// Whether no id is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Puts the ids in whose bits are set: bit `i % 32` of word `i / 32` is id `i`.
    pub fn allow_words(&mut self, words: &[u32]) {
        self.words.iter_mut().zip(words).for_each(|(word, more)| *word |= more);
        self.trim();
    }

    /// Takes every id out that is not in `others`.
    pub fn forbid_others(&mut self, others: &Self) {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
    }

    /// Hides the logits `[V]` of all ids that are not in.
    pub(crate) fn hide_others(&self, logits: &mut [f32]) {
        let mut chunks = logits.chunks_mut(BITS);
        for (word, chunk) in self.words.iter().zip(chunks.by_ref()) {
            match *word {
                u32::MAX => {}
                0 => chunk.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in chunk.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
        chunks.for_each(|chunk| chunk.fill(f32::NEG_INFINITY));
    }

    fn trim(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.vocab_size.is_multiple_of(BITS)
        {
            *last &= (1 << (self.vocab_size % BITS)) - 1;
        }
    }
}

/// Opens the constraints of requests. What grammars need of the vocabulary is built when the first one comes.
pub(crate) struct Constraints {
    processor: Arc<dyn Processor>,
    stop_ids: Vec<u32>,
    compiler: OnceLock<Result<GrammarCompiler>>,
}

impl Constraints {
    pub(crate) fn new(processor: Arc<dyn Processor>, stop_ids: &[u32]) -> Self {
        Self { processor, stop_ids: stop_ids.to_vec(), compiler: OnceLock::new() }
    }

    /// A fresh constraint for one request.
    ///
    /// # Errors
    /// As [`GrammarCompiler::compile`] for a grammar.
    pub(crate) fn open(&self, constraint: &Constraint) -> Result<Box<dyn TokenConstraint>> {
        let build = || {
            guard(|| {
                let compiler = GrammarCompiler::new(&self.processor.vocabulary(), &self.stop_ids)?;
                Ok(compiler.with_marks(&self.processor.answer_format().marks()))
            })
        };
        match constraint {
            Constraint::Custom(make) => guard(|| Ok(make())),
            Constraint::Grammar(grammar) => {
                self.compiler.get_or_init(build).as_ref().map_err(Error::clone)?.compile(grammar)
            }
        }
    }
}

/// A request's constraint while its answer grows. What panics in it fails the request and nothing else.
pub(crate) struct Guarded(Box<dyn TokenConstraint>);

impl Guarded {
    pub(crate) fn new(constraint: Box<dyn TokenConstraint>) -> Self {
        Self(constraint)
    }

    pub(crate) fn allowed(&mut self, mask: &mut TokenMask) -> Result<()> {
        guard(|| self.0.allowed(mask))
    }

    /// Takes a token, and returns whether the constraint is complete now.
    pub(crate) fn accept(&mut self, token_id: u32) -> Result<bool> {
        guard(|| self.0.accept(token_id).map(|()| self.0.is_complete()))
    }

    pub(crate) fn is_complete(&self) -> Result<bool> {
        guard(|| Ok(self.0.is_complete()))
    }

    /// A fork that panics becomes a constraint that fails at its first token.
    pub(crate) fn fork(&self) -> Self {
        Self(guard(|| Ok(self.0.fork())).unwrap_or_else(|error| Box::new(Failed(error))))
    }
}

pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(Error::internal(super::panic_message("a constraint", &*panic))))
}

struct Failed(Error);

impl TokenConstraint for Failed {
    fn allowed(&mut self, _mask: &mut TokenMask) -> Result<()> {
        Err(self.0.clone())
    }

    fn accept(&mut self, _token_id: u32) -> Result<()> {
        Err(self.0.clone())
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        Box::new(Self(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_holds_what_was_put_in() {
        for vocab_size in [1, 31, 32, 33, 64, 100] {
            let mut mask = TokenMask::new(vocab_size);
            assert!(mask.is_empty());
            mask.allow_all();
            assert!((0..200).all(|id| mask.allows(id) == ((id as usize) < vocab_size)));
            let last = vocab_size as u32 - 1;
            mask.forbid(last);
            mask.forbid(vocab_size as u32);
            assert!(!mask.allows(last));
            mask.forbid_all();
            mask.allow(last);
            mask.allow(vocab_size as u32);
            assert!((0..200).all(|id| mask.allows(id) == (id == last)));
            mask.forbid(last);
            mask.allow_words(&[!0; 9]);
            let mut full = TokenMask::new(vocab_size);
            full.allow_all();
            assert_eq!(mask, full);
        }
    }

    #[test]
    fn logits_of_other_ids_are_hidden() {
        for (vocab_size, num_logits) in [(100, 100), (64, 100), (100, 70), (0, 3)] {
            let mut mask = TokenMask::new(vocab_size);
            (0..vocab_size as u32)
                .filter(|id| id % 3 == 0 || (32..64).contains(id))
                .for_each(|id| mask.allow(id));
            let mut logits = vec![1.5; num_logits];
            mask.hide_others(&mut logits);
            for (id, logit) in (0..).zip(&logits) {
                assert_eq!(*logit, if mask.allows(id) { 1.5 } else { f32::NEG_INFINITY }, "id {id}");
            }
        }
    }
}
