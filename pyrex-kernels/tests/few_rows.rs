//! Products of up to eight rows against their formula in f64.

mod support;

use pyrex_kernels::Element::{self, Bf16, F16, F32};
use pyrex_kernels::products::{
    Clip, Gated, MAX_FEW_ROWS, Product, few_rows, few_rows_gated, few_rows_gelu_mul, few_rows_several,
    few_rows_soft_capped,
};
use support::{Emulated, close, noise, product, round, rounded};

/// Sums of f32 in any order; a bf16 is the rounded sum but where that lies just between two.
fn bound(element: Element) -> f64 {
    if element == F32 { 1e-6 } else { 3e-4 }
}

/// `[T, C]` times `[N, C]`: on tensor cores with one tile and with two, and what they do not take.
const SHAPES: [(usize, usize, usize); 8] =
    [(1, 8, 1), (1, 1536, 19), (3, 72, 5), (8, 520, 17), (2, 2112, 9), (4, 64, 4300), (5, 7, 6), (2, 100, 9)];

struct Case {
    queue: Emulated,
    x: Vec<f32>,
    weight: Vec<f32>,
    elements: (Element, Element),
    shape: (usize, usize, usize),
}

impl Case {
    fn new(elements: (Element, Element), shape: (usize, usize, usize)) -> Self {
        let (rows, cols, out_cols) = shape;
        Self {
            queue: Emulated::default(),
            x: noise(elements.0, rows * cols, 1),
            weight: noise(elements.1, out_cols * cols, 2),
            elements,
            shape,
        }
    }

    fn product(&self, clip: Option<Clip>) -> Product<'_> {
        let (rows, cols, out_cols) = self.shape;
        let x = self.queue.upload(self.elements.0, &self.x);
        let weight = self.queue.upload(self.elements.1, &self.weight);
        let out = self.queue.unwritten(self.elements.0, rows * out_cols);
        Product { x, weight, out, rows, cols, out_cols, clip }
    }

    /// The product of some of the rows.
    fn of_rows(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        let (_, cols, out_cols) = self.shape;
        let x = self.queue.upload(self.elements.0, &self.x[rows.start * cols..rows.end * cols]);
        let out = self.queue.unwritten(self.elements.0, rows.len() * out_cols);
        let product = Product { x, out, rows: rows.len(), ..self.product(None) };
        few_rows(&self.queue, &product).expect("it fits");
        self.queue.download(out)
    }

    #[track_caller]
    fn check(&self, what: &str, got: &[f32], wanted: &[f64]) {
        let wanted = rounded(self.elements.0, wanted);
        close(&format!("{what} {:?} {:?}", self.elements, self.shape), got, &wanted, bound(self.elements.0));
    }
}

fn all_elements() -> impl Iterator<Item = (Element, Element)> {
    [F32, Bf16].into_iter().flat_map(|x| [F32, Bf16, F16].map(|weight| (x, weight)))
}

#[test]
fn few_rows_is_the_product() {
    for elements in all_elements() {
        for shape in SHAPES {
            let case = Case::new(elements, shape);
            let product_of_case = case.product(None);
            few_rows(&case.queue, &product_of_case).expect("it fits");
            let wanted = product(&case.x, &case.weight, shape, &Clip::NONE);
            case.check("product", &case.queue.download(product_of_case.out), &wanted);
        }
    }
}

