//! [`GrammarCompiler`]: JSON schemas, regular expressions and Lark grammars as constraints, by way of llguidance.
//!
//! A grammar says what bytes the whole answer may be; which tokens spell them is the model's choice. Where the grammar
//! may end the model's stop ids are allowed, and of the special tokens only the marks of the family's answers, where it names them. llguidance walks a trie of all tokens, so its
//! work per token grows with what is allowed, not with the vocabulary: with Gemma 4's 262,144 entries the schema of an
//! object takes 20 us per token, 0.1 ms at worst. The trie takes 0.6 s and 90 MB, once.
//!
//! Grammars come from strangers. llguidance recurses along their references and takes time in the square of a regular
//! expression's length, so their size is bounded, and it reads them on a thread of its own with a deep stack and a
//! deadline; its own limits bound every token. What panics in it becomes an error; for that it wraps the process's panic
//! hook once, and hands on every panic that is not its own.

use super::constraint::{Grammar, TokenConstraint, TokenMask, guard};
use crate::error::{Error, Result};
use crate::prompt::detokenizer::TokenBytes;
use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// The most bytes that the text of a grammar may have.
pub const MAX_GRAMMAR_BYTES: usize = 128 * 1024;
/// The most bytes of a regular expression: of a whole one, of a string of a JSON schema, of a line of a Lark grammar.
pub const MAX_REGEX_BYTES: usize = 8 * 1024;
/// How long a grammar may take to compile.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// Several times what the longest chain of references takes that fits into [`MAX_GRAMMAR_BYTES`].
const STACK_BYTES: usize = 256 << 20;
/// The most bytes of a token that a grammar can produce: the trie holds no much longer ones.
const MAX_TOKEN_BYTES: usize = 512;
/// A small model may say white space forever; between two parts of a JSON text it gets so much and no more.
const JSON_WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// Compiles grammars for one vocabulary. Making one takes a moment, so keep it.
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    /// Ids that say something or end the answer: what a grammar names beside them stays forbidden.
    producible: Arc<TokenMask>,
}

impl GrammarCompiler {
    /// Builds the trie of a vocabulary, what every id says by id, whose answers end with `stop_ids`.
    ///
    /// # Errors
    /// `Unsupported` if llguidance cannot hold the vocabulary.
    pub fn new(vocabulary: &[TokenBytes], stop_ids: &[u32]) -> Result<Self> {
        let num_ids = stop_ids.iter().map(|id| *id as usize + 1).fold(vocabulary.len(), usize::max);
        let mut producible = TokenMask::new(num_ids);
        let mut words = vec![Vec::new(); num_ids];
        for (token_id, token) in (0..).zip(vocabulary) {
            let says = token.as_deref().unwrap_or_default();
            if (1..=MAX_TOKEN_BYTES).contains(&says.len()) && !stop_ids.contains(&token_id) {
                words[token_id as usize] = says.to_vec();
                producible.allow(token_id);
            }
        }
        stop_ids.iter().for_each(|id| producible.allow(*id));
        let factory = guard(|| factory(&words, stop_ids))?;
        Ok(Self { factory: Arc::new(factory), producible: Arc::new(producible) })
    }

    /// The same compiler, for grammars that may name these special tokens, as in `<[48]>`.
    pub fn with_marks(self, marks: &[u32]) -> Self {
        let mut producible = (*self.producible).clone();
        marks.iter().for_each(|id| producible.allow(*id));
        Self { producible: Arc::new(producible), ..self }
    }

    /// A fresh constraint that holds an answer to `grammar`.
    ///
    /// # Errors
    /// `InvalidRequest` with llguidance's words if the grammar is wrong, has no answer, or asks for too much.
    pub fn compile(&self, grammar: &Grammar) -> Result<Box<dyn TokenConstraint>> {
        let (kind, text) = match grammar {
            Grammar::JsonSchema(text) => ("json_schema", text),
            Grammar::Regex(text) => ("regex", text),
            Grammar::Lark(text) => ("lark", text),
        };
        check_size(grammar, text).map_err(|error| error.context(kind))?;
        let (factory, text) = (self.factory.clone(), text.clone());
        let matcher = apart(move || matcher(&factory, kind, &text)).map_err(|error| error.context(kind))?;
        Ok(Box::new(GrammarConstraint { matcher, producible: self.producible.clone() }))
    }
}

/// One answer's place in its grammar.
struct GrammarConstraint {
    matcher: Matcher,
    producible: Arc<TokenMask>,
}

