use super::*;

fn numbers(seed: u64, len: usize) -> Vec<f32> {
    // A linear congruential generator is enough for logits.
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..len).map(|_| next() * 12.0 - 6.0).collect()
}

fn params(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, ..SamplingParams::default() }
}

fn sampler(params: &SamplingParams) -> Sampler {
    Sampler::new(params, &[], [].into(), 1, None)
}

fn choose(sampler: &mut Sampler, logits: &[f32], position: usize) -> u32 {
    sampler.sample(logits, position).expect("a token").token_id
}

/// Every token that some position draws.
fn support(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(params);
    let mut ids: Vec<u32> = (0..4000).map(|position| choose(&mut sampler, logits, position)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Bias and penalties as their definitions say, token by token.
fn adjusted_plainly(logits: &[f32], p: &SamplingParams, prompt: &[u32], said: &[u32]) -> Vec<f32> {
    let adjust = |(id, &logit): (u32, &f32)| {
        let mut logit = logit;
        p.logit_bias.iter().filter(|(biased, _)| *biased == id).for_each(|(_, bias)| logit += bias);
        if prompt.contains(&id) || said.contains(&id) {
            logit = if logit > 0.0 { logit / p.repetition_penalty } else { logit * p.repetition_penalty };
        }
        let count = said.iter().filter(|said| **said == id).count();
        logit - (count as f32 * p.frequency_penalty + if count > 0 { p.presence_penalty } else { 0.0 })
    };
    (0..).zip(logits).map(adjust).collect()
}

#[test]
fn bias_and_penalties_follow_their_definitions() {
    let neutral = SamplingParams::default();
    let bias = vec![(3, 2.5), (40, -100.0), (3, 1.0)];
    let cases = [
        SamplingParams { logit_bias: bias.clone(), ..neutral.clone() },
        SamplingParams { repetition_penalty: 1.3, ..neutral.clone() },
        SamplingParams { repetition_penalty: 0.7, ..neutral.clone() },
        SamplingParams { presence_penalty: 1.5, ..neutral.clone() },
        SamplingParams { frequency_penalty: -0.5, ..neutral.clone() },
        SamplingParams {
            logit_bias: bias,
            repetition_penalty: 1.2,
            presence_penalty: 0.4,
            frequency_penalty: 0.8,
            ..neutral
        },
    ];
    let prompt = [5, 9, 5, 47];
    for params in cases {
        let mut sampler = Sampler::new(&params, &[], prompt.into(), 0, None);
        let mut said = Vec::new();
        for position in 0..30 {
            let logits = numbers(position as u64, 48);
            let plain = adjusted_plainly(&logits, &params, &prompt, &said);
            let mut adjusted = logits.clone();
            sampler.adjust(&mut adjusted).expect("no constraint");
            for (found, expected) in adjusted.iter().zip(&plain) {
                assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{found}, expected {expected}");
            }
            said.push(choose(&mut sampler, &logits, position));
            assert_eq!(said.last().copied(), argmax(&plain), "{params:?}");
        }
    }
}

#[test]
fn a_frequency_penalty_wears_a_favourite_out() {
    let params = SamplingParams { frequency_penalty: 2.0, ..params(0.0) };
    let mut sampler = sampler(&params);
    let said: Vec<u32> = (0..6).map(|position| choose(&mut sampler, &[5.0, 2.0, 0.5], position)).collect();
    assert_eq!(said, [0, 0, 1, 0, 2, 1]);
}

#[test]
fn no_stop_id_is_chosen_before_min_tokens() {
    let logits = [9.0, 8.0, 7.0, 1.0];
    let said = |params: &SamplingParams| {
        let mut sampler = Sampler::new(params, &[0], [].into(), 0, None);
        (0..5).map(|position| choose(&mut sampler, &logits, position)).collect::<Vec<_>>()
    };
    let own = SamplingParams { min_tokens: 3, stop_token_ids: vec![1], ..params(0.0) };
    assert_eq!(said(&own), [2, 2, 2, 0, 0]);
    assert_eq!(said(&SamplingParams { min_tokens: 3, ..params(0.0) }), [1, 1, 1, 0, 0]);
    assert_eq!(said(&SamplingParams { ignore_eos: true, ..own }), [0; 5]);
}

#[test]
fn bias_brings_a_stop_id_no_earlier() {
    let params = SamplingParams { min_tokens: 2, logit_bias: vec![(0, 100.0)], ..params(0.0) };
    let mut sampler = Sampler::new(&params, &[0], [].into(), 0, None);
    let said: Vec<u32> = (0..3).map(|position| choose(&mut sampler, &[0.0, 1.0], position)).collect();
    assert_eq!(said, [1, 1, 0]);
}

#[test]
fn logprobs_are_the_log_softmax_of_the_raw_logits() {
    let logits = numbers(3, 1000);
    let mass = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>();
    let logprob = |id: u32| (f64::from(logits[id as usize]).exp() / mass).ln() as f32;
    let mut ids: Vec<u32> = (0..1000).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let favourite = 17;
    for num_top in [0, 1, 20] {
        let params =
            SamplingParams { logprobs: Some(num_top), logit_bias: vec![(favourite, 100.0)], ..params(0.0) };
        let sampled = sampler(&params).sample(&logits, 0).expect("a token");
        assert_eq!(sampled.token_id, favourite);
        let found = sampled.logprobs.expect("logprobs were asked for");
        assert!((found.logprob - logprob(favourite)).abs() < 1e-5, "{found:?}");
        let top: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(top, ids[..num_top]);
        assert!(found.top.iter().all(|(id, p)| (p - logprob(*id)).abs() < 1e-5), "{found:?}");
    }
    assert_eq!(sampler(&params(0.0)).sample(&logits, 0).expect("a token").logprobs, None);
}

#[test]
fn impossible_tokens_are_no_alternatives() {
    let params = SamplingParams { logprobs: Some(20), ..params(0.0) };
    let of = |logits: &[f32]| sampler(&params).sample(logits, 0).expect("a token").logprobs;
    let half = 0.5f32.ln();
    assert_eq!(
        of(&[1.0, f32::NAN, f32::NEG_INFINITY, 1.0]),
        Some(TokenLogprobs { logprob: half, top: vec![(0, half), (3, half)] })
    );
    let certain = of(&[1.0, f32::INFINITY]).expect("logprobs");
    assert_eq!(certain.logprob, 0.0);
}

#[test]
fn frequencies_follow_the_softmax() {
    let logits = [1.0f32, 0.0, 2.0, -1.0];
    let mut sampler = sampler(&params(0.8));
    let mut counts = [0usize; 4];
    for position in 0..40_000 {
        counts[choose(&mut sampler, &logits, position) as usize] += 1;
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
fn at_least_one_token_survives_any_filter() {
    let logits = numbers(9, 300);
    let best = argmax(&logits).expect("a best");
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
fn logits_that_are_no_numbers_fail_the_request() {
    for params in [params(0.0), params(1.0), SamplingParams { presence_penalty: 1.0, ..params(1.0) }] {
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3]] {
            let error = sampler(&params).sample(&logits, 6).expect_err("nothing to choose");
            assert_eq!(error.kind(), crate::ErrorKind::Internal);
            assert!(error.message().starts_with("none of the 3 logits for position 6"), "{error}");
        }
    }
    let only_stop_ids = SamplingParams { min_tokens: 1, ..params(0.0) };
    let error = Sampler::new(&only_stop_ids, &[0, 1], [].into(), 0, None).sample(&[1.0, 2.0], 4);
    assert_eq!(error.expect_err("nothing is allowed").kind(), crate::ErrorKind::InvalidRequest);
}

#[test]
fn a_draw_depends_on_seed_position_and_index_alone() {
    let logits = numbers(4, 500);
    let of = |seed, index, position| {
        let sampler = sampler(&SamplingParams { seed: Some(seed), ..params(1.5) });
        choose(&mut sampler.fork(index), &logits, position)
    };
    let forward: Vec<u32> = (0..50).map(|position| of(7, 0, position)).collect();
    let backward: Vec<u32> = (0..50).rev().map(|position| of(7, 0, position)).collect();
    assert!(forward.iter().eq(backward.iter().rev()));
    let mut whole = sampler(&SamplingParams { seed: Some(7), ..params(1.5) });
    assert!((0..50).all(|position| choose(&mut whole, &logits, position) == forward[position]));
    assert_ne!(forward, (0..50).map(|position| of(8, 0, position)).collect::<Vec<_>>());
    assert_ne!(forward, (0..50).map(|position| of(7, 1, position)).collect::<Vec<_>>());
    assert_eq!(
        (0..50).map(|p| of(7, 1, p)).collect::<Vec<_>>(),
        (0..50).map(|p| of(7, 1, p)).collect::<Vec<_>>()
    );
}

#[test]
fn rounding_hardly_ever_changes_a_draw() {
    let logits = numbers(4, 2000);
    let rounded: Vec<f32> =
        logits.iter().zip(numbers(5, 2000)).map(|(logit, noise)| logit + 1e-6 * noise).collect();
    let mut sampler = sampler(&params(2.0));
    let mut differs =
        |position| choose(&mut sampler, &logits, position) != choose(&mut sampler, &rounded, position);
    assert!((0..5000).filter(|position| differs(*position)).count() <= 1);
}

#[test]
fn completions_of_a_request_are_independent_draws() {
    const NUM_DRAWS: usize = 2000;
    let logits = [0.5f32, 0.0, 1.0, -0.5, 0.2];
    let weights = logits.map(|x| f64::from(x).exp());
    let mass: f64 = weights.iter().sum();
    // Two independent draws agree this often.
    let expected: f64 = weights.iter().map(|w| (w / mass) * (w / mass)).sum();
    let bound = 4.5 * (expected * (1.0 - expected) / NUM_DRAWS as f64).sqrt();
    let first = sampler(&SamplingParams { seed: Some(11), ..params(1.0) });
    let said = |index| -> Vec<u32> {
        let mut fork = first.fork(index);
        (0..NUM_DRAWS).map(|position| choose(&mut fork, &logits, position)).collect()
    };
    let said: Vec<Vec<u32>> = [0, 1, 2, 3, 4, 100, u32::MAX].map(said).into();
    for (i, a) in said.iter().enumerate() {
        for b in &said[..i] {
            let agree = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / NUM_DRAWS as f64;
            assert!((agree - expected).abs() < bound, "{agree}, expected {expected} within {bound}");
        }
        // Nor does one follow another a step behind.
        let shifted = a.iter().zip(&said[(i + 1) % said.len()][1..]).filter(|(a, b)| a == b).count();
        assert!((shifted as f64 / NUM_DRAWS as f64 - expected).abs() < bound);
    }
}

/// Allows `first`, then `second`, and is complete; panics or fails where it is told to.
struct Pair {
    ids: [u32; 2],
    num_taken: usize,
    panics: bool,
}

impl TokenConstraint for Pair {
    fn allowed(&mut self, mask: &mut TokenMask) -> Result<()> {
        assert!(!self.panics, "a bug of the caller's");
        self.ids.get(self.num_taken).into_iter().for_each(|id| mask.allow(*id));
        Ok(())
    }

    fn accept(&mut self, token_id: u32) -> Result<()> {
        assert_eq!(self.ids.get(self.num_taken), Some(&token_id));
        self.num_taken += 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.num_taken == 2
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        assert!(!self.panics, "a bug of the caller's");
        Box::new(Self { ..*self })
    }
}

fn pair(panics: bool) -> Option<Box<dyn TokenConstraint>> {
    Some(Box::new(Pair { ids: [2, 1], num_taken: 0, panics }))
}

#[test]
fn a_constraint_decides_what_is_said_and_when_it_ends() {
    let logits = [9.0, 0.0, f32::MIN, 5.0];
    for params in [params(0.0), params(2.0), SamplingParams { min_tokens: 9, ..params(1.0) }] {
        let first = Sampler::new(&params, &[3], [].into(), 0, pair(false));
        for mut sampler in [first.fork(1), first.fork(2), first] {
            let said: Vec<(u32, bool)> = (0..3)
                .map(|position| sampler.sample(&logits, position).expect("a token"))
                .map(|sampled| (sampled.token_id, sampled.ends))
                .collect();
            assert_eq!(said, [(2, false), (1, true), (3, true)], "{params:?}");
        }
    }
}

#[test]
fn a_constraint_that_allows_nothing_or_panics_fails_the_request() {
    let fails = |mut sampler: Sampler, kind, needle: &str| {
        let error = sampler.sample(&[1.0, 2.0], 0).expect_err(needle);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(needle), "{error}");
    };
    let of = |panics| Sampler::new(&params(1.0), &[0], [].into(), 0, pair(panics));
    fails(of(false), crate::ErrorKind::InvalidRequest, "none of the 2 tokens is allowed");
    fails(of(true).fork(1), crate::ErrorKind::Internal, "a panic in a constraint: a bug of the caller's");
    fails(of(true), crate::ErrorKind::Internal, "a panic in a constraint: a bug of the caller's");
}

#[test]
fn greedy_decoding_needs_no_memory_of_its_own() {
    let mut sampler = sampler(&params(0.0));
    assert!((0..10).all(|position| choose(&mut sampler, &numbers(1, 5000), position) < 5000));
    assert_eq!(sampler.scratch.capacity(), 0);
}
