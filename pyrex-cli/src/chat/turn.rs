//! One turn: its answer is written as it comes, and kept.

use super::interrupt::Interrupt;
use crate::fail::Failure;
use pyrex_core::{Engine, ErrorKind, Event, Message, RequestHandle, Session, Timings, Usage};
use std::io::{self, Write, stdout};

/// What is known of an answer once it was written.
#[derive(Default)]
pub(super) struct Told {
    /// Whether Ctrl-C ended it.
    pub(super) is_cancelled: bool,
    num_tokens: usize,
    figures: Option<(Usage, Timings)>,
}

impl Told {
    /// How fast it came, in one line.
    pub(super) fn speed(&self) -> String {
        let Some((usage, timings)) = &self.figures else {
            return format!("{} tokens", self.num_tokens);
        };
        // The first token comes with the prompt.
        let steps = usage.completion_tokens.saturating_sub(1) as f64;
        let rate = steps / (timings.decode_ms / 1e3).max(f64::MIN_POSITIVE);
        let rate = if steps > 0.0 { format!(", {rate:.1} tokens/s") } else { String::new() };
        format!(
            "{} tokens{rate}; the first after {:.0} ms and {} tokens of prompt, {} of them remembered",
            usage.completion_tokens, timings.ttft_ms, usage.prompt_tokens, usage.cached_tokens
        )
    }
}

/// Says `message` and writes the answer. Both are kept, the answer as far as it came; if nothing came, neither is.
pub(super) fn answer(
    engine: &Engine,
    session: &mut Session,
    message: Message,
    interrupt: &Interrupt,
) -> Result<Told, Failure> {
    let events = engine.submit(session.request(message.clone()))?;
    let aimed = interrupt.aim(events.control());
    let mut text = String::new();
    let told = write(events, &mut text);
    drop(aimed);
    writeln!(stdout())?;
    let told = told?;
    if !text.is_empty() {
        session.keep(message, &text);
    }
    Ok(told)
}

fn write(events: RequestHandle, answer: &mut String) -> Result<Told, Failure> {
    let (mut told, mut stdout) = (Told::default(), stdout());
    for event in events {
        match event {
            Event::Started { .. } => {}
            Event::Token { text, .. } => {
                told.num_tokens += 1;
                *answer += &text;
                write_shown(&mut stdout, &text)?;
            }
            Event::Finished { usage, timings, .. } => told.figures = Some((usage, timings)),
            Event::Failed(error) if error.kind() == ErrorKind::Cancelled => told.is_cancelled = true,
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Ok(told)
}

/// A model may say what moves a terminal's cursor or renames its window: that is shown, not obeyed.
fn write_shown(stdout: &mut impl Write, text: &str) -> io::Result<()> {
    let moves = |c: char| c.is_control() && c != '\n' && c != '\t';
    stdout.write_all(text.replace(moves, "\u{fffd}").as_bytes())?;
    stdout.flush()
}
