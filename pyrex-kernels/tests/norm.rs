//! Norms against their formulas in f64, which round where the reference does.

mod support;

use pyrex_kernels::norm::{AddNorm, Norm, add_norm, rms_norm};
use pyrex_kernels::{Buffer, Element};
use support::{Emulated, close, nearest, noise, rms_norm_formula};

/// f32: sums of thousands of squares, in another order. bf16: the f32 result lies so near a tie that it may round the other way once in
/// a row; a rounding that is left out costs ten times as much.
const BOUNDS: [(Element, f64); 2] = [(Element::F32, 3e-7), (Element::Bf16, 1e-4)];
const EPS: f32 = 1e-6;

#[test]
fn rms_norm_is_the_formula_wherever_it_lies() {
    for (element, bound) in BOUNDS {
        for width in [1, 2, 31, 32, 33, 64, 100, 128, 256, 257, 260, 768, 1536, 2560, 8192] {
            for (rows, weighted) in [(1, true), (3, false), (9, true)] {
                let rows = if width > 512 { rows.min(2) } else { rows };
                let (x, weight) = (noise(element, rows * width, width as u64), noise(Element::F32, width, 2));
                let weight = weighted.then_some(weight);
                let got = [0, 1].map(|shift| {
                    let queue = Emulated::default();
                    let norm = Norm {
                        weight: weight.as_ref().map(|w| queue.upload_at(shift, Element::F32, w)),
                        eps: EPS,
                    };
                    let out = queue.unwritten_at(shift, element, x.len());
                    rms_norm(&queue, queue.upload_at(shift, element, &x), &norm, width, out)
                        .expect("it fits");
                    queue.download(out)
                });
                let what = format!("{element:?} {rows} × {width}");
                let wanted = rms_norm_formula(element, &x, weight.as_deref(), EPS, width);
                close(&what, &got[0], &wanted, bound);
                assert_eq!(got[0], got[1], "{what}: the same bits where 16 bytes cannot be read at once");
            }
        }
    }
}

