//! Functions of single numbers, to the bit where f32 says what comes out.

mod support;

use pyrex_kernels::elementwise::{add, clamp, convert, pixels, scale, soft_cap};
use pyrex_kernels::{Buffer, Element, Result};
use support::{Emulated, close, nearest, noise, round};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];
/// Threads, blocks and packs that are full, and that are not.
const LENS: [usize; 7] = [1, 3, 8, 255, 1024, 1027, 4096];

/// Holds `function` of `x` to `wanted`, wherever it lies and in place.
fn check(
    x: &[f32],
    element: Element,
    wanted: impl Fn(f32) -> f32,
    function: impl Fn(&Emulated, Buffer<'_>, Buffer<'_>) -> Result<()>,
) {
    let wanted: Vec<f32> = x.iter().map(|x| round(element, wanted(*x))).collect();
    for shift in [0, 1] {
        let queue = Emulated::default();
        let (x, out) = (queue.upload_at(shift, element, x), queue.unwritten_at(shift, element, x.len()));
        function(&queue, x, out).expect("it fits");
        assert_eq!(queue.download(out), wanted, "{element:?} of {} at {shift}", x.len());
        function(&queue, x, x).expect("in place");
        assert_eq!(queue.download(x), wanted, "{element:?} of {} in place", x.len());
    }
}

#[test]
fn scale_and_clamp_are_exact() {
    for element in ELEMENTS {
        for len in LENS {
            let x = noise(element, len, 1);
            check(&x, element, |x| x * 0.7, |queue, x, out| scale(queue, x, 0.7, out));
            check(&x, element, |x| x.clamp(-0.3, 1.1), |queue, x, out| clamp(queue, x, -0.3, 1.1, out));
        }
        let open = |queue: &Emulated, x: Buffer<'_>, out: Buffer<'_>| {
            clamp(queue, x, f32::NEG_INFINITY, f32::INFINITY, out)
        };
        check(&[f32::INFINITY, -2.0, f32::NEG_INFINITY], element, |x| x, open);
        let queue = Emulated::default();
        let x = queue.upload(element, &[f32::NAN, 0.0]);
        clamp(&queue, x, 1.0, 2.0, x).expect("it fits");
        assert!(queue.download(x)[0].is_nan(), "clamping hides no NaN");
    }
}

#[test]
fn add_is_exact_and_in_place_on_either_side() {
    for element in ELEMENTS {
        for len in LENS {
            let (a, b) = (noise(element, len, 1), noise(element, len, 2));
            let wanted: Vec<f32> = a.iter().zip(&b).map(|(a, b)| round(element, a + b)).collect();
            for shift in [0, 1] {
                let queue = Emulated::default();
                let upload = |values: &[f32]| queue.upload_at(shift, element, values);
                let out = queue.unwritten(element, len);
                add(&queue, upload(&a), upload(&b), out).expect("it fits");
                assert_eq!(queue.download(out), wanted);
                let b = upload(&b);
                add(&queue, upload(&a), b, b).expect("in place");
                assert_eq!(queue.download(b), wanted);
            }
        }
    }
}

