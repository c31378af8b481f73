//! Many requests at once: what they get together, against one of them alone.
//!
//! After a request that does not count, a round is one request alone and then all of them, submitted at once; each figure is
//! the median over [`NUM_RUNS`] rounds. Prompts differ from the first token on, and the prefix cache is off.
//!
//! Who decodes together is told by step: the time of every token is noted on the engine's own thread, with the number of
//! steps done before. The **decode phase** begins after the step that gives the last request its first token, and ends before
//! the step that gives the first one its last: in each step between, every request gets one token and no prompt runs. Its
//! length is the time between the last tokens of the steps that bound it. A request alone is measured the same way.

use super::machine::peak_rss_bytes;
use super::timeline::{DecodePhase, Stream, submit_all};
use super::{Arguments, NUM_RUNS, Setup, median, open, with_head};
use crate::fail::Failure;
use crate::made_up::made_up_prompt;
use pyrex_core::{EncodedPrompt, Engine};
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// What the longest sequence may have beyond what is asked: a request begins only where a block is left for each that runs.
const SPARE_TOKENS: usize = 32;

struct Round {
    alone: Option<DecodePhase>,
    together: Option<DecodePhase>,
    /// From the first submit to the last token.
    wall_s: f64,
    generated_tokens: usize,
    ttft_ms: Vec<f64>,
}

/// The medians over all rounds. The decode phase is missing if no step decodes all of them: with fewer sequences in a step
/// than requests, or if the first one ends before the last one begins.
struct Figures {
    num_requests: usize,
    max_sequences: usize,
    prompt_tokens: usize,
    max_tokens: usize,
    decode: Option<DecodeFigures>,
    wall_s: f64,
    /// Over all of the wall time, prefills included.
    generated_tokens_per_s: f64,
    mean_ttft_ms: f64,
    max_ttft_ms: f64,
    /// Sequences that gave their cache blocks to others: none, if memory has room for all.
    preemptions: u64,
    peak_rss_bytes: Option<u64>,
}

struct DecodeFigures {
    num_steps: usize,
    tokens_per_s: f64,
    /// From the end of a step to the end of the next.
    step_ms: f64,
    /// The share of the steps' time that the engine says neither decoder nor vision tower took.
    overhead: f64,
    /// The same against the whole time between steps, what the engine does not count included.
    wall_overhead: f64,
    alone_tokens_per_s: f64,
    alone_step_ms: f64,
    alone_overhead: f64,
    /// Of each round's own two rates.
    ratio: f64,
}

/// Runs the mode.
pub(super) fn run(arguments: &Arguments, num_requests: usize) -> Result<(), Failure> {
    // As short as may be: then memory has room for all of them, and nobody waits for another's blocks.
    let max_model_len = Some(arguments.prompt_tokens + arguments.max_tokens + SPARE_TOKENS);
    let max_sequences = arguments.max_sequences.unwrap_or(num_requests);
    let setup = Setup { max_model_len, max_sequences: Some(max_sequences), ..Setup::default() };
    let engine = open(arguments, setup)?;
    submit_all(&engine, vec![prompt(&engine, arguments, 0)], arguments.max_tokens)?;
    let rounds = (0..NUM_RUNS).map(|_| round(&engine, arguments, num_requests));
    let rounds: Vec<Round> = rounds.collect::<Result<_, _>>()?;
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let figures = Figures {
        num_requests,
        max_sequences,
        prompt_tokens: arguments.prompt_tokens,
        max_tokens: arguments.max_tokens,
        decode: decode_figures(&rounds),
        wall_s: of(|round| round.wall_s),
        generated_tokens_per_s: of(|round| round.generated_tokens as f64 / round.wall_s),
        mean_ttft_ms: of(|round| round.ttft_ms.iter().sum::<f64>() / round.ttft_ms.len() as f64),
        max_ttft_ms: of(|round| round.ttft_ms.iter().copied().fold(0.0, f64::max)),
        preemptions: engine.stats().preemptions,
        peak_rss_bytes: peak_rss_bytes(),
    };
    match arguments.json {
        true => Ok(writeln!(stdout(), "{}", with_head(arguments, as_json(&figures)))?),
        false => print(&figures),
    }
}

