//! Attention inside segments against its formula, on the PTX that is shipped.

mod support;

use pyrex_kernels::Element::{self, Bf16, F32};
use pyrex_kernels::attention::{Segments, segment_attention};
use support::{Emulated, close, noise};

/// As large as sums of f32 over a segment may be off, and bf16 its result's rounding of 1.7e-3.
fn bound(element: Element) -> f64 {
    if element == F32 { 5e-6 } else { 2e-3 }
}

struct Case {
    element: Element,
    heads: usize,
    head_dim: usize,
    scale: f32,
    lens: Vec<usize>,
}

impl Case {
    fn new(element: Element, heads: usize, head_dim: usize, lens: &[usize]) -> Self {
        Self { element, heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), lens: lens.to_vec() }
    }

    fn numbers(&self, seed: u64) -> Vec<f32> {
        noise(self.element, self.lens.iter().sum::<usize>() * self.heads * self.head_dim, seed)
    }

    fn starts(&self) -> Vec<u32> {
        let ends = self.lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end as u32)
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn upload<'a>(&self, queue: &'a Emulated) -> Segments<'a> {
        let q = self.numbers(1);
        Segments {
            q: queue.upload(self.element, &q),
            k: queue.upload(self.element, &self.numbers(2)),
            v: queue.upload(self.element, &self.numbers(3)),
            segment_start: queue.upload_u32(&self.starts()),
            out: queue.unwritten(self.element, q.len()),
            heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale,
        }
    }

    fn wanted(&self) -> Vec<f64> {
        let (q, k, v) = (self.numbers(1), self.numbers(2), self.numbers(3));
        let mut wanted = Vec::new();
        for bounds in self.starts().windows(2) {
            for row in bounds[0]..bounds[1] {
                for head in 0..self.heads {
                    let at = |of: &[f32], row: u32, i: usize| {
                        f64::from(of[(row as usize * self.heads + head) * self.head_dim + i])
                    };
                    let score = |key| -> f64 {
                        let products = (0..self.head_dim).map(|i| at(&q, row, i) * at(&k, key, i));
                        products.sum::<f64>() * f64::from(self.scale)
                    };
                    let scores: Vec<f64> = (bounds[0]..bounds[1]).map(score).collect();
                    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
                    let denominator: f64 = weights.iter().sum();
                    wanted.extend((0..self.head_dim).map(|i| {
                        let keys = (bounds[0]..bounds[1]).zip(&weights);
                        keys.map(|(key, weight)| weight * at(&v, key, i)).sum::<f64>() / denominator
                    }));
                }
            }
        }
        wanted
    }

    #[track_caller]
    fn check(&self) {
        let queue = Emulated::default();
        let segments = self.upload(&queue);
        segment_attention(&queue, &segments).expect("it fits");
        let what = format!("{:?} {:?} × {} × {}", self.element, self.lens, self.heads, self.head_dim);
        close(&what, &queue.download(segments.out), &self.wanted(), bound(self.element));
    }
}

#[test]
fn a_row_sees_its_segment_and_no_other() {
    for element in [Bf16, F32] {
        for head_dim in [64, 32, 24, 128] {
            Case::new(element, 2, head_dim, &[1, 63, 0, 17, 130, 64]).check();
        }
    }
}

#[test]
fn one_segment_and_many() {
    for element in [Bf16, F32] {
        Case::new(element, 3, 64, &[200]).check();
        let mut lens = vec![0; 80];
        (lens[0], lens[31], lens[32], lens[79]) = (5, 33, 1, 12);
        Case::new(element, 1, 64, &lens).check();
    }
}

/// Each product that a tensor core adds to a sum costs some of that sum's last bits, always towards zero.
#[test]
fn a_long_segment_is_as_exact_as_a_short_one() {
    for element in [Bf16, F32] {
        Case::new(element, 1, 64, &[800]).check();
    }
}

#[test]
fn bits_do_not_depend_on_the_order_of_blocks_and_warps() {
    for element in [Bf16, F32] {
        let case = Case::new(element, 2, 64, &[70, 130]);
        let attended = |seed| {
            let queue = Emulated::with_seed(seed);
            let segments = case.upload(&queue);
            segment_attention(&queue, &segments).expect("it fits");
            queue.download(segments.out)
        };
        let expected = attended(0);
        for seed in 1..4 {
            assert_eq!(attended(seed), expected, "seed {seed} of {element:?}");
        }
    }
}

#[test]
fn scores_may_be_large() {
    for scale in [10.0, -10.0, 0.0] {
        Case { scale, ..Case::new(Bf16, 2, 64, &[100, 20]) }.check();
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let segments = Case::new(F32, 2, 64, &[5]).upload(&queue);
    let shorter = queue.upload(F32, &[0.0; 12]);
    let cases = [
        ("q has 12 F32", Segments { q: shorter, ..segments }),
        ("k has 12 F32", Segments { k: shorter, ..segments }),
        ("out has 12 F32", Segments { out: shorter, ..segments }),
        ("segment_start has 12 F32", Segments { segment_start: shorter, ..segments }),
        ("a multiple of 8", Segments { head_dim: 20, ..segments }),
        ("a scale of inf", Segments { scale: f32::INFINITY, ..segments }),
    ];
    for (expected, wrong) in cases {
        let error = segment_attention(&queue, &wrong).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}