#[test]
fn soft_cap_rounds_three_times() {
    // f32: division, tanh within two units, product. bf16: a tie now and then; a rounding that is left out costs ten times as much.
    for (element, bound) in [(Element::F32, 3e-7), (Element::Bf16, 2e-4)] {
        for len in LENS {
            let x: Vec<f32> = noise(element, len, 1).iter().map(|x| round(element, 40.0 * x)).collect();
            let wanted: Vec<f64> = x
                .iter()
                .map(|x| {
                    let y = nearest(element, nearest(element, f64::from(*x) / 30.0).tanh());
                    nearest(element, y * 30.0)
                })
                .collect();
            for shift in [0, 1] {
                let queue = Emulated::default();
                let (x, out) = (queue.upload_at(shift, element, &x), queue.unwritten_at(shift, element, len));
                soft_cap(&queue, x, 30.0, out).expect("it fits");
                close(&format!("{element:?} of {len}"), &queue.download(out), &wanted, bound);
            }
        }
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    let floats = [Element::F32, Element::Bf16, Element::F16];
    let special = [
        0.0,
        -0.0,
        1.0,
        65504.0,
        65520.0,
        1e9,
        1e-7,
        6e-8,
        f32::INFINITY,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
    ];
    for from in floats {
        for to in floats {
            for len in LENS {
                let x: Vec<f32> = special
                    .iter()
                    .copied()
                    .chain(noise(Element::F32, len, 1))
                    .take(len)
                    .map(|x| round(from, x))
                    .collect();
                for shift in [0, 1] {
                    let queue = Emulated::default();
                    let out = queue.unwritten_at(shift, to, len);
                    convert(&queue, queue.upload_at(shift, from, &x), out).expect("it fits");
                    let wanted: Vec<f32> = x.iter().map(|x| round(to, *x)).collect();
                    assert_eq!(queue.download(out), wanted, "{from:?} to {to:?}");
                }
            }
        }
    }
}

#[test]
fn bytes_become_numbers_and_pixels() {
    let bytes: Vec<f32> = (0..=255).map(|byte| byte as f32).chain([7.0]).collect();
    for shift in [0, 1] {
        let queue = Emulated::default();
        let (x, out) = (queue.upload_at(shift, Element::U8, &bytes), queue.unwritten(Element::F32, 257));
        convert(&queue, x, out).expect("it fits");
        assert_eq!(queue.download(out), bytes);
        let out = queue.unwritten(Element::F32, 257);
        pixels(&queue, x, out).expect("it fits");
        let wanted: Vec<f32> = bytes.iter().map(|x| (x * (1.0 / 255.0) - 0.5) * 2.0).collect();
        assert_eq!(queue.download(out), wanted);
    }
}

#[test]
fn memory_is_read_and_written_once() {
    let queue = Emulated::default();
    let sectors = || (queue.report().sectors_read, queue.report().sectors_written);
    for element in ELEMENTS {
        let (x, sector) = (queue.upload(element, &[0.5; 4096]), 4096 * element.size() as u64 / 32);
        scale(&queue, x, 2.0, x).expect("it fits");
        assert_eq!(sectors(), (sector, sector));
        add(&queue, x, x, x).expect("it fits");
        assert_eq!(sectors(), (2 * sector, sector));
        convert(&queue, x, queue.unwritten(Element::F32, 4096)).expect("it fits");
        assert_eq!(sectors(), (sector, 512));
    }
    pixels(&queue, queue.upload(Element::U8, &[3.0; 4096]), queue.unwritten(Element::F32, 4096))
        .expect("it fits");
    assert_eq!(sectors(), (128, 512));
}

#[test]
fn nothing_is_nothing_and_what_does_not_fit_is_refused() {
    let queue = Emulated::default();
    let (x, empty) = (queue.upload(Element::F32, &[0.0; 4]), queue.unwritten(Element::F32, 0));
    let (halves, bytes) = (queue.upload(Element::F16, &[0.0; 4]), queue.upload(Element::U8, &[0.0; 4]));
    scale(&queue, empty, 1.0, empty).expect("no numbers");
    let refused = |result: Result<()>, why: &str| {
        let error = result.expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(scale(&queue, x, 1.0, empty), "out has 0 F32");
    refused(scale(&queue, halves, 1.0, halves), "x has F16");
    refused(soft_cap(&queue, bytes, 1.0, bytes), "x has U8");
    refused(add(&queue, x, empty, x), "b has 0 F32");
    refused(clamp(&queue, x, 0.0, 1.0, halves), "out has 4 F16");
    refused(convert(&queue, bytes, halves), "out has F16");
    refused(convert(&queue, halves, bytes), "out has U8");
    refused(convert(&queue, x, empty), "out has 0 F32");
    refused(pixels(&queue, x, x), "x has 4 F32");
}
