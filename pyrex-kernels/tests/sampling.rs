//! Sampling against a plain copy of the CPU sampler's rules. That these are the engine's own is for the tests of the workspace,
//! which know both.

mod support;

use proptest::prelude::*;
use pyrex_kernels::sampling::{Choice, MAX_SORTED, RECORD_WORDS, Sampling, record, sample, scratch_len};
use pyrex_kernels::{Element, Result};
use support::{Emulated, noise, round};

/// Rows of equal length, and what is asked of each.
struct Rows {
    element: Element,
    soft_cap: Option<f32>,
    logits: Vec<Vec<f32>>,
    choices: Vec<Choice>,
    positions: Vec<u32>,
}

impl Rows {
    fn new(element: Element, rows: Vec<(Vec<f32>, Choice)>) -> Self {
        let (logits, choices): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let positions = (0..logits.len() as u32).map(|row| 7 + 31 * row).collect();
        Self { element, soft_cap: None, logits, choices, positions }
    }

    /// What the kernels choose.
    fn sampled(&self) -> Vec<u32> {
        let queue = Emulated::default();
        self.try_sample(&queue).expect("it fits")
    }

    fn try_sample(&self, queue: &Emulated) -> Result<Vec<u32>> {
        let (rows, vocab_size) = (self.logits.len(), self.logits[0].len());
        let ids = queue.unwritten(Element::U32, rows);
        let parameters: Vec<u32> = self.choices.iter().flat_map(record).collect();
        let sampling = Sampling {
            logits: queue.upload(self.element, &self.logits.concat()),
            soft_cap: self.soft_cap,
            parameters: queue.upload_u32(&parameters),
            positions: queue.upload_u32(&self.positions),
            scratch: queue.unwritten(Element::U32, scratch_len(vocab_size, rows)),
            ids,
            vocab_size,
            rows,
        };
        sample(queue, &sampling)?;
        Ok(queue.download_u32(ids))
    }

    fn check(&self) {
        let wanted: Vec<u32> = (0..self.logits.len())
            .map(|row| {
                let capped: Vec<f32> = self.logits[row].iter().map(|logit| self.capped(*logit)).collect();
                plainly(&capped, &self.choices[row], self.positions[row]).unwrap_or(u32::MAX)
            })
            .collect();
        for (row, (got, wanted)) in self.sampled().iter().zip(&wanted).enumerate() {
            let (choice, position) = (self.choices[row], self.positions[row]);
            assert_eq!(got, wanted, "row {row} at {position} of {:?}: {choice:?}", self.element);
        }
    }

    fn capped(&self, logit: f32) -> f32 {
        let round = |x| round(self.element, x);
        self.soft_cap.map_or(logit, |cap| round(round(round(logit / cap).tanh()) * cap))
    }
}

/// What is chosen.
fn plainly(logits: &[f32], choice: &Choice, position: u32) -> Option<u32> {
    if choice.temperature == 0.0 || logits.contains(&f32::INFINITY) {
        return possible(logits).first().map(|first| first.0);
    }
    race(&kept(logits, choice), choice, position)
}

/// Ids and logits, the greatest first.
fn possible(logits: &[f32]) -> Vec<(u32, f64)> {
    let numbers = (0..).zip(logits).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut sorted: Vec<(u32, f64)> = numbers.map(|(id, logit)| (id, f64::from(*logit) + 0.0)).collect();
    sorted.sort_by(likelier);
    sorted
}

