//! f32 in three parts of bf16.

mod support;

use pyrex_kernels::Element::{Bf16, F32};
use pyrex_kernels::products::split_f32;
use support::{Emulated, noise};

fn parts(x: &[f32], clip: Option<(f32, f32)>) -> Vec<[f32; 3]> {
    let queue = Emulated::default();
    let parts = queue.unwritten(Bf16, 3 * x.len());
    split_f32(&queue, queue.upload(F32, x), clip, parts).expect("it fits");
    let parts = queue.download(parts);
    (0..x.len()).map(|i| [parts[i], parts[x.len() + i], parts[2 * x.len() + i]]).collect()
}

/// Exactly: no sum of three such parts has more digits than f64.
fn sum(parts: [f32; 3]) -> f64 {
    parts.into_iter().map(f64::from).sum()
}

#[test]
fn the_parts_add_up_to_the_number() {
    let mut x = noise(F32, 1000, 1);
    x.extend([0.0, -0.0, 1.0, f32::MAX, f32::MIN, f32::from_bits(0x3fff_ffff), 1e-30, -1e-30]);
    for (x, parts) in x.iter().zip(parts(&x, None)) {
        assert_eq!(sum(parts), f64::from(*x), "{x:e} as {parts:?}");
    }
}

#[test]
fn what_is_split_was_clamped() {
    let x = [-3.0, -0.1, 0.3, 3.0];
    let got: Vec<f64> = parts(&x, Some((-1.1, 0.7))).into_iter().map(sum).collect();
    assert_eq!(got, [-1.1_f32, -0.1, 0.3, 0.7].map(f64::from));
}

#[test]
fn what_is_not_finite_is_not_a_number() {
    for parts in parts(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], None) {
        assert!(sum(parts).is_nan(), "{parts:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let (x, parts) = (queue.upload(F32, &[1.0; 4]), queue.unwritten(Bf16, 8));
    let error = split_f32(&queue, x, None, parts).expect_err("two parts");
    assert!(error.to_string().contains("parts has 8 Bf16"), "{error}");
    split_f32(&queue, queue.upload(F32, &[]), None, queue.unwritten(Bf16, 0)).expect("nothing");
}
