//! Rotary tables, and heads on their way through norm and rotation, against their formulas.

mod support;

use pyrex_kernels::norm::{Norm, rms_norm};
use pyrex_kernels::rope::{KeyValue, NormRope, Rope, norm_rope, norm_rope_write, rope_table};
use pyrex_kernels::{Buffer, Element};
use support::{Emulated, close, noise, rms_norm_formula, round, widened};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];
const EPS: f32 = 1e-6;

#[test]
fn tables_are_as_near_as_f32_comes() {
    let positions: Vec<u32> = (0..40)
        .chain([511, 4096, 32_767, 105_615, 105_616, 131_071, 1 << 24, (1 << 24) + 1, u32::MAX])
        .collect();
    let mut inv_freq: Vec<f32> = (0..7).map(|i| 1e6f64.powf(-2.0 * f64::from(i) / 16.0) as f32).collect();
    inv_freq.push(0.0);
    let angles: Vec<f64> = positions
        .iter()
        .flat_map(|position| inv_freq.iter().map(|inv_freq| f64::from(*position as f32 * inv_freq)))
        .collect();
    for element in ELEMENTS {
        let queue = Emulated::default();
        let tables = [queue.unwritten(element, angles.len()), queue.unwritten(element, angles.len())];
        let inv_freq = queue.upload(Element::F32, &inv_freq);
        rope_table(&queue, queue.upload_u32(&positions), inv_freq, 1, tables[0], tables[1]).expect("it fits");
        let [cos, sin] = tables.map(|table| queue.download(table));
        let mut missed = 0;
        for (i, angle) in angles.iter().enumerate() {
            for (got, wanted) in [(cos[i], angle.cos()), (sin[i], angle.sin())] {
                let nearest = round(element, wanted as f32);
                let place = f64::from(nearest.next_up() - nearest);
                assert!(element == Element::Bf16 || (f64::from(got) - wanted).abs() <= place, "{angle}");
                missed += usize::from(got != nearest);
            }
        }
        // One that lies within 2^-32 of the middle between two numbers may go to the other.
        assert!(missed <= angles.len() / 100, "{element:?}: {missed} of {}", 2 * angles.len());
        assert_eq!((cos[7], sin[7]), (1.0, 0.0), "a frequency of 0 leaves its pair as it is");
    }
}

#[test]
fn tables_of_patches_have_the_angles_of_both_axes() {
    let queue = Emulated::default();
    let tables = [queue.unwritten(Element::F32, 12), queue.unwritten(Element::F32, 12)];
    let (positions, inv_freq) =
        (queue.upload_u32(&[0, 1, 2, 3]), queue.upload(Element::F32, &[1.0, 0.5, 0.25]));
    rope_table(&queue, positions, inv_freq, 2, tables[0], tables[1]).expect("it fits");
    let wanted = [0.0, 0.0, 0.0, 1.0, 0.5, 0.25, 2.0, 1.0, 0.5, 3.0, 1.5, 0.75];
    assert_eq!(queue.download(tables[0]), wanted.map(|angle: f32| f64::from(angle).cos() as f32));
    assert_eq!(queue.download(tables[1]), wanted.map(|angle: f32| f64::from(angle).sin() as f32));
}

#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    heads: usize,
    head_dim: usize,
    axes: usize,
}

impl Shape {
    const fn new(tokens: usize, heads: usize, head_dim: usize, axes: usize) -> Self {
        Self { tokens, heads, head_dim, axes }
    }

    fn len(&self) -> usize {
        self.tokens * self.heads * self.head_dim
    }

    fn angles_len(&self) -> usize {
        self.tokens * self.head_dim / 2
    }
}

/// The decoder's heads, the tower's, and what is neither a power of two nor a multiple of four.
const SHAPES: [Shape; 10] = [
    Shape::new(2, 8, 256, 1),
    Shape::new(3, 1, 512, 1),
    Shape::new(3, 3, 64, 2),
    Shape::new(1, 1, 2, 1),
    Shape::new(2, 3, 4, 2),
    Shape::new(3, 2, 6, 1),
    Shape::new(2, 5, 12, 2),
    Shape::new(2, 2, 18, 3),
    Shape::new(1, 3, 72, 2),
    Shape::new(2, 1, 130, 1),
];

