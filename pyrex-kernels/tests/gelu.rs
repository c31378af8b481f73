//! Gated GELU against its formula in f64.

mod support;

use pyrex_kernels::{Element, gelu};
use support::{Emulated, close, noise, round};

#[test]
fn gelu_mul_is_the_formula() {
    for (element, bound) in [(Element::F32, 1e-6), (Element::Bf16, 3e-3)] {
        for len in [1, 31, 256, 257, 1000] {
            let queue = Emulated::default();
            let (gate, up) = (noise(element, len, 1), noise(element, len, 2));
            let out = queue.unwritten(element, len);
            gelu::gelu_mul(&queue, queue.upload(element, &gate), queue.upload(element, &up), out)
                .expect("it fits");
            let wanted: Vec<f64> = gate
                .iter()
                .zip(&up)
                .map(|(gate, up)| {
                    f64::from(round(element, gelu_tanh(f64::from(*gate)) as f32)) * f64::from(*up)
                })
                .collect();
            close(&format!("{element:?} of {len}"), &queue.download(out), &wanted, bound);
        }
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let (gate, up) = (queue.upload(Element::F32, &[0.0; 4]), queue.upload(Element::F32, &[0.0; 5]));
    let error = gelu::gelu_mul(&queue, gate, up, gate).expect_err("lengths differ");
    assert!(error.to_string().contains("up has 5 F32"), "{error}");
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}