#[test]
fn a_clipped_product_clamps_what_comes_in_and_out() {
    // A bound that bf16 cannot hold among those that it can.
    let clip = Clip { input: (-1.0, 0.1), output: (f32::NEG_INFINITY, 3.3) };
    for elements in all_elements() {
        let case = Case::new(elements, (3, 72, 21));
        let clipped = case.product(Some(clip));
        few_rows(&case.queue, &clipped).expect("it fits");
        let wanted = product(&case.x, &case.weight, case.shape, &clip);
        let got = case.queue.download(clipped.out);
        assert!(got.contains(&round(elements.0, 3.3)), "the seed was meant to reach the bound");
        case.check("clipped", &got, &wanted);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    for (elements, cols) in [((Bf16, Bf16), 1032), ((F32, Bf16), 72), ((Bf16, F16), 33)] {
        let out_cols = 11;
        let case = Case::new(elements, (MAX_FEW_ROWS, cols, out_cols));
        let all = case.of_rows(0..MAX_FEW_ROWS);
        for rows in 1..MAX_FEW_ROWS {
            assert_eq!(case.of_rows(0..rows), all[..rows * out_cols], "{elements:?}: the first {rows}");
        }
        for row in 0..MAX_FEW_ROWS {
            let alone = case.of_rows(row..row + 1);
            assert_eq!(alone, all[row * out_cols..][..out_cols], "{elements:?}: row {row}");
        }
    }
}

#[test]
fn a_gated_row_has_the_same_bits_alone_and_in_company() {
    let (cols, out_cols) = (520, 11);
    let case = Case::new((Bf16, Bf16), (MAX_FEW_ROWS, cols, out_cols));
    let gate = case.queue.upload(Bf16, &case.weight);
    let up = case.queue.upload(Bf16, &noise(Bf16, out_cols * cols, 3));
    // No bounds are as none, and no reason to leave tensor cores.
    let of_rows = |first: usize, rows: usize, clips: Option<(Clip, Clip)>| {
        let x = case.queue.upload(Bf16, &case.x[first * cols..(first + rows) * cols]);
        let out = case.queue.unwritten(Bf16, rows * out_cols);
        few_rows_gated(&case.queue, &Gated { x, gate, up, out, rows, cols, out_cols, clips })
            .expect("it fits");
        case.queue.download(out)
    };
    let all = of_rows(0, MAX_FEW_ROWS, None);
    assert_eq!(of_rows(0, MAX_FEW_ROWS, Some((Clip::NONE, Clip::NONE))), all);
    for row in 0..MAX_FEW_ROWS {
        assert_eq!(of_rows(row, 1, None), all[row * out_cols..][..out_cols], "row {row}");
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for elements in [(Bf16, Bf16), (F32, Bf16)] {
        let mut case = Case::new(elements, (3, 64, 9));
        case.x[64 + 5] = f32::NAN;
        let clip = Clip { input: (-1.0, 1.0), output: (-1.0, 1.0) };
        for clip in [None, Some(clip)] {
            let product = case.product(clip);
            few_rows(&case.queue, &product).expect("it fits");
            let got = case.queue.download(product.out);
            let is_nan: Vec<bool> = got.iter().map(|value| value.is_nan()).collect();
            let wanted: Vec<bool> = (0..27).map(|i| i / 9 == 1).collect();
            assert_eq!(is_nan, wanted, "{elements:?}, {clip:?}");
        }
    }
}

#[test]
fn several_matrices_are_as_each_alone() {
    for (elements, cols) in [((Bf16, Bf16), 264), ((F32, F32), 20)] {
        let case = Case::new(elements, (3, cols, 0));
        let x = case.queue.upload(elements.0, &case.x);
        let sizes = [24, 1, 11];
        for count in 1..=3 {
            let parts: Vec<_> = (0..count)
                .map(|i| {
                    let weight = noise(elements.1, sizes[i] * cols, 3 + i as u64);
                    let out = case.queue.unwritten(elements.0, 3 * sizes[i]);
                    (case.queue.upload(elements.1, &weight), out, sizes[i])
                })
                .collect();
            few_rows_several(&case.queue, x, &parts).expect("they fit");
            for (weight, out, out_cols) in parts {
                let alone = case.queue.unwritten(elements.0, 3 * out_cols);
                let product = Product { x, weight, out: alone, rows: 3, cols, out_cols, clip: None };
                few_rows(&case.queue, &product).expect("it fits");
                assert_eq!(
                    case.queue.download(out),
                    case.queue.download(alone),
                    "{elements:?} of {out_cols}"
                );
            }
        }
    }
}

#[test]
fn a_gate_is_applied_as_the_reference_rounds() {
    let clips = (
        Clip { input: (-1.0, 0.1), output: (-2.0, 3.3) },
        Clip { input: (-0.7, f32::INFINITY), output: (-1.5, 1.5) },
    );
    for elements in all_elements() {
        for (shape, clips) in [
            ((1, 8, 1), None),
            ((8, 520, 19), None),
            ((3, 2112, 10), None),
            ((2, 33, 5), None),
            ((3, 72, 21), Some(clips)),
        ] {
            let (rows, cols, out_cols) = shape;
            let case = Case::new(elements, shape);
            // Small sums: where the GELU is a straight line its rounding would not show.
            let gate: Vec<f32> = case.weight.iter().map(|w| round(elements.1, w / 16.0)).collect();
            let up = noise(elements.1, out_cols * cols, 3);
            let gated = Gated {
                x: case.queue.upload(elements.0, &case.x),
                gate: case.queue.upload(elements.1, &gate),
                up: case.queue.upload(elements.1, &up),
                out: case.queue.unwritten(elements.0, rows * out_cols),
                rows,
                cols,
                out_cols,
                clips,
            };
            few_rows_gated(&case.queue, &gated).expect("it fits");
            let (gate_clip, up_clip) = clips.unwrap_or((Clip::NONE, Clip::NONE));
            let gates = rounded(elements.0, &product(&case.x, &gate, shape, &gate_clip));
            let ups = rounded(elements.0, &product(&case.x, &up, shape, &up_clip));
            let gelus: Vec<f64> = gates.iter().map(|gate| gelu_tanh(*gate)).collect();
            let wanted: Vec<f64> =
                rounded(elements.0, &gelus).iter().zip(&ups).map(|(gelu, up)| gelu * up).collect();
            case.check("gated", &case.queue.download(gated.out), &wanted);
        }
    }
}

#[test]
fn a_soft_cap_rounds_three_times() {
    for (elements, shape) in
        [((Bf16, Bf16), (2, 64, 40)), ((Bf16, F16), (2, 9, 40)), ((F32, Bf16), (2, 9, 40))]
    {
        let case = Case::new(elements, shape);
        let capped = case.product(None);
        few_rows_soft_capped(&case.queue, &capped, 5.0).expect("it fits");
        let sums = rounded(elements.0, &product(&case.x, &case.weight, shape, &Clip::NONE));
        let divided: Vec<f64> = sums.iter().map(|sum| sum / 5.0).collect();
        let tanh: Vec<f64> = rounded(elements.0, &divided).iter().map(|x| x.tanh()).collect();
        let wanted: Vec<f64> = rounded(elements.0, &tanh).iter().map(|x| x * 5.0).collect();
        case.check("capped", &case.queue.download(capped.out), &wanted);
    }
}

#[test]
fn a_gate_for_what_is_there_already_is_applied_as_the_reference_rounds() {
    let up_stride = 50;
    for (elements, shape) in
        [((Bf16, Bf16), (3, 64, 40)), ((Bf16, F16), (2, 9, 40)), ((F32, Bf16), (2, 9, 40))]
    {
        let (rows, _, out_cols) = shape;
        let case = Case::new(elements, shape);
        let up = noise(elements.0, (rows - 1) * up_stride + out_cols, 3);
        let fits = case.product(None);
        let up_buffer = case.queue.upload(elements.0, &up);
        few_rows_gelu_mul(&case.queue, &fits, up_buffer, up_stride).expect("it fits");
        let gates = rounded(elements.0, &product(&case.x, &case.weight, shape, &Clip::NONE));
        let gelus: Vec<f64> = gates.iter().map(|gate| gelu_tanh(*gate)).collect();
        let ups = (0..rows).flat_map(|row| &up[row * up_stride..][..out_cols]);
        let wanted: Vec<f64> =
            rounded(elements.0, &gelus).iter().zip(ups).map(|(gelu, up)| gelu * f64::from(*up)).collect();
        case.check("gated", &case.queue.download(fits.out), &wanted);
        for (len, up_stride) in [(up.len() - 1, up_stride), (up.len(), out_cols - 1)] {
            let up = case.queue.unwritten(elements.0, len);
            let error = few_rows_gelu_mul(&case.queue, &fits, up, up_stride).expect_err("too short");
            assert!(error.to_string().contains("up has"), "{error}");
        }
    }
}

#[test]
fn every_weight_is_read_once() {
    for (shape, outputs_of_block) in [((1, 1536, 64), 8), ((8, 6144, 16), 8), ((4, 256, 4320), 16)] {
        let (rows, cols, out_cols) = shape;
        let case = Case::new((Bf16, Bf16), shape);
        few_rows(&case.queue, &case.product(None)).expect("it fits");
        let report = case.queue.report();
        let blocks = out_cols / outputs_of_block;
        let sectors = |rows: usize| ((out_cols + blocks * rows) * cols * Bf16.size() / 32) as u64;
        assert_eq!(report.sectors_read, sectors(rows), "{shape:?}: sectors");
        // Lanes that have no row of x ask for another's.
        assert_eq!(report.bytes_read, 32 * sectors(MAX_FEW_ROWS), "{shape:?}: bytes");
        assert_eq!(report.bank_conflicts, 0, "{shape:?}: bank conflicts");
    }
}

#[test]
fn nothing_is_made_of_nothing() {
    let case = Case::new((Bf16, Bf16), (0, 16, 4));
    few_rows(&case.queue, &case.product(None)).expect("no rows");
    let case = Case::new((Bf16, Bf16), (2, 16, 0));
    few_rows(&case.queue, &case.product(None)).expect("no outputs");
    let case = Case::new((Bf16, Bf16), (2, 0, 3));
    let product = case.product(None);
    few_rows(&case.queue, &product).expect("no columns");
    assert_eq!(case.queue.download(product.out), [0.0; 6]);
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let case = Case::new((Bf16, Bf16), (2, 16, 4));
    let fits = case.product(None);
    let f32 = case.queue.upload(F32, &[0.0; 32]);
    let ids = case.queue.upload_u32(&[0; 32]);
    let refused = [
        ("x has 9 rows", Product { rows: 9, ..fits }),
        ("x has 32 Bf16", Product { rows: 3, ..fits }),
        ("weight has 64 Bf16", Product { out_cols: 5, ..fits }),
        ("out has 8 Bf16", Product { weight: fits.x, out_cols: 2, ..fits }),
        ("x has U32", Product { x: ids, ..fits }),
        ("out has 8 Bf16", Product { x: f32, ..fits }),
        ("weight has U32", Product { weight: ids, ..fits }),
        ("more elements than can be counted", Product { cols: usize::MAX, ..fits }),
    ];
    for (message, product) in refused {
        let error = few_rows(&case.queue, &product).expect_err(message);
        assert!(error.to_string().contains(message), "{error}, expected {message}");
    }
    let error = few_rows_soft_capped(&case.queue, &fits, 0.0).expect_err("no cap");
    assert!(error.to_string().contains("soft cap is 0"), "{error}");
    let part = (fits.weight, fits.out, 4);
    for parts in [&[][..], &[part; 4]] {
        let error = few_rows_several(&case.queue, fits.x, parts).expect_err("none or too many");
        assert!(error.to_string().contains("expected 1 to 3"), "{error}");
    }
    let error = few_rows_several(&case.queue, fits.x, &[part, (f32, fits.out, 2)]).expect_err("two dtypes");
    assert!(error.to_string().contains("out has 8 Bf16"), "{error}");
    let Product { x, weight, out, rows, cols, out_cols, .. } = fits;
    let gated = Gated { x, gate: weight, up: f32, out, rows, cols, out_cols, clips: None };
    let error = few_rows_gated(&case.queue, &gated).expect_err("two dtypes");
    assert!(error.to_string().contains("up has 32 F32"), "{error}");
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}
