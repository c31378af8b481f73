//! [`Sampler`]: from logits to the next token.
//!
//! Greedy decoding takes the likeliest token, the lowest id among equals. Otherwise the filters apply in the order of
//! Transformers' logits processors: temperature, top-k, top-p, min-p; then one token is drawn from what is left.
//!
//! The draw comes from a counter-based generator, Philox4x32-10 with the seed as its key and the token's position as
//! its counter. It has no state: a request's tokens depend on its seed and positions, never on its neighbours.

use super::sampling::SamplingParams;

/// Chooses the tokens of one request.
#[derive(Clone, Debug)]
pub struct Sampler {
    choice: Choice,
}

#[derive(Clone, Debug)]
enum Choice {
    Greedy,
    Draw { temperature: f32, top_k: usize, top_p: f64, min_p: f64, seed: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token_id: u32,
    /// The scaled logit until [`Candidate::weigh`], then the weight relative to the likeliest.
    weight: f64,
}

impl Sampler {
    /// A sampler for valid `params`; `seed` is used where they name none.
    pub fn new(params: &SamplingParams, seed: u64) -> Self {
        if params.is_greedy() {
            return Self { choice: Choice::Greedy };
        }
        let choice = Choice::Draw {
            temperature: params.temperature,
            top_k: params.top_k.unwrap_or(usize::MAX),
            top_p: f64::from(params.top_p.unwrap_or(1.0)),
            min_p: f64::from(params.min_p.unwrap_or(0.0)),
            seed: params.seed.unwrap_or(seed),
        };
        Self { choice }
    }

    /// The token at `position`, chosen from `logits` `[V]`.
    pub fn sample(&self, logits: &[f32], position: usize) -> u32 {
        match self.choice {
            Choice::Greedy => argmax(logits),
            Choice::Draw { temperature, top_k, top_p, min_p, seed } => {
                let mut kept = keep_top_k(scaled(logits, temperature), top_k);
                if kept.is_empty() {
                    return argmax(logits);
                }
                weigh(&mut kept);
                let mut kept = keep_min_p(keep_top_p(kept, top_p), min_p);
                kept.sort_unstable_by_key(|candidate| candidate.token_id);
                draw(&kept, uniform(seed, position as u64))
            }
        }
    }
}

/// The index of the greatest value, the lowest among equals; NaN counts as nothing.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token_id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token_id, logit);
        }
    }
    best.0 as u32
}

fn scaled(logits: &[f32], temperature: f32) -> Vec<Candidate> {
    let scale = |(token_id, &logit): (usize, &f32)| {
        let weight = f64::from(logit) / f64::from(temperature);
        weight.is_finite().then_some(Candidate { token_id: token_id as u32, weight })
    };
    logits.iter().enumerate().filter_map(scale).collect()
}

/// Likelier first, lower ids first among equals.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.token_id.cmp(&b.token_id))
}

fn keep_top_k(mut candidates: Vec<Candidate>, top_k: usize) -> Vec<Candidate> {
    if top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, likelier);
        candidates.truncate(top_k);
    }
    candidates
}