/// The rotation in f32 with its three roundings; of a norm that was rounded before.
fn rotated(element: Element, x: &[f32], shape: Shape, cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let Shape { heads, head_dim, axes, .. } = shape;
    let (half, part) = (head_dim / 2, head_dim / 2 / axes);
    let r = |x| round(element, x);
    let mut out = vec![f32::NAN; x.len()];
    for i in 0..x.len() {
        let (row, at) = (i / head_dim, i % head_dim);
        let (segment, within) = (at / (2 * part), at % (2 * part));
        let angle = row / heads * half + segment * part + within % part;
        let (own, other) = if within < part { (cos[angle], -sin[angle]) } else { (cos[angle], sin[angle]) };
        let partner = if within < part { i + part } else { i - part };
        out[i] = r(r(x[i] * own) + r(x[partner] * other));
    }
    out
}

/// As of norms: bf16 results are the same but for a tie; the rotation doubles what f32's are off.
fn bound(element: Element) -> f64 {
    if element == Element::F32 { 6e-7 } else { 2e-4 }
}

struct Case {
    element: Element,
    shape: Shape,
    x: Vec<f32>,
    weight: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Case {
    fn new(element: Element, shape: Shape) -> Self {
        let angles = noise(Element::F32, shape.angles_len(), 5);
        Self {
            element,
            shape,
            x: noise(element, shape.len(), 1),
            weight: noise(Element::F32, shape.head_dim, 2),
            cos: angles.iter().map(|angle| round(element, angle.cos())).collect(),
            sin: angles.iter().map(|angle| round(element, angle.sin())).collect(),
        }
    }

    fn wanted(&self, norm: bool, rope: bool) -> Vec<f64> {
        let x = match norm {
            true => rms_norm_formula(self.element, &self.x, Some(&self.weight), EPS, self.shape.head_dim),
            false => widened(&self.x),
        };
        if !rope {
            return x;
        }
        let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        widened(&rotated(self.element, &x, self.shape, &self.cos, &self.sin))
    }

    fn rope<'a>(&self, queue: &'a Emulated, shift: usize) -> Rope<'a> {
        let upload = |table: &[f32]| queue.upload_at(shift, self.element, table);
        Rope { cos: upload(&self.cos), sin: upload(&self.sin), axes: self.shape.axes }
    }

    fn norm<'a>(&self, queue: &'a Emulated, shift: usize) -> Norm<'a> {
        Norm { weight: Some(queue.upload_at(shift, Element::F32, &self.weight)), eps: EPS }
    }

    /// In place.
    fn run(&self, shift: usize, norm: bool, rope: bool) -> Vec<f32> {
        let queue = Emulated::default();
        let x = queue.upload_at(shift, self.element, &self.x);
        let Shape { heads, head_dim, .. } = self.shape;
        let norm = norm.then(|| self.norm(&queue, shift));
        let rope = rope.then(|| self.rope(&queue, shift));
        norm_rope(&queue, &NormRope { x, norm, rope, heads, head_dim, out: x }).expect("it fits");
        queue.download(x)
    }
}

#[test]
fn heads_are_normed_then_rotated() {
    for element in ELEMENTS {
        for shape in SHAPES {
            let case = Case::new(element, shape);
            for (norm, rope) in [(true, true), (true, false), (false, true)] {
                let what =
                    format!("{element:?} {} in {}, norm {norm}, rope {rope}", shape.head_dim, shape.axes);
                let got = case.run(0, norm, rope);
                close(&what, &got, &case.wanted(norm, rope), bound(element));
                assert_eq!(got, case.run(1, norm, rope), "{what}: the same bits wherever it lies");
            }
        }
    }
}

#[test]
fn a_rotation_alone_is_exact_to_the_bit() {
    for element in ELEMENTS {
        for shape in SHAPES {
            let case = Case::new(element, shape);
            let wanted = rotated(element, &case.x, shape, &case.cos, &case.sin);
            assert_eq!(case.run(0, false, true), wanted, "{element:?} {}", shape.head_dim);
        }
    }
}

