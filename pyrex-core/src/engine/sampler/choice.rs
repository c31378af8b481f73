//! [`Choice`]: one token of those that are left, the likeliest or one drawn by chance.

use crate::engine::sampling::SamplingParams;
use crate::ops;

/// How one token is chosen.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    Greedy,
    Draw(Draw),
}

#[derive(Clone, Debug)]
pub(super) struct Draw {
    temperature: f32,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    seed: u64,
    /// Which completion of several.
    index: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token_id: u32,
    /// The logit until [`weigh`], then the weight relative to the likeliest.
    weight: f64,
}

impl Choice {
    pub(super) fn new(params: &SamplingParams, seed: u64) -> Self {
        if params.is_greedy() {
            return Self::Greedy;
        }
        Self::Draw(Draw {
            temperature: params.temperature,
            top_k: params.top_k.unwrap_or(usize::MAX),
            top_p: f64::from(params.top_p.unwrap_or(1.0)),
            min_p: f64::from(params.min_p.unwrap_or(0.0)),
            seed,
            index: 0,
        })
    }

    /// The same rule, for one token at `position`, as whoever draws elsewhere must know it.
    pub(super) fn at(&self, position: usize) -> ops::sampling::Draw {
        let position = position as u32;
        match self {
            Self::Greedy => ops::sampling::Draw { position, ..ops::sampling::Draw::GREEDY },
            Self::Draw(draw) => ops::sampling::Draw {
                temperature: draw.temperature,
                top_k: if draw.top_k == usize::MAX { 0 } else { draw.top_k },
                top_p: draw.top_p,
                min_p: draw.min_p,
                seed: draw.seed,
                index: draw.index,
                position,
            },
        }
    }

    pub(super) fn with_index(&self, index: u32) -> Self {
        match self {
            Self::Greedy => Self::Greedy,
            Self::Draw(draw) => Self::Draw(Draw { index, ..draw.clone() }),
        }
    }

    /// A token of `logits` `[V]` at `position`; `None` if none is above minus infinity.
    pub(super) fn choose(&self, logits: &[f32], position: usize) -> Option<u32> {
        let best = argmax(logits)?;
        match self {
            // Beside an infinite logit nothing else has any weight.
            Self::Draw(draw) if logits[best as usize] < f32::INFINITY => {
                Some(draw.race(&draw.filter(logits), position as u64))
            }
            _ => Some(best),
        }
    }
}

impl From<&ops::sampling::Draw> for Choice {
    fn from(draw: &ops::sampling::Draw) -> Self {
        let ops::sampling::Draw { temperature, top_k, top_p, min_p, seed, index, .. } = *draw;
        let top_k = if top_k == 0 { usize::MAX } else { top_k };
        match temperature > 0.0 {
            true => Self::Draw(Draw { temperature, top_k, top_p, min_p, seed, index }),
            false => Self::Greedy,
        }
    }
}

impl Draw {
    /// The winner of a race in which every token takes a random time, exponentially distributed with its weight as the rate:
    /// each wins with the probability that is its share. A token's time depends on no other, so that two runs whose weights
    /// differ by rounding disagree only where the two fastest are that close. Shares laid end to end, with one number that
    /// falls on one of them, would let every rounding move all borders behind it.
    fn race(&self, candidates: &[Candidate], position: u64) -> u32 {
        let mut winner = (f64::INFINITY, 0);
        for Candidate { token_id, weight } in candidates {
            let time = -uniform(self.seed, position, self.index, *token_id).ln() / weight;
            winner = if (time, *token_id) < winner { (time, *token_id) } else { winner };
        }
        winner.1
    }

    /// The tokens that the filters keep, at least one, weighed.
    fn filter(&self, logits: &[f32]) -> Vec<Candidate> {
        let mut kept = candidates(logits, self.top_k);
        weigh(&mut kept, self.temperature);
        keep_min_p(keep_top_p(kept, self.top_p), self.min_p)
    }
}

