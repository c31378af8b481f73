//! Gated GELU against its formula in f64.

mod support;

use pyrex_kernels::Element;
use pyrex_kernels::gelu::{GeluMul, gelu_mul};
use support::{Emulated, close, nearest, noise};

/// f32: tanh within a few units, and where it is near −1 the sum loses what it cancels. bf16: the f32 result lies so near a tie that it
/// may round the other way now and then; a rounding that is left out costs ten times as much.
const BOUNDS: [(Element, f64); 2] = [(Element::F32, 1e-6), (Element::Bf16, 2e-4)];

/// Rows of `width`, of which `up` has one every `stride` elements from `offset` on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    width: usize,
    offset: usize,
    stride: usize,
}

fn shape(rows: usize, width: usize, offset: usize, stride: usize) -> Shape {
    Shape { rows, width, offset, stride }
}

impl Shape {
    fn numbers(&self, element: Element) -> (Vec<f32>, Vec<f32>) {
        let gate = noise(element, self.rows * self.width, 1).iter().map(|x| 2.0 * x).collect();
        (gate, noise(element, self.offset + self.rows * self.stride, 2))
    }

    fn run(&self, queue: &Emulated, shift: usize, element: Element) -> Vec<f32> {
        let Self { width, offset, stride, .. } = *self;
        let (gate, up) = self.numbers(element);
        let out = queue.unwritten_at(shift, element, gate.len());
        let gate = queue.upload_at(shift, element, &gate);
        let up = queue.upload_at(shift, element, &up);
        let product = GeluMul { gate, up, up_offset: offset, up_stride: stride, width, out };
        gelu_mul(queue, &product).expect("it fits");
        queue.download(out)
    }

    fn wanted(&self, element: Element) -> Vec<f64> {
        let (gate, up) = self.numbers(element);
        let up = |i: usize| up[self.offset + i / self.width * self.stride + i % self.width];
        let product = |(i, gate): (usize, &f32)| {
            nearest(element, nearest(element, gelu_tanh(f64::from(*gate))) * f64::from(up(i)))
        };
        gate.iter().enumerate().map(product).collect()
    }
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

#[test]
fn gelu_mul_is_the_formula_wherever_it_lies() {
    let plain = [1, 7, 31, 256, 257, 1000, 6144].map(|len| shape(1, len, 0, len));
    let strided = [
        shape(3, 1, 2, 5),
        shape(4, 33, 5, 40),
        shape(3, 256, 512, 1024),
        shape(1, 256, 256, 768),
        shape(5, 24, 7, 64),
    ];
    for (element, bound) in BOUNDS {
        for shape in plain.iter().chain(&strided) {
            let got = shape.run(&Emulated::default(), 0, element);
            close(&format!("{element:?} {shape:?}"), &got, &shape.wanted(element), bound);
            assert_eq!(got, shape.run(&Emulated::default(), 1, element), "{shape:?}: the same bits anywhere");
        }
    }
}

#[test]
fn far_from_zero_it_is_the_gate_or_nothing() {
    for element in [Element::F32, Element::Bf16] {
        let queue = Emulated::default();
        let upload = |values: &[f32]| queue.upload(element, values);
        let gate = upload(&[100.0, -100.0, 0.0, f32::INFINITY, f32::NAN]);
        let product =
            GeluMul { gate, up: upload(&[2.0; 5]), up_offset: 0, up_stride: 5, width: 5, out: gate };
        gelu_mul(&queue, &product).expect("it fits");
        let got = queue.download(gate);
        assert_eq!((got[0], got[1].abs(), got[2], got[3]), (200.0, 0.0, 0.0, f32::INFINITY));
        assert!(got[4].is_nan());
    }
}

#[test]
fn memory_is_read_and_written_once() {
    for element in [Element::F32, Element::Bf16] {
        for shape in [shape(1, 4096, 0, 4096), shape(8, 256, 256, 2048)] {
            let queue = Emulated::default();
            let sectors = (shape.run(&queue, 0, element).len() * element.size()) as u64 / 32;
            let report = queue.report();
            assert_eq!((report.sectors_read, report.sectors_written), (2 * sectors, sectors), "{shape:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let (gate, up) = (queue.upload(Element::F32, &[0.0; 4]), queue.upload(Element::F32, &[0.0; 7]));
    let product = GeluMul { gate, up, up_offset: 1, up_stride: 4, width: 2, out: gate };
    gelu_mul(&queue, &product).expect("the last row ends where up does");
    let refused = |product: GeluMul<'_>, why: &str| {
        let error = gelu_mul(&queue, &product).expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(GeluMul { up_offset: 2, ..product }, "elements 2.. of a buffer of 7, 6 of them");
    refused(GeluMul { up_stride: 1, ..product }, "rows of 2, 1 apart");
    refused(GeluMul { width: 3, ..product }, "gate has 4 elements in rows of 3");
    refused(GeluMul { width: 0, ..product }, "rows of 0");
    refused(GeluMul { out: up, ..product }, "out has 7 F32");
    refused(GeluMul { up: queue.upload_u32(&[0; 7]), ..product }, "up has 7 U32");
    let empty = queue.unwritten(Element::F32, 0);
    gelu_mul(&queue, &GeluMul { gate: empty, out: empty, ..product }).expect("no rows");
}
