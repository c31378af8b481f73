//! A prompt whose beginning an earlier request has computed: how much sooner its first token comes.
//!
//! A round is three requests, one after another, each of the prefix and a few tokens of its own: the first one fills the
//! cache, the second shares its prefix, and the third is the second again under another salt, for which the cache holds
//! nothing. The engine's own time from submit to the first token counts; each figure is the median over [`NUM_RUNS`] rounds.

use super::{Arguments, NUM_RUNS, Setup, answer_of, median, open, room_for, with_head};
use crate::fail::Failure;
use crate::made_up::made_up_ids;
use pyrex_core::{Completion, EncodedPrompt, Engine, Request};
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// Tokens of each request after the prefix: a short question.
const OWN_TOKENS: usize = 16;

struct Round {
    cached_tokens: usize,
    cached_ttft_ms: f64,
    cold_ttft_ms: f64,
}

/// The medians over all rounds.
struct Figures {
    prefix_tokens: usize,
    /// Tokens that the second request found in the cache: whole blocks only.
    cached_tokens: usize,
    cached_ttft_ms: f64,
    cold_ttft_ms: f64,
    /// Of each round's own two times.
    ratio: f64,
}

/// Runs the mode.
pub(super) fn run(arguments: &Arguments, prefix_tokens: usize) -> Result<(), Failure> {
    let max_model_len = room_for(prefix_tokens + OWN_TOKENS + 1);
    let engine = open(arguments, Setup { max_model_len, prefix_cache: true, ..Setup::default() })?;
    round(&engine, prefix_tokens, "warm-up")?;
    let rounds = (0..NUM_RUNS).map(|run| round(&engine, prefix_tokens, &run.to_string()));
    let rounds: Vec<Round> = rounds.collect::<Result<_, _>>()?;
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let figures = Figures {
        prefix_tokens,
        cached_tokens: rounds[0].cached_tokens,
        cached_ttft_ms: of(|round| round.cached_ttft_ms),
        cold_ttft_ms: of(|round| round.cold_ttft_ms),
        ratio: of(|round| round.cold_ttft_ms / round.cached_ttft_ms),
    };
    match arguments.json {
        true => Ok(writeln!(stdout(), "{}", with_head(arguments, as_json(&figures)))?),
        false => print(&figures),
    }
}

/// `name`: no other round's salt.
fn round(engine: &Engine, prefix_tokens: usize, name: &str) -> Result<Round, Failure> {
    let prefix = made_up_ids(engine.spec(), 0, prefix_tokens);
    let ask = |own: usize, salt: String| -> Result<Completion, Failure> {
        let own = made_up_ids(engine.spec(), own, OWN_TOKENS);
        let prompt = EncodedPrompt { input_ids: [&prefix[..], &own].concat(), ..EncodedPrompt::default() };
        let request = Request::new(prompt).with_sampling(answer_of(1));
        Ok(engine.submit(Request { cache_salt: salt, ..request })?.wait()?)
    };
    ask(1, format!("{name}, shared"))?;
    let cached = ask(2, format!("{name}, shared"))?;
    let cold = ask(2, format!("{name}, cold"))?;
    Ok(Round {
        cached_tokens: cached.usage.cached_tokens,
        cached_ttft_ms: cached.timings.ttft_ms,
        cold_ttft_ms: cold.timings.ttft_ms,
    })
}

fn print(figures: &Figures) -> Result<(), Failure> {
    let Figures { prefix_tokens, cached_tokens, cached_ttft_ms, cold_ttft_ms, ratio } = figures;
    let mut out = stdout();
    writeln!(out, "prefix       {prefix_tokens:10} tokens, {OWN_TOKENS} more of each request's own")?;
    writeln!(out, "first token  {cold_ttft_ms:10.1} ms     nothing in the cache")?;
    writeln!(out, "  shared     {cached_ttft_ms:10.1} ms     {cached_tokens} tokens in the cache")?;
    writeln!(out, "  sooner     {ratio:10.1} x")?;
    Ok(())
}

fn as_json(figures: &Figures) -> Value {
    json!({
        "prefix_tokens": figures.prefix_tokens,
        "own_tokens": OWN_TOKENS,
        "cached_tokens": figures.cached_tokens,
        "cold_ttft_ms": figures.cold_ttft_ms,
        "cached_ttft_ms": figures.cached_ttft_ms,
        "ratio": figures.ratio,
    })
}