/// The index of the greatest value above minus infinity, the lowest among equals; NaN counts as nothing.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    // Values are compared by the block, which vectorises; only the best block is searched for the index.
    const BLOCK: usize = 4096;
    let mut best = (0, f32::NEG_INFINITY);
    for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
        let value = greatest(block);
        if value > best.1 {
            best = (block_idx * BLOCK, value);
        }
    }
    let (start, value) = best;
    let offset = logits[start..].iter().position(|logit| *logit == value && value > f32::NEG_INFINITY)?;
    Some((start + offset) as u32)
}

/// The greatest value; NaN counts as nothing.
fn greatest(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = values.as_chunks::<32>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *value);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater)
}

/// Likelier first, lower ids first among equals.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.token_id.cmp(&b.token_id))
}

/// The `num` greatest of `logits` `[V]`, likelier first; what is impossible is left out.
pub(super) fn greatest_candidates(logits: &[f32], num: usize) -> Vec<Candidate> {
    let mut kept = if num == 0 { Vec::new() } else { candidates(logits, num) };
    kept.sort_unstable_by(likelier);
    kept
}

/// The `top_k` greatest of `logits` `[V]`, in no order; minus infinity and NaN are left out.
fn candidates(logits: &[f32], top_k: usize) -> Vec<Candidate> {
    const BLOCK: usize = 128;
    let enough = top_k.saturating_mul(2).saturating_add(BLOCK);
    let mut kept = Vec::new();
    // Later candidates must beat it: those that equal it have higher ids.
    let mut floor = f32::NEG_INFINITY;
    for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
        if greatest(block) <= floor {
            continue;
        }
        for (offset, &logit) in block.iter().enumerate().filter(|(_, logit)| **logit > floor) {
            // Adding zero makes the two zeros one.
            let weight = f64::from(logit) + 0.0;
            kept.push(Candidate { token_id: (block_idx * BLOCK + offset) as u32, weight });
        }
        if kept.len() >= enough {
            kept = keep_top_k(kept, top_k);
            floor = kept.iter().map(|candidate| candidate.weight).fold(f64::INFINITY, f64::min) as f32;
        }
    }
    keep_top_k(kept, top_k)
}

fn keep_top_k(mut candidates: Vec<Candidate>, top_k: usize) -> Vec<Candidate> {
    if top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, likelier);
        candidates.truncate(top_k);
    }
    candidates
}

/// Replaces each logit by `exp((logit - greatest) / temperature)`.
fn weigh(candidates: &mut [Candidate], temperature: f32) {
    let scaled = |candidate: &Candidate| candidate.weight / f64::from(temperature);
    let greatest = candidates.iter().map(scaled).fold(f64::NEG_INFINITY, f64::max);
    for candidate in candidates {
        candidate.weight = (scaled(candidate) - greatest).exp();
    }
}

/// Keeps the likeliest tokens whose likelier ones have less than `top_p` of the mass: at least one.
fn keep_top_p(mut candidates: Vec<Candidate>, top_p: f64) -> Vec<Candidate> {
    if top_p >= 1.0 {
        return candidates;
    }
    let target = top_p * mass(&candidates);
    let (mut sorted, mut above) = (0, 0.0);
    let mut next = 64;
    loop {
        // Sorting in growing steps: a nucleus is usually far smaller than a vocabulary.
        let end = next.min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted - 1, likelier);
        }
        candidates[sorted..end].sort_unstable_by(likelier);
        for idx in sorted..end {
            above += candidates[idx].weight;
            if above >= target {
                candidates.truncate(idx + 1);
                return candidates;
            }
        }
        if end == candidates.len() {
            return candidates;
        }
        (sorted, next) = (end, end * 4);
    }
}

fn keep_min_p(mut candidates: Vec<Candidate>, min_p: f64) -> Vec<Candidate> {
    // The likeliest token's weight is 1, so that a weight is its probability relative to the likeliest.
    candidates.retain(|candidate| candidate.weight >= min_p);
    candidates
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// A number in (0, 1) with 52 random bits: always the same for the same seed, position, index and token.
fn uniform(seed: u64, position: u64, index: u32, token_id: u32) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, index, token_id];
    let [a, b, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 12;
    (bits as f64 + 0.5) / (1u64 << 52) as f64
}