impl TokenConstraint for GrammarConstraint {
    fn allowed(&mut self, mask: &mut TokenMask) -> Result<()> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(refused)?;
        mask.allow_words(allowed.as_slice());
        mask.forbid_others(&self.producible);
        Ok(())
    }

    fn accept(&mut self, token_id: u32) -> Result<()> {
        self.matcher.consume_token(token_id).map_err(refused)
    }

    fn is_complete(&self) -> bool {
        matches!(self.matcher.stop_reason(), StopReason::NoExtension | StopReason::EndOfSentence)
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        // A deep clone shares no lexer: what a fork runs into is its own.
        Box::new(Self { matcher: self.matcher.deep_clone(), producible: self.producible.clone() })
    }
}

fn factory(words: &[Vec<u8>], stop_ids: &[u32]) -> Result<ParserFactory> {
    let info = TokRxInfo::new(words.len() as u32, stop_ids.first().copied().unwrap_or(INVALID_TOKEN));
    let trie = TokTrie::from(&info, words);
    let trie = if stop_ids.is_empty() { trie } else { trie.with_eos_tokens(stop_ids) };
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory =
        ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(|error| {
            Error::unsupported(format_args!("a vocabulary for grammars: {}", first_line(error)))
        })?;
    factory.quiet();
    // A state takes one to two kilobytes, and llguidance's own limit is made for grammars one trusts.
    *factory.limits_mut() =
        ParserLimits { max_lexer_states: 50_000, verbose_errors: false, ..ParserLimits::default() };
    Ok(factory)
}

/// Compiles, and looks at the first token, so that a grammar without an answer is refused here.
fn matcher(factory: &ParserFactory, kind: &str, text: &str) -> Result<Matcher> {
    let mut parsed = TopLevelGrammar::from_tagged_str(kind, text).map_err(refused)?;
    for schema in parsed.grammars.iter_mut().filter_map(|grammar| grammar.json_schema.as_mut()) {
        if schema.is_object() && schema.get("x-guidance").is_none() {
            let whitespace_pattern = Some(JSON_WHITESPACE.to_owned());
            JsonCompileOptions { whitespace_pattern, ..JsonCompileOptions::default() }.apply_to(schema);
        }
    }
    let mut matcher = Matcher::new(factory.create_parser(parsed));
    matcher.compute_mask_or_eos().map_err(refused)?;
    Ok(matcher)
}

/// What llguidance says is about the grammar, unless it panicked.
fn refused(error: impl Display) -> Error {
    match first_line(error) {
        line if line.starts_with("panic") => Error::internal(format_args!("llguidance: {line}")),
        line if line == StopReason::NoExtensionBias.to_string() => {
            Error::invalid_request("the grammar allows no token here")
        }
        line => Error::invalid_request(line),
    }
}

/// Runs `body` on a thread with a deep stack, for so long and no longer.
fn apart<T: Send + 'static>(body: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = sync_channel(1);
    let builder = thread::Builder::new().name("pyrex-grammar".to_owned()).stack_size(STACK_BYTES);
    // Whoever waits may have gone by the time there is a result.
    let running = builder.spawn(move || drop(done.send(guard(body))));
    running.map_err(|e| Error::io(format_args!("cannot start a thread for a grammar: {e}")))?;
    result.recv_timeout(COMPILE_TIMEOUT).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(Error::invalid_request(format_args!(
            "the grammar takes longer than {} s to compile",
            COMPILE_TIMEOUT.as_secs()
        ))),
        RecvTimeoutError::Disconnected => Err(Error::internal("the thread of a grammar is gone")),
    })
}

/// Refuses what llguidance might not read in bounded time and stack.
fn check_size(grammar: &Grammar, text: &str) -> Result<()> {
    let (what, longest) = match grammar {
        Grammar::Regex(_) => ("it", text.len()),
        Grammar::JsonSchema(_) => ("a string in it", longest_string(text)),
        Grammar::Lark(_) => ("a line of it", text.lines().map(str::len).max().unwrap_or(0)),
    };
    for (what, found, most) in [("it", text.len(), MAX_GRAMMAR_BYTES), (what, longest, MAX_REGEX_BYTES)] {
        if found > most {
            let message = format_args!("{what} has {found} bytes, expected at most {most}");
            return Err(Error::invalid_request(message));
        }
    }
    Ok(())
}

/// How many bytes the longest string of a JSON text has as it is written.
fn longest_string(json: &str) -> usize {
    let (mut longest, mut start, mut escaped) = (0, None, false);
    for (at, byte) in json.bytes().enumerate() {
        match (start, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), b'"') => {
                longest = longest.max(at - open);
                start = None;
            }
            (None, b'"') => start = Some(at + 1),
            _ => {}
        }
    }
    longest.max(start.map_or(0, |open| json.len() - open))
}

fn first_line(error: impl Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