#[test]
fn f32_rounds_the_norm_before_it_rotates() {
    let case = Case::new(Element::F32, Shape::new(2, 2, 64, 1));
    let wanted = rotated(Element::F32, &case.run(0, true, false), case.shape, &case.cos, &case.sin);
    assert_eq!(case.run(0, true, true), wanted);
}

#[test]
fn neither_norm_nor_rope_is_a_copy() {
    let case = Case::new(Element::Bf16, Shape::new(2, 3, 12, 1));
    let queue = Emulated::default();
    let (x, out) = (queue.upload(Element::Bf16, &case.x), queue.unwritten(Element::Bf16, case.x.len()));
    norm_rope(&queue, &NormRope { x, norm: None, rope: None, heads: 3, head_dim: 12, out }).expect("it fits");
    assert_eq!(queue.download(out), case.x);
}

/// Keys and values of `case` in a pool of `num_slots` that held 9 everywhere.
fn written(case: &Case, slots: &[u32], num_slots: usize, shift: usize) -> [Vec<f32>; 2] {
    let queue = Emulated::default();
    let Shape { heads, head_dim, .. } = case.shape;
    let pool = || queue.upload_at(shift, case.element, &vec![9.0; num_slots * heads * head_dim]);
    let (keys, values) = (pool(), pool());
    let reversed: Vec<f32> = case.x.iter().rev().copied().collect();
    let step = KeyValue {
        k: queue.upload_at(shift, case.element, &case.x),
        v: queue.upload_at(shift, case.element, &reversed),
        k_norm: case.norm(&queue, shift),
        v_norm: Norm { weight: None, eps: EPS },
        rope: case.rope(&queue, shift),
        slots: queue.upload_u32(slots),
        keys,
        values,
        heads,
        head_dim,
    };
    norm_rope_write(&queue, &step).expect("it fits");
    [queue.download(keys), queue.download(values)]
}

#[test]
fn keys_and_values_go_to_their_slots_and_nowhere_else() {
    for element in ELEMENTS {
        for shape in SHAPES {
            let case = Case::new(element, shape);
            let (slot_len, num_slots) = (shape.heads * shape.head_dim, 7);
            let slots: Vec<u32> = [5, 0, 3][..shape.tokens].to_vec();
            let got = written(&case, &slots, num_slots, 0);
            let reversed: Vec<f32> = case.x.iter().rev().copied().collect();
            let wanted =
                [case.wanted(true, true), rms_norm_formula(element, &reversed, None, EPS, shape.head_dim)];
            for (got, wanted) in got.iter().zip(wanted) {
                for slot in 0..num_slots as u32 {
                    let got = &got[slot as usize * slot_len..][..slot_len];
                    match slots.iter().position(|own| *own == slot) {
                        Some(token) => {
                            close("slot", got, &wanted[token * slot_len..][..slot_len], bound(element));
                        }
                        None => assert_eq!(got, vec![9.0; slot_len], "slot {slot} is another's"),
                    }
                }
            }
            assert_eq!(got, written(&case, &slots, num_slots, 1), "the same bits wherever it lies");
        }
    }
}

#[test]
fn a_slot_that_the_pool_has_not_is_nobodys() {
    let case = Case::new(Element::Bf16, Shape::new(3, 2, 64, 1));
    let [keys, values] = written(&case, &[4, 1, u32::MAX], 4, 0);
    let [all_keys, all_values] = written(&case, &[0, 1, 2], 4, 0);
    for (pool, all) in [(keys, all_keys), (values, all_values)] {
        assert_eq!(pool[128..256], all[128..256]);
        assert_eq!(pool[..128], [9.0; 128]);
        assert_eq!(pool[256..], [9.0; 256]);
    }
}

#[test]
fn memory_is_read_and_written_once() {
    for element in ELEMENTS {
        for (shape, rows) in
            [(Shape::new(2, 8, 256, 1), 16), (Shape::new(8, 1, 512, 1), 8), (Shape::new(4, 12, 64, 2), 48)]
        {
            let (case, queue) = (Case::new(element, shape), Emulated::default());
            let x = queue.upload(element, &case.x);
            let Shape { heads, head_dim, .. } = shape;
            let norm = Some(Norm { weight: None, eps: EPS });
            let step = NormRope { x, norm, rope: Some(case.rope(&queue, 0)), heads, head_dim, out: x };
            norm_rope(&queue, &step).expect("it fits");
            let head = (head_dim * element.size()) as u64 / 32;
            let report = queue.report();
            assert_eq!(report.sectors_written, rows * head);
            // Heads that share a warp share their angles: of patches, that have 4 or 8 threads a head.
            assert!(report.sectors_read <= rows * 2 * head, "{element:?} {head_dim}: {report:?}");
            assert_eq!(report.bank_conflicts, 0);
        }
    }
}