/// Philox4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let multiply = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high_0, low_0) = multiply(0xD251_1F53, counter[0]);
        let (high_1, low_1) = multiply(0xCD9E_8D57, counter[2]);
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(seed: u64, len: usize) -> Vec<f32> {
        (0..len).map(|i| (uniform(seed, i as u64, 0, 0) * 12.0 - 6.0) as f32).collect()
    }

    /// What any filter is: everything that is possible, likelier first, weighed and cut by a plain sort.
    fn plainly(logits: &[f32], draw: &Draw) -> Vec<u32> {
        let t = f64::from(draw.temperature);
        let possible = (0..).zip(logits).filter(|(_, logit)| logit.is_finite());
        let mut sorted: Vec<(u32, f64)> = possible.map(|(id, logit)| (id, f64::from(*logit) / t)).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let greatest = sorted[0].1;
        sorted.iter_mut().for_each(|(_, logit)| *logit = (*logit - greatest).exp());
        sorted.truncate(draw.top_k);
        let total: f64 = sorted.iter().map(|x| x.1).sum();
        let mut above = 0.0;
        sorted.retain(|x| {
            let keep = above < draw.top_p * total;
            above += x.1;
            keep
        });
        sorted.retain(|x| x.1 >= draw.min_p);
        sorted.iter().map(|x| x.0).collect()
    }

    #[test]
    fn philox_matches_its_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn argmax_is_the_lowest_id_of_the_greatest() {
        for (logits, expected) in [
            (vec![0.0, 3.0, 3.0, 1.0], Some(1)),
            (vec![-0.0, 0.0], Some(0)),
            (vec![f32::NAN, -2.0, -1.0], Some(2)),
            (vec![f32::NAN, f32::INFINITY, f32::INFINITY], Some(1)),
            (vec![f32::NEG_INFINITY, f32::MIN], Some(1)),
            (vec![f32::NEG_INFINITY, f32::NEG_INFINITY], None),
            (vec![f32::NAN; 5000], None),
            (vec![], None),
        ] {
            assert_eq!(argmax(&logits), expected, "{logits:?}");
        }
        for seed in 0..50 {
            // Few different values, so that the greatest is there many times, and NaN among them.
            let steps = logits(seed, 9000 + seed as usize).into_iter().map(|x| x.round());
            let logits: Vec<f32> = steps.map(|x| if x == 2.0 { f32::NAN } else { x }).collect();
            let plain = (0..).zip(&logits).filter(|(_, x)| !x.is_nan());
            let plain = plain.fold((0, f32::NEG_INFINITY), |a, (i, &x)| if x > a.1 { (i, x) } else { a });
            assert_eq!(argmax(&logits), Some(plain.0), "seed {seed}");
        }
    }

    #[test]
    fn filters_keep_what_a_plain_sort_keeps() {
        for seed in 0..60 {
            // Ties, and more candidates than fit the first selection.
            let ties = logits(seed, 3000).into_iter().map(|x| (x * 8.0).round() / 8.0);
            let mut logits: Vec<f32> = if seed % 2 == 0 { logits(seed, 200) } else { ties.collect() };
            logits[7] = f32::NAN;
            logits[8] = f32::NEG_INFINITY;
            let draw = Draw {
                temperature: 0.7,
                top_k: if seed % 5 == 0 { usize::MAX } else { 1 + seed as usize * 3 % 130 },
                top_p: 0.05 + 0.016 * seed as f64,
                min_p: 0.005 * seed as f64,
                seed,
                index: 0,
            };
            let mut kept = draw.filter(&logits);
            kept.sort_unstable_by(likelier);
            let kept: Vec<u32> = kept.iter().map(|candidate| candidate.token_id).collect();
            assert_eq!(kept, plainly(&logits, &draw), "seed {seed}");
        }
    }

    #[test]
    fn rising_logits_leave_the_last_ones() {
        let logits: Vec<f32> = (0..20_000).map(|i| i as f32).collect();
        let top: Vec<u32> = greatest_candidates(&logits, 3).iter().map(|c| c.token_id).collect();
        assert_eq!(top, [19_999, 19_998, 19_997]);
        assert!(greatest_candidates(&logits, 0).is_empty());
    }
}
