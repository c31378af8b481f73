//! [`Stream`]: when each token of a request came, and after how many steps; [`DecodePhase`]: the steps in which all decode.

use super::answer_of;
use crate::fail::Failure;
use pyrex_core::{EncodedPrompt, Engine, EngineStats, Error, Event, EventSink, Request, StepTimes};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// What one request was told.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) tokens: Vec<Told>,
    /// From submit to the first token, as the engine says.
    pub(super) ttft_ms: f64,
}

/// One token.
#[derive(Clone, Copy)]
pub(super) struct Told {
    at: Instant,
    /// As they stood before the step that chose it.
    stats: EngineStats,
}

/// Steps in each of which every request gets one token and no prompt runs.
pub(super) struct DecodePhase {
    pub(super) num_steps: usize,
    num_tokens: usize,
    seconds: f64,
    /// What the engine says of these steps.
    pub(super) times: StepTimes,
}

/// Notes the events of one request on the engine's own thread: there, no step ends between a token and its statistics.
struct Witness {
    engine: Engine,
    request_idx: usize,
    seen: Sender<(usize, Told, Event)>,
}

impl EventSink for Witness {
    fn send(&mut self, event: Event) {
        let told = Told { at: Instant::now(), stats: self.engine.stats() };
        // Nobody listens any more once a request has failed.
        drop(self.seen.send((self.request_idx, told, event)));
    }
}

/// Asks everything at once and waits for all answers. Also says when.
pub(super) fn submit_all(
    engine: &Engine,
    prompts: Vec<EncodedPrompt>,
    max_tokens: usize,
) -> Result<(Instant, Vec<Stream>), Failure> {
    let mut streams: Vec<Stream> = prompts.iter().map(|_| Stream::default()).collect();
    let (sender, seen) = channel();
    let submitted = Instant::now();
    for (request_idx, prompt) in prompts.into_iter().enumerate() {
        let witness = Witness { engine: engine.clone(), request_idx, seen: sender.clone() };
        let request = Request::new(prompt).with_sampling(answer_of(max_tokens));
        engine.submit_to(request, Box::new(witness))?;
    }
    drop(sender);
    let mut num_live = streams.len();
    while num_live > 0 {
        let gone = |_| Error::internal("a request ended without a final event");
        let (request_idx, told, event) = seen.recv().map_err(gone)?;
        match event {
            Event::Started { .. } => {}
            Event::Token { .. } => streams[request_idx].tokens.push(told),
            Event::Finished { timings, .. } => {
                streams[request_idx].ttft_ms = timings.ttft_ms;
                num_live -= 1;
            }
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Ok((submitted, streams))
}

impl Stream {
    /// When its last token came.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.tokens.last().map(|told| told.at)
    }
}

impl Told {
    /// The number of the step that chose it.
    fn step(&self) -> u64 {
        self.stats.num_steps
    }
}

impl DecodePhase {
    /// The phase between the step of the latest first token and the step of the earliest last one, neither included.
    pub(super) fn of(streams: &[Stream]) -> Option<Self> {
        let begins = streams.iter().map(|stream| stream.tokens.first().map(Told::step));
        let ends = streams.iter().map(|stream| stream.tokens.last().map(Told::step));
        let (before, after) = (begins.max()??, ends.min()??);
        let num_steps = after.checked_sub(before + 1).filter(|steps| *steps > 0)? as usize;
        let all = || streams.iter().flat_map(|stream| &stream.tokens);
        let step_end = |step| all().filter(|told| told.step() == step).map(|told| told.at).max();
        let stats_before = |step| all().find(|told| told.step() == step).map(|told| told.stats);
        let (first, last) = (stats_before(before + 1)?, stats_before(after)?);
        Some(Self {
            num_steps,
            num_tokens: all().filter(|told| before < told.step() && told.step() < after).count(),
            seconds: (step_end(after - 1)? - step_end(before)?).as_secs_f64(),
            times: difference(&last.step_times, &first.step_times),
        })
    }

    pub(super) fn tokens_per_s(&self) -> f64 {
        self.num_tokens as f64 / self.seconds
    }

    /// From the end of a step to the end of the next, on average.
    pub(super) fn step_ms(&self) -> f64 {
        self.seconds * 1e3 / self.num_steps as f64
    }

    /// The share of the time that the decoder did not run.
    pub(super) fn wall_overhead(&self) -> f64 {
        1.0 - (self.times.encode_images_ms + self.times.forward_ms) / (self.seconds * 1e3)
    }
}

fn difference(later: &StepTimes, earlier: &StepTimes) -> StepTimes {
    StepTimes {
        plan_ms: later.plan_ms - earlier.plan_ms,
        encode_images_ms: later.encode_images_ms - earlier.encode_images_ms,
        forward_ms: later.forward_ms - earlier.forward_ms,
        sample_ms: later.sample_ms - earlier.sample_ms,
        deliver_ms: later.deliver_ms - earlier.deliver_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A request that got a token in each of these steps. Step `n` ends after `10 n` ms, and takes 9 ms of decoder.
    fn stream(started: Instant, steps: std::ops::Range<u64>) -> Stream {
        let told = |step| Told {
            at: started + Duration::from_millis(10 * step),
            stats: EngineStats {
                num_steps: step,
                step_times: StepTimes { forward_ms: 9.0 * step as f64, ..StepTimes::default() },
                ..EngineStats::default()
            },
        };
        Stream { tokens: steps.map(told).collect(), ttft_ms: 0.0 }
    }

    #[test]
    fn the_decode_phase_has_neither_the_last_first_token_nor_the_first_last_one() {
        let started = Instant::now();
        let phase = |ranges: &[std::ops::Range<u64>]| {
            let streams: Vec<Stream> = ranges.iter().map(|range| stream(started, range.clone())).collect();
            DecodePhase::of(&streams)
        };
        // Begun by step 4, and nobody ends before step 8: steps 5, 6 and 7.
        let all = phase(&[1..9, 4..12, 2..10]).expect("three steps are common");
        assert_eq!((all.num_steps, all.num_tokens), (3, 9));
        assert!((all.step_ms() - 10.0).abs() < 1e-9 && (all.tokens_per_s() - 300.0).abs() < 1e-6);
        assert!((all.wall_overhead() - 0.1).abs() < 1e-9);
        for none in [&[1..4, 4..8][..], &[1..6, 4..8], &[1..3, 1..3], &[1..9, 4..4], &[]] {
            assert!(phase(none).is_none(), "{none:?}");
        }
    }
}