fn round(engine: &Engine, arguments: &Arguments, num_requests: usize) -> Result<Round, Failure> {
    let (_, alone) = submit_all(engine, vec![prompt(engine, arguments, 0)], arguments.max_tokens)?;
    let prompts = (0..num_requests).map(|seed| prompt(engine, arguments, seed)).collect();
    let (submitted, streams) = submit_all(engine, prompts, arguments.max_tokens)?;
    let ends = streams.iter().filter_map(Stream::ended_at);
    Ok(Round {
        alone: DecodePhase::of(&alone),
        together: DecodePhase::of(&streams),
        wall_s: ends.max().map_or(0.0, |end| (end - submitted).as_secs_f64()),
        generated_tokens: streams.iter().map(|stream| stream.tokens.len()).sum(),
        ttft_ms: streams.iter().map(|stream| stream.ttft_ms).collect(),
    })
}

fn prompt(engine: &Engine, arguments: &Arguments, seed: usize) -> EncodedPrompt {
    made_up_prompt(engine.spec(), seed, arguments.prompt_tokens)
}

fn decode_figures(rounds: &[Round]) -> Option<DecodeFigures> {
    let pairs = rounds.iter().map(|round| Some((round.alone.as_ref()?, round.together.as_ref()?)));
    let pairs: Vec<(&DecodePhase, &DecodePhase)> = pairs.collect::<Option<_>>()?;
    let of = |figure: fn(&DecodePhase, &DecodePhase) -> f64| {
        median(pairs.iter().map(|(alone, together)| figure(alone, together)).collect())
    };
    Some(DecodeFigures {
        num_steps: pairs[0].1.num_steps,
        tokens_per_s: of(|_, together| together.tokens_per_s()),
        step_ms: of(|_, together| together.step_ms()),
        overhead: of(|_, together| together.times.overhead()),
        wall_overhead: of(|_, together| together.wall_overhead()),
        alone_tokens_per_s: of(|alone, _| alone.tokens_per_s()),
        alone_step_ms: of(|alone, _| alone.step_ms()),
        alone_overhead: of(|alone, _| alone.times.overhead()),
        ratio: of(|alone, together| together.tokens_per_s() / alone.tokens_per_s()),
    })
}

fn print(figures: &Figures) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(
        out,
        "requests     {:10}        {} tokens each, {} generated, {} in a step",
        figures.num_requests, figures.prompt_tokens, figures.max_tokens, figures.max_sequences
    )?;
    match &figures.decode {
        None => writeln!(out, "decode       {:>10}        no step decodes all of them", "-")?,
        Some(decode) => {
            writeln!(
                out,
                "decode       {:10.1} tok/s  {} steps of {:.1} ms",
                decode.tokens_per_s, decode.num_steps, decode.step_ms
            )?;
            writeln!(
                out,
                "  overhead   {:10.2} %      {:.2} % of the time between steps",
                decode.overhead * 100.0,
                decode.wall_overhead * 100.0
            )?;
            writeln!(
                out,
                "  one alone  {:10.1} tok/s  steps of {:.1} ms, overhead {:.2} %",
                decode.alone_tokens_per_s,
                decode.alone_step_ms,
                decode.alone_overhead * 100.0
            )?;
            writeln!(out, "  ratio      {:10.2} x", decode.ratio)?;
        }
    }
    writeln!(
        out,
        "all          {:10.1} tok/s  in {:.2} s, prefills included",
        figures.generated_tokens_per_s, figures.wall_s
    )?;
    writeln!(
        out,
        "first token  {:10.1} ms     on average, {:.1} at most",
        figures.mean_ttft_ms, figures.max_ttft_ms
    )?;
    if let Some(bytes) = figures.peak_rss_bytes {
        writeln!(out, "peak memory  {:10.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    Ok(())
}

fn as_json(figures: &Figures) -> Value {
    let decode = figures.decode.as_ref().map(|decode| {
        json!({
            "num_steps": decode.num_steps,
            "tokens_per_s": decode.tokens_per_s,
            "step_ms": decode.step_ms,
            "overhead": decode.overhead,
            "wall_overhead": decode.wall_overhead,
            "alone_tokens_per_s": decode.alone_tokens_per_s,
            "alone_step_ms": decode.alone_step_ms,
            "alone_overhead": decode.alone_overhead,
            "ratio": decode.ratio,
        })
    });
    json!({
        "num_requests": figures.num_requests,
        "max_sequences": figures.max_sequences,
        "prompt_tokens": figures.prompt_tokens,
        "max_tokens": figures.max_tokens,
        "decode": decode,
        "wall_s": figures.wall_s,
        "generated_tokens_per_s": figures.generated_tokens_per_s,
        "mean_ttft_ms": figures.mean_ttft_ms,
        "max_ttft_ms": figures.max_ttft_ms,
        "preemptions": figures.preemptions,
        "peak_rss_bytes": figures.peak_rss_bytes,
    })
}