#[test]
fn nothing_is_nothing_and_what_does_not_fit_is_refused() {
    let queue = Emulated::default();
    let floats = |len| queue.upload(Element::F32, &vec![0.5; len]);
    let (x, table, empty) = (floats(24), floats(12), queue.unwritten(Element::F32, 0));
    let norm = Some(Norm { weight: Some(floats(4)), eps: EPS });
    let rope = Some(Rope { cos: table, sin: table, axes: 1 });
    let step = NormRope { x, norm, rope, heads: 1, head_dim: 4, out: x };
    norm_rope(&queue, &step).expect("it fits");
    let nothing = Some(Rope { cos: empty, sin: empty, axes: 1 });
    norm_rope(&queue, &NormRope { x: empty, out: empty, rope: nothing, ..step }).expect("no tokens");
    let refused = |step: NormRope<'_>, why: &str| {
        let error = norm_rope(&queue, &step).expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(NormRope { head_dim: 3, ..step }, "1 heads of 3 in 1 segments");
    refused(NormRope { heads: 0, ..step }, "0 heads of 4");
    refused(NormRope { heads: 5, ..step }, "x has 24 elements in 5 heads of 4");
    refused(NormRope { head_dim: 6, ..step }, "norm.weight has 4 F32");
    refused(NormRope { rope: Some(Rope { cos: table, sin: table, axes: 3 }), ..step }, "in 3 segments");
    refused(NormRope { rope: Some(Rope { cos: x, sin: table, axes: 1 }), ..step }, "rope.cos has 24 F32");
    refused(NormRope { out: table, ..step }, "out has 12 F32");
    let wide = floats(1024);
    refused(NormRope { x: wide, out: wide, norm: None, head_dim: 1024, ..step }, "expected at most 512");

    let write = KeyValue {
        k: x,
        v: x,
        k_norm: Norm { weight: None, eps: EPS },
        v_norm: Norm { weight: None, eps: EPS },
        rope: Rope { cos: table, sin: table, axes: 1 },
        slots: queue.upload_u32(&[0, 1, 2, 3, 4, 5]),
        keys: floats(40),
        values: floats(40),
        heads: 1,
        head_dim: 4,
    };
    norm_rope_write(&queue, &write).expect("it fits");
    let refused = |step: KeyValue<'_>, why: &str| {
        let error = norm_rope_write(&queue, &step).expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(KeyValue { v: table, ..write }, "v has 12 F32");
    refused(KeyValue { values: x, ..write }, "values has 24 F32");
    refused(KeyValue { slots: queue.upload_u32(&[0]), ..write }, "slots has 1 U32");
    refused(KeyValue { keys: floats(41), ..write }, "keys has 41 elements");

    let ids = queue.upload_u32(&[0, 1, 2]);
    let tables = |axes, cos: Buffer<'_>| rope_table(&queue, ids, floats(4), axes, cos, table);
    tables(1, table).expect("it fits");
    assert!(tables(2, table).expect_err("odd").to_string().contains("3 positions on 2 axes"));
    assert!(tables(1, x).expect_err("too long").to_string().contains("cos has 24 F32"));
}

#[test]
fn values_are_what_an_unweighted_norm_of_rows_is() {
    let case = Case::new(Element::Bf16, Shape::new(1, 2, 256, 1));
    let queue = Emulated::default();
    let (x, out) = (queue.upload(Element::Bf16, &case.x), queue.unwritten(Element::Bf16, 512));
    rms_norm(&queue, x, &case.norm(&queue, 0), 256, out).expect("it fits");
    close("rows", &case.run(0, true, false), &widened(&queue.download(out)), bound(Element::Bf16));
}