/// Replaces each logit by `exp(logit - greatest)`.
fn weigh(candidates: &mut [Candidate]) {
    let greatest = candidates.iter().map(|candidate| candidate.weight).fold(f64::NEG_INFINITY, f64::max);
    for candidate in candidates {
        candidate.weight = (candidate.weight - greatest).exp();
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

/// The candidate in whose share of the mass `u`, in [0, 1), falls.
fn draw(candidates: &[Candidate], u: f64) -> u32 {
    let mut left = u * mass(candidates);
    for candidate in candidates {
        left -= candidate.weight;
        if left < 0.0 {
            return candidate.token_id;
        }
    }
    // Rounding may leave a crumb: it belongs to the last one with any weight.
    let last = candidates.iter().rev().find(|candidate| candidate.weight > 0.0);
    last.map_or(0, |candidate| candidate.token_id)
}

/// A number in [0, 1) with 53 random bits, the same for the same seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let [a, b, ..] =
        philox([position as u32, (position >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
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
        (0..len).map(|i| (uniform(seed, i as u64) * 12.0 - 6.0) as f32).collect()
    }

    fn params(temperature: f32) -> SamplingParams {
        SamplingParams { temperature, ..SamplingParams::default() }
    }

    /// Every token that some position draws.
    fn support(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
        let sampler = Sampler::new(params, 1);
        let mut ids: Vec<u32> = (0..4000).map(|position| sampler.sample(logits, position)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
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
    fn greedy_takes_the_lowest_id_of_the_likeliest() {
        for (logits, expected) in [
            (vec![0.0, 3.0, 3.0, 1.0], 1),
            (vec![f32::NAN, -2.0, -1.0], 2),
            (vec![f32::NEG_INFINITY, f32::NEG_INFINITY], 0),
            (vec![f32::NAN, f32::NAN], 0),
        ] {
            assert_eq!(Sampler::new(&params(0.0), 0).sample(&logits, 5), expected, "{logits:?}");
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [1.0f32, 0.0, 2.0, -1.0];
        let sampler = Sampler::new(&params(0.8), 3);
        let mut counts = [0usize; 4];
        for position in 0..40_000 {
            counts[sampler.sample(&logits, position) as usize] += 1;
        }
        let weights = logits.map(|x| f64::from(x / 0.8).exp());
        for (count, weight) in counts.iter().zip(weights) {
            let (found, expected) = (*count as f64 / 40_000.0, weight / weights.iter().sum::<f64>());
            // Four standard deviations of a binomial share.
            let bound = 4.0 * (expected * (1.0 - expected) / 40_000.0).sqrt();
            assert!((found - expected).abs() < bound, "{found} for {expected}");
        }
    }

    #[test]
    fn filters_keep_what_a_plain_sort_keeps() {
        for seed in 0..40 {
            let logits = logits(seed, 200);
            let (top_k, top_p, min_p) =
                (1 + seed as usize % 60, 0.05 + 0.023 * seed as f32, 0.01 * seed as f32);
            let mut sorted: Vec<(u32, f64)> =
                (0..).zip(logits.iter().map(|&x| (f64::from(x) / 0.7f32 as f64).exp())).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(top_k);
            let total: f64 = sorted.iter().map(|x| x.1).sum();
            let mut above = 0.0;
            sorted.retain(|x| {
                let keep = above < f64::from(top_p) * total;
                above += x.1;
                keep
            });
            let best = sorted[0].1;
            sorted.retain(|x| x.1 / best >= f64::from(min_p));

            let mut kept = keep_top_k(scaled(&logits, 0.7), top_k);
            weigh(&mut kept);
            let mut kept = keep_min_p(keep_top_p(kept, f64::from(top_p)), f64::from(min_p));
            kept.sort_by(likelier);
            let kept: Vec<u32> = kept.iter().map(|candidate| candidate.token_id).collect();
            assert_eq!(kept, sorted.iter().map(|x| x.0).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn at_least_one_token_survives_any_filter() {
        let logits = logits(9, 300);
        let best = argmax(&logits);
        for params in [
            SamplingParams { top_k: Some(1), ..params(1.0) },
            SamplingParams { top_p: Some(1e-9), ..params(1.0) },
            SamplingParams { min_p: Some(1.0), ..params(1.0) },
            SamplingParams { top_k: Some(1), top_p: Some(0.1), min_p: Some(1.0), ..params(5.0) },
            params(1e-9),
        ] {
            assert_eq!(support(&params, &logits), [best], "{params:?}");
        }
        assert_eq!(support(&params(1.0), &[f32::NAN, f32::INFINITY]), [1]);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone() {
        let logits = logits(4, 500);
        let of = |seed, position| {
            Sampler::new(&SamplingParams { seed: Some(seed), ..params(1.5) }, 0).sample(&logits, position)
        };
        let forward: Vec<u32> = (0..50).map(|position| of(7, position)).collect();
        let backward: Vec<u32> = (0..50).rev().map(|position| of(7, position)).collect();
        assert!(forward.iter().eq(backward.iter().rev()));
        assert_ne!(forward, (0..50).map(|position| of(8, position)).collect::<Vec<_>>());
    }
}