fn likelier(a: &(u32, f64), b: &(u32, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Ids and weights of what the filters leave, one filter after another.
fn kept(logits: &[f32], choice: &Choice) -> Vec<(u32, f64)> {
    let mut kept = possible(logits);
    let greatest = kept.first().map_or(0.0, |first| first.1);
    if choice.top_k > 0 {
        kept.truncate(choice.top_k as usize);
    }
    let temperature = f64::from(choice.temperature);
    for (_, weight) in &mut kept {
        *weight = (*weight / temperature - greatest / temperature).exp();
    }
    if choice.top_p < 1.0 {
        kept.sort_by(likelier);
        let target = choice.top_p * kept.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut above = 0.0;
        let reached = kept.iter().position(|(_, weight)| {
            above += weight;
            above >= target
        });
        kept.truncate(reached.map_or(kept.len(), |idx| idx + 1));
    }
    kept.retain(|(_, weight)| *weight >= choice.min_p);
    kept
}

fn race(kept: &[(u32, f64)], choice: &Choice, position: u32) -> Option<u32> {
    let times = kept.iter().map(|(id, weight)| (-uniform(choice, position, *id).ln() / weight, *id));
    times.min_by(|a, b| a.partial_cmp(b).expect("no NaN")).map(|(_, id)| id)
}

/// In (0, 1).
fn uniform(choice: &Choice, position: u32, token_id: u32) -> f64 {
    let mut counter = [position, 0, choice.index, token_id];
    let mut key = [choice.seed as u32, (choice.seed >> 32) as u32];
    let halves = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high_0, low_0) = halves(0xD251_1F53, counter[0]);
        let (high_1, low_1) = halves(0xCD9E_8D57, counter[2]);
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    let bits = (u64::from(counter[0]) << 32 | u64::from(counter[1])) >> 12;
    (bits as f64 + 0.5) / (1u64 << 52) as f64
}

const PLAIN: Choice =
    Choice { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0x1234_5678_9abc, index: 0 };
const GEMMA: Choice = Choice { top_k: 64, top_p: 0.95, ..PLAIN };

/// Logits of about −12..12, steep enough that the likeliest tokens hold most of the mass.
fn logits(element: Element, len: usize, seed: u64) -> Vec<f32> {
    let shape = |x: f32| x * x * x * 1.5;
    noise(Element::F32, len, seed).into_iter().map(|x| round(element, shape(x))).collect()
}

fn both(check: impl Fn(Element)) {
    [Element::F32, Element::Bf16].into_iter().for_each(check);
}

#[test]
fn greedy_takes_the_lowest_id_of_the_greatest() {
    both(|element| {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        for (row, wanted) in [
            (vec![0.0, 3.0, 3.0, 1.0], 1),
            (vec![-0.0, 0.0, -0.0, -1.0], 0),
            (vec![nan, -2.0, -1.0, -1.0], 2),
            (vec![nan, infinity, infinity, 5.0], 1),
            (vec![-infinity, -1e30, nan, -infinity], 1),
            (vec![-infinity; 4], u32::MAX),
            (vec![nan; 4], u32::MAX),
            (vec![1e-40, 0.0, -1e-40, 1e-41], 0),
        ] {
            // Whatever else is asked of a greedy row does not matter; nor do filters where nothing can be chosen.
            let greedy = Choice { temperature: 0.0, ..GEMMA };
            assert_eq!(Rows::new(element, vec![(row.clone(), greedy)]).sampled(), [wanted], "{row:?}");
        }
        for len in [1, 31, 32, 33, 2047, 2048, 2049, 5000] {
            Rows::new(element, vec![(noise(element, len, len as u64), Choice::default())]).check();
        }
        let last = (0..4100).map(|id| if id == 4099 { 1.0 } else { 0.0 }).collect();
        assert_eq!(Rows::new(element, vec![(last, Choice::default())]).sampled(), [4099]);
    });
}

/// Every combination of filters, small and large, as one row each.
fn choices() -> Vec<Choice> {
    let mut choices = Vec::new();
    for temperature in [0.3, 1.0, 2.5] {
        for top_k in [0, 1, 2, 64, 1000, 1024, 1025, 1500, 3000, u32::MAX] {
            for top_p in [1.0, 0.999_999_9, 0.95, 0.5, 1e-30] {
                for min_p in [0.0, 0.01, 1.0] {
                    let seed = choices.len() as u64 * 0x1_0000_0001;
                    let index = choices.len() as u32 % 3;
                    choices.push(Choice { temperature, top_k, top_p, min_p, seed, index });
                }
            }
        }
    }
    choices
}

/// Each choice with logits of its own, several rows a launch.
fn check_all(element: Element, choices: &[Choice], logits: impl Fn(u64) -> Vec<f32>) {
    for (seed, choices) in (0..).zip(choices.chunks(8)) {
        let rows = choices.iter().zip(8 * seed..).map(|(choice, seed)| (logits(seed), *choice));
        Rows::new(element, rows.collect()).check();
    }
}

#[test]
fn a_draw_follows_the_rules_whatever_the_filters() {
    // A different part of all combinations for each shape.
    let part = |first: usize| choices().into_iter().skip(first).step_by(47).collect::<Vec<_>>();
    for (idx, len) in [40, 1000, 2049, 3001, 5003].into_iter().enumerate() {
        check_all(Element::F32, &part(idx), |seed| logits(Element::F32, len, seed));
        check_all(Element::Bf16, &part(idx + 20), |seed| logits(Element::Bf16, len, seed + 1000));
    }
}

/// The seed with which the token would win against all that are left, which it may be one of.
fn seed_for(token: (u32, f64), kept: &[(u32, f64)], choice: &Choice, position: u32) -> u64 {
    let mass: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let field = [kept, &[token]].concat();
    let wins = |seed: &u64| {
        let choice = Choice { seed: *seed, ..*choice };
        // Whoever comes that early wins nearly always: the others need not be looked at for most seeds.
        -uniform(&choice, position, token.0).ln() / token.1 < 0.1 / mass
            && race(&field, &choice, position) == Some(token.0)
    };
    (0..10_000_000).find(wins).expect("one in ten thousand")
}

#[test]
fn the_last_that_is_kept_can_win_and_the_first_that_is_left_cannot() {
    let (len, position) = (2900, 3);
    both(|element| {
        let mut rows = Vec::new();
        for (top_k, top_p, min_p) in [
            (1, 1.0, 0.0),
            (64, 1.0, 0.0),
            (64, 0.7, 0.0),
            (1024, 1.0, 0.0),
            (1024, 0.999, 0.0),
            (1025, 1.0, 0.0),
            (2500, 0.5, 0.0),
            (2500, 0.9, 0.0),
            (0, 0.3, 0.0),
            (0, 0.8, 0.0),
            (0, 0.999, 0.0),
            (0, 1.0, 0.92),
            (0, 0.8, 0.9),
            (1500, 0.9, 0.93),
        ] {
            for steps in [10.0, 1e6] {
                // Nearly as likely as each other; equal ones in heaps, or hardly any.
                let near = |x: &f32| round(element, 3.0 + (x * steps).round() / steps * 0.04);
                let logits: Vec<f32> = noise(Element::F32, len, top_k.into()).iter().map(near).collect();
                let choice = Choice { top_k, top_p, min_p, ..PLAIN };
                let kept = kept(&logits, &choice);
                let rest =
                    possible(&logits).into_iter().find(|(id, _)| kept.iter().all(|kept| kept.0 != *id));
                let (first_left, logit) = rest.expect("some are left");
                let greatest = possible(&logits)[0].1;
                for token in [kept[kept.len() - 1], (first_left, (logit - greatest).exp())] {
                    let seed = seed_for(token, &kept, &choice, position);
                    rows.push((logits.clone(), Choice { seed, ..choice }));
                }
            }
        }
        let positions = vec![position; rows.len()];
        Rows { positions, ..Rows::new(element, rows) }.check();
    });
}

#[test]
fn ties_go_to_the_lower_ids() {
    let some: Vec<Choice> = choices().into_iter().step_by(31).collect();
    both(|element| {
        let len = 2600;
        // All equal; two values; steps of a half; and one that leads while all others are equal.
        check_all(element, &some, |_| vec![1.5; len]);
        check_all(element, &some, |_| vec![round(element, -3e38); len]);
        check_all(element, &some, |seed| {
            noise(element, len, seed).iter().map(|x| f32::from(*x > 0.0)).collect()
        });
        check_all(element, &some, |seed| {
            noise(element, len, seed).iter().map(|x| (x * 4.0).round() / 2.0).collect()
        });
        check_all(element, &some, |seed| (0..len).map(|id| f32::from(id as u64 == seed * 50)).collect());
    });
}

#[test]
fn what_cannot_be_chosen_never_is() {
    let some: Vec<Choice> = choices().into_iter().step_by(37).collect();
    both(|element| {
        check_all(element, &some, |seed| {
            let mut logits = logits(element, 2100, seed);
            let hidden = [f32::NAN, f32::NEG_INFINITY, -f32::NAN];
            (0..2100).filter(|id| id * 7 % 10 < 6).for_each(|id| logits[id] = hidden[id % 3]);
            logits
        });
        // Fewer than any filter keeps.
        check_all(element, &some, |seed| {
            let mut logits = vec![f32::NEG_INFINITY; 2100];
            logits[seed as usize * 3] = -3.0;
            logits[2000] = -3.5;
            logits
        });
        for len in [3, 2100] {
            let nothing = some.iter().map(|choice| (vec![f32::NAN; len], *choice)).collect();
            assert_eq!(Rows::new(element, nothing).sampled(), vec![u32::MAX; some.len()]);
            let infinite = some.iter().map(|choice| {
                let mut logits = logits(element, len, 3);
                (logits[1], logits[len - 1]) = (f32::INFINITY, f32::INFINITY);
                (logits, *choice)
            });
            assert_eq!(Rows::new(element, infinite.collect()).sampled(), vec![1; some.len()]);
        }
    });
}

#[test]
fn no_temperature_is_too_low_or_too_high() {
    // So hot that weights which are not equal round to the same, and ids decide; so cold that all but one are zero.
    let temperatures = [f32::from_bits(1), 1e-9, 100.0, 1e7, 1e15, 3e16, 1e19, f32::MAX];
    let filters = [(0, 1.0), (0, 0.5), (0, 0.01), (70, 0.5), (1300, 0.7)];
    let choices = temperatures.into_iter().flat_map(|temperature| {
        filters.map(|(top_k, top_p)| Choice { temperature, top_k, top_p, seed: top_k.into(), ..PLAIN })
    });
    let choices: Vec<Choice> = choices.collect();
    both(|element| {
        check_all(element, &choices, |seed| logits(element, 2300, seed));
        // The greatest numbers there are, and the smallest.
        let huge = [f32::MAX, -f32::MAX, 3e38, 1e-45, -1e-45, 0.0, -0.0].map(|x| round(element, x));
        let huge =
            huge.map(|x| if x.is_finite() { x } else { 3e38f32.copysign(x) }).map(|x| round(element, x));
        check_all(element, &choices, |seed| (0..1500).map(|id| huge[(id * 3 + seed as usize) % 7]).collect());
    });
}

#[test]
fn the_soft_cap_rounds_after_each_step() {
    both(|element| {
        for (cap, seed) in [(30.0, 1), (5.0, 2), (0.7, 3)] {
            let row = |seed| logits(element, 2200, seed).iter().map(|x| round(element, x * 4.0)).collect();
            let rows = [
                Choice::default(),
                GEMMA,
                PLAIN,
                Choice { top_p: 0.9, ..PLAIN },
                Choice { top_k: 1100, ..PLAIN },
            ];
            let rows = rows.iter().zip(10 * seed..).map(|(choice, seed)| (row(seed), *choice)).collect();
            Rows { soft_cap: Some(cap), ..Rows::new(element, rows) }.check();
        }
        // What was beyond reach is as likely as another once it is capped.
        let infinite = vec![f32::NEG_INFINITY, f32::INFINITY, 1e30, f32::NAN];
        let rows = vec![(infinite.clone(), Choice::default()), (infinite, Choice { top_k: 1, ..GEMMA })];
        assert_eq!(Rows { soft_cap: Some(30.0), ..Rows::new(element, rows) }.sampled(), [1, 1]);
    });
}

#[test]
fn a_row_depends_on_its_own_seed_position_and_index_alone() {
    let logits = logits(Element::F32, 1200, 5);
    let of = |choice: Choice, position: u32| {
        let rows =
            Rows { positions: vec![position], ..Rows::new(Element::F32, vec![(logits.clone(), choice)]) };
        rows.sampled()[0]
    };
    let hot = Choice { temperature: 3.0, ..PLAIN };
    let others =
        [(Choice { seed: 1, ..hot }, 9), (Choice { index: 1, ..hot }, 9), (hot, 10), (hot, u32::MAX)];
    let alone: Vec<u32> = others.iter().map(|(choice, position)| of(*choice, *position)).collect();
    assert!(alone.iter().all(|id| *id != of(hot, 9)), "one in 100 would agree by chance, but not these");
    let together = others.iter().map(|(choice, _)| (logits.clone(), *choice)).collect();
    let positions = others.iter().map(|(_, position)| *position).collect();
    assert_eq!(Rows { positions, ..Rows::new(Element::F32, together) }.sampled(), alone);
}

#[test]
fn many_rows_share_the_blocks() {
    // More than one chunk for each block of a launch.
    let some: Vec<Choice> = choices().into_iter().step_by(29).collect();
    let choice = |row: u64| {
        if row.is_multiple_of(8) { some[row as usize / 8 % some.len()] } else { Choice::default() }
    };
    let rows: Vec<_> = (0..140).map(|row| (logits(Element::Bf16, 16_500, row), choice(row))).collect();
    let rows = Rows::new(Element::Bf16, rows);
    rows.check();
    // Whichever block of a row is the last.
    assert_eq!(rows.try_sample(&Emulated::with_seed(1)).expect("it fits"), rows.sampled());
}

#[test]
fn a_whole_vocabulary() {
    const V: usize = 262_144;
    // A flat row, whose nucleus is most of it, costs passes over all of it.
    for (element, choice, scale) in [
        (Element::Bf16, GEMMA, 1.0),
        (Element::F32, GEMMA, 1.0),
        (Element::F32, PLAIN, 0.1),
        (Element::Bf16, Choice { top_p: 0.9, ..PLAIN }, 1.0),
        (Element::F32, Choice { top_p: 0.9, ..PLAIN }, 0.1),
        (Element::Bf16, Choice { top_p: 0.9, ..PLAIN }, 0.1),
        (Element::F32, Choice { top_k: 50_000, top_p: 0.7, ..PLAIN }, 0.1),
        (Element::F32, Choice::default(), 1.0),
    ] {
        let row = logits(element, V, 77).iter().map(|x| round(element, x * scale)).collect();
        Rows::new(element, vec![(row, choice)]).check();
    }
}

#[test]
fn a_row_is_read_once_and_little_of_it_again() {
    const V: usize = 65_536;
    both(|element| {
        let queue = Emulated::default();
        let row = logits(element, V, 9);
        Rows::new(element, vec![(row, GEMMA)]).try_sample(&queue).expect("it fits");
        let of = |kernel: &str| queue.report_of(&format!("{kernel}_{}", element.suffix()));
        let row_sectors = (V * element.size() / 32) as u64;
        // Beside the logits, each warp reads what the row asks for; what is written is one word for each 32 logits.
        assert!(of("survey").sectors_read <= row_sectors + 2 * V as u64 / 256, "{:?}", of("survey"));
        assert_eq!(of("survey").bytes_written, V as u64 / 32 * 4);
        // What the survey wrote and the logits of at most 128 groups, each once for a pass over them, and little else.
        let (groups, logits) = (V / 32 * 4 / 32, 128 * 32 * element.size() / 32);
        assert!(of("choose").sectors_read < (6 * groups + 4 * logits + 100) as u64, "{:?}", of("choose"));
        assert_eq!(of("race").bytes_written, 0);
    });
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let u32s = |len| queue.unwritten(Element::U32, len);
    let fits = Sampling {
        logits: queue.unwritten(Element::Bf16, 2 * 300),
        soft_cap: None,
        parameters: u32s(2 * RECORD_WORDS),
        positions: u32s(2),
        scratch: u32s(scratch_len(300, 2)),
        ids: u32s(2),
        vocab_size: 300,
        rows: 2,
    };
    for (wrong, needle) in [
        (Sampling { logits: queue.unwritten(Element::F16, 600), ..fits }, "logits has F16"),
        (Sampling { logits: queue.unwritten(Element::F32, 601), ..fits }, "logits has 601"),
        (Sampling { parameters: u32s(19), ..fits }, "parameters has 19"),
        (Sampling { positions: u32s(3), ..fits }, "positions has 3"),
        (Sampling { scratch: u32s(scratch_len(300, 1)), ..fits }, "scratch has"),
        (Sampling { ids: u32s(1), ..fits }, "ids has 1"),
        (Sampling { vocab_size: 0, ..fits }, "2 rows of 0 logits"),
        (Sampling { rows: 70_000, ..fits }, "70000 rows"),
        (Sampling { soft_cap: Some(0.0), ..fits }, "soft_cap is 0"),
        (Sampling { soft_cap: Some(f32::NAN), ..fits }, "soft_cap is NaN"),
    ] {
        let error = sample(&queue, &wrong).expect_err(needle);
        assert!(error.to_string().contains(needle), "{error}");
    }
    assert!(MAX_SORTED.is_power_of_two());
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let temperature =
        prop_oneof![Just(0.0), Just(1.0), 0.05f32..3.0, (-30i32..30).prop_map(|e| 10f32.powi(e))];
    let top_k = prop_oneof![Just(0), 1..100u32, 900..1200u32, 1..5000u32];
    let top_p = prop_oneof![Just(1.0), 0.0001f32..1.0, 0.9f32..1.0].prop_map(f64::from);
    let min_p = prop_oneof![Just(0.0), 0.0f32..1.0, Just(1.0)].prop_map(f64::from);
    (temperature, top_k, top_p, min_p, any::<u64>(), any::<u32>()).prop_map(
        |(temperature, top_k, top_p, min_p, seed, index)| Choice {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
            index,
        },
    )
}

/// Logits of any spread, on a grid that makes ties or not, some of them hidden.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let len = prop_oneof![1..70usize, 1000..1100usize, 2000..4200usize];
    let (spread, step) = (-3i32..3, prop_oneof![Just(0.0f32), 0.001f32..0.5]);
    (len, spread, step, 0..10u32, any::<u64>()).prop_map(|(len, spread, step, hidden, seed)| {
        let base = noise(Element::F32, len, seed);
        let value = |x: f32| if step > 0.0 { (x / step).round() * step } else { x } * 10f32.powi(spread);
        let is_hidden = |id: usize| (id as u64 * 7 + seed % 100) % 10 < u64::from(hidden) / 2;
        (0..).zip(base).map(|(id, x)| if is_hidden(id) { f32::NEG_INFINITY } else { value(x) }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_row_is_chosen_from_as_the_rules_say(
        logits in any_logits(),
        choice in any_choice(),
        element in prop_oneof![Just(Element::F32), Just(Element::Bf16)],
    ) {
        let logits = logits.into_iter().map(|logit| round(element, logit)).collect();
        Rows::new(element, vec![(logits, choice)]).check();
    }
}