#[test]
fn eps_decides_about_a_row_of_zeros_and_a_tiny_one() {
    for (element, bound) in BOUNDS {
        let queue = Emulated::default();
        let x: Vec<f32> =
            [vec![0.0; 40], noise(element, 40, 1).iter().map(|x| x * 0.0009765625).collect()].concat();
        let out = queue.unwritten(element, 80);
        let norm = Norm { weight: None, eps: 1e-2 };
        rms_norm(&queue, queue.upload(element, &x), &norm, 40, out).expect("it fits");
        let got = queue.download(out);
        assert_eq!(got[..40], [0.0; 40]);
        close("tiny", &got[40..], &rms_norm_formula(element, &x[40..], None, 1e-2, 40), bound);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    for element in [Element::F32, Element::Bf16] {
        for width in [24, 48, 256, 1536] {
            let queue = Emulated::default();
            let (x, norm) = (noise(element, 7 * width, 3), Norm { weight: None, eps: EPS });
            let (together, alone) = (queue.unwritten(element, x.len()), queue.unwritten(element, width));
            rms_norm(&queue, queue.upload(element, &x), &norm, width, together).expect("it fits");
            let row = &x[5 * width..][..width];
            rms_norm(&queue, queue.upload(element, row), &norm, width, alone).expect("it fits");
            assert_eq!(queue.download(together)[5 * width..][..width], queue.download(alone));
        }
    }
}

struct Case {
    element: Element,
    width: usize,
    scale: f32,
    x: Vec<f32>,
    residual: Vec<f32>,
    weights: [Vec<f32>; 2],
}

impl Case {
    fn new(element: Element, rows: usize, width: usize, scale: f32) -> Self {
        let [x, residual] = [1, 2].map(|seed| noise(element, rows * width, seed));
        let weights = [3, 4].map(|seed| noise(Element::F32, width, seed));
        Self { element, width, scale, x, residual, weights }
    }

    /// The sum, and what the next norm makes of it as it was rounded.
    fn wanted(&self) -> (Vec<f64>, Vec<f64>) {
        let Self { element, width, scale, .. } = *self;
        let normed = rms_norm_formula(element, &self.x, Some(&self.weights[0]), EPS, width);
        let sum: Vec<f64> = normed
            .iter()
            .zip(&self.residual)
            .map(|(normed, residual)| {
                let sum = nearest(element, f64::from(*residual) + normed);
                nearest(element, sum * f64::from(scale))
            })
            .collect();
        let stored: Vec<f32> = sum.iter().map(|sum| *sum as f32).collect();
        (sum, rms_norm_formula(element, &stored, Some(&self.weights[1]), 1e-3, width))
    }

    /// The sum, in place of the residual, and what follows it.
    fn run(&self, queue: &Emulated, shift: usize, with_next: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let upload = |values: &[f32]| queue.upload_at(shift, self.element, values);
        let norm =
            |weight: &[f32], eps| Norm { weight: Some(queue.upload_at(shift, Element::F32, weight)), eps };
        let (x, residual) = (upload(&self.x), upload(&self.residual));
        let next = with_next
            .then(|| (norm(&self.weights[1], 1e-3), queue.unwritten_at(shift, self.element, self.x.len())));
        let step = AddNorm {
            x,
            residual,
            norm: norm(&self.weights[0], EPS),
            scale: self.scale,
            width: self.width,
            sum: residual,
            next,
        };
        add_norm(queue, &step).expect("it fits");
        (queue.download(residual), next.map(|(_, out)| queue.download(out)))
    }
}

#[test]
fn add_norm_adds_scales_and_norms_what_was_rounded() {
    for (element, bound) in BOUNDS {
        for (rows, width) in [(1, 1), (5, 33), (9, 64), (2, 257), (2, 768), (2, 1536), (1, 2560)] {
            for scale in [1.0, 0.375] {
                let case = Case::new(element, rows, width, scale);
                let what = format!("{element:?} {rows} × {width} · {scale}");
                let (sum, next) = case.run(&Emulated::default(), 0, true);
                let (wanted_sum, wanted_next) = case.wanted();
                close(&what, &sum, &wanted_sum, bound);
                close(&what, next.as_ref().expect("asked for"), &wanted_next, 2.0 * bound);
                let elsewhere = case.run(&Emulated::default(), 1, true);
                assert_eq!((&sum, next), (&elsewhere.0, elsewhere.1), "{what}");
                assert_eq!((sum, None), case.run(&Emulated::default(), 0, false), "{what}");
            }
        }
    }
}

#[test]
fn f32_rounds_the_norm_before_it_adds() {
    let queue = Emulated::default();
    let (x, residual) = (noise(Element::F32, 64, 1), noise(Element::F32, 64, 2));
    let upload = |values: &[f32]| queue.upload(Element::F32, values);
    let (normed, sum) = (queue.unwritten(Element::F32, 64), queue.unwritten(Element::F32, 64));
    let norm = Norm { weight: Some(upload(&noise(Element::F32, 64, 3))), eps: EPS };
    rms_norm(&queue, upload(&x), &norm, 64, normed).expect("it fits");
    let step =
        AddNorm { x: upload(&x), residual: upload(&residual), norm, scale: 0.3, width: 64, sum, next: None };
    add_norm(&queue, &step).expect("it fits");
    let wanted: Vec<f32> = queue
        .download(normed)
        .iter()
        .zip(&residual)
        .map(|(normed, residual)| (residual + normed) * 0.3)
        .collect();
    assert_eq!(queue.download(sum), wanted);
}

#[test]
fn memory_is_read_and_written_once() {
    for element in [Element::F32, Element::Bf16] {
        let (rows, width) = (4u64, 1536u64);
        let (row, weight) = (width * element.size() as u64 / 32, width * 4 / 32);
        let case = Case::new(element, rows as usize, width as usize, 0.5);
        let queue = Emulated::default();
        case.run(&queue, 0, true);
        let report = queue.report();
        assert_eq!(report.sectors_read, rows * 2 * (row + weight), "{element:?}");
        assert_eq!(report.sectors_written, rows * 2 * row, "{element:?}");
        assert_eq!(report.bank_conflicts, 0);
        let norm = Norm { weight: None, eps: EPS };
        let out = queue.unwritten(element, case.x.len());
        rms_norm(&queue, queue.upload(element, &case.x), &norm, 1536, out).expect("it fits");
        assert_eq!((queue.report().sectors_read, queue.report().sectors_written), (rows * row, rows * row));
    }
}

#[test]
fn nothing_is_nothing_and_what_does_not_fit_is_refused() {
    let queue = Emulated::default();
    let (x, empty) = (queue.upload(Element::F32, &[0.0; 12]), queue.unwritten(Element::F32, 0));
    let norm = |weight: Option<Buffer<'static>>| Norm { weight, eps: EPS };
    rms_norm(&queue, empty, &norm(None), 4, empty).expect("no rows");
    let refused = |x, norm: &Norm<'_>, width, out, why: &str| {
        let error = rms_norm(&queue, x, norm, width, out).expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    let (ids, halves) = (queue.upload_u32(&[0; 12]), queue.unwritten(Element::Bf16, 12));
    let short = Norm { weight: Some(queue.upload(Element::F32, &[0.0; 3])), eps: EPS };
    let wide = queue.unwritten(Element::F32, 8193);
    refused(x, &norm(None), 5, x, "x has 12 elements in rows of 5");
    refused(x, &norm(None), 0, x, "x has 12 elements in rows of 0");
    refused(x, &short, 4, x, "norm.weight has 3 F32");
    refused(x, &norm(None), 4, halves, "out has 12 Bf16");
    refused(x, &norm(None), 4, empty, "out has 0 F32");
    refused(ids, &norm(None), 4, x, "x has U32");
    refused(wide, &norm(None), 8193, wide, "a row of 8193 has 2049 spans");
    let step = AddNorm { x, residual: empty, norm: norm(None), scale: 1.0, width: 4, sum: x, next: None };
    assert!(add_norm(&queue, &step).expect_err("no residual").to_string().contains("residual has 0 F32"));
    let step = AddNorm { residual: x, next: Some((short, x)), ..step };
    assert!(add_norm(&queue, &step).expect_err("short weights").to_string().contains("next.weight has 3"));
}
