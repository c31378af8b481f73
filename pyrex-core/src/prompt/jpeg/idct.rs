//! Coefficients to samples: libjpeg's accurate integer inverse transform ("islow").

use super::{Block, Component, Frame, invalid};
use crate::error::Result;
use rayon::prelude::*;
use std::num::Wrapping;

/// The samples of one component.
pub(super) struct Plane {
    /// Samples per row and rows that carry picture.
    pub(super) size: [usize; 2],
    /// Samples stored per row.
    pub(super) stride: usize,
    /// How many pixels a sample covers, across and down.
    pub(super) spread: [usize; 2],
    pub(super) samples: Vec<u8>,
}

impl Plane {
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.size[0]]
    }
}

/// Transforms every component of `frame`.
pub(super) fn planes(frame: Frame) -> Result<Vec<Plane>> {
    let max = frame.max_sampling;
    frame.components.into_iter().map(|component| plane(component, max)).collect()
}

fn plane(component: Component, max_sampling: [usize; 2]) -> Result<Plane> {
    let missing = || invalid(format_args!("component {} has no scan or no quantization table", component.id));
    let quantization = component.quantization.ok_or_else(missing)?;
    let stride = component.stride * 8;
    let mut samples = vec![0; component.blocks.len() * 64];
    let rows = samples.par_chunks_mut(stride * 8).zip(component.blocks.par_chunks(component.stride));
    rows.for_each(|(samples, blocks)| {
        for (x, block) in blocks.iter().enumerate() {
            inverse(block, &quantization, &mut samples[x * 8..], stride);
        }
    });
    let spread = [0, 1].map(|i| max_sampling[i] / component.sampling[i]);
    Ok(Plane { size: component.size, stride, spread, samples })
}

const CONST_BITS: usize = 13;
const PASS1_BITS: usize = 2;

type Lane = Wrapping<i32>;

/// The transform of one block into `output`, whose rows are `stride` apart. Hostile coefficients wrap.
fn inverse(block: &Block, quantization: &[u16; 64], output: &mut [u8], stride: usize) {
    let mut work = [Wrapping(0i32); 64];
    if block[1..].iter().all(|&coefficient| coefficient == 0) {
        return constant(block[0], quantization[0], output, stride);
    }
    for x in 0..8 {
        let column = std::array::from_fn(|y| {
            let product = i32::from(block[y * 8 + x]).wrapping_mul(i32::from(quantization[y * 8 + x]));
            Wrapping(i32::from(product as i16))
        });
        for (y, value) in butterfly(column).into_iter().enumerate() {
            work[y * 8 + x] = descale(value, CONST_BITS - PASS1_BITS);
        }
    }
    for (y, row) in work.as_chunks::<8>().0.iter().enumerate() {
        let line = butterfly(*row).map(|value| sample(descale(value, CONST_BITS + PASS1_BITS + 3)));
        output[y * stride..][..8].copy_from_slice(&line);
    }
}

fn constant(dc: i16, quantization: u16, output: &mut [u8], stride: usize) {
    let dc = i32::from(dc).wrapping_mul(i32::from(quantization)) as i16;
    let first = Wrapping(i32::from(dc)) << PASS1_BITS;
    let line = [sample(descale(first << CONST_BITS, CONST_BITS + PASS1_BITS + 3)); 8];
    for y in 0..8 {
        output[y * stride..][..8].copy_from_slice(&line);
    }
}

fn descale(value: Lane, bits: usize) -> Lane {
    (value + (Wrapping(1) << (bits - 1))) >> bits
}

fn sample(value: Lane) -> u8 {
    (value.0.clamp(-128, 127) + 128) as u8
}

/// One dimension: Loeffler, Ligtenberg and Moschytz with 12 multiplications, as in libjpeg's `jidctint.c`.
fn butterfly(input: [Lane; 8]) -> [Lane; 8] {
    const fn fix(value: i32) -> Lane {
        Wrapping(value)
    }
    let z1 = (input[2] + input[6]) * fix(4433);
    let t2 = z1 - input[6] * fix(15137);
    let t3 = z1 + input[2] * fix(6270);
    let t0 = (input[0] + input[4]) << CONST_BITS;
    let t1 = (input[0] - input[4]) << CONST_BITS;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];

    let [t0, t1, t2, t3] = [input[7], input[5], input[3], input[1]];
    let z5 = (t0 + t2 + t1 + t3) * fix(9633);
    let z1 = (t0 + t3) * fix(-7373);
    let z2 = (t1 + t2) * fix(-20995);
    let z3 = (t0 + t2) * fix(-16069) + z5;
    let z4 = (t1 + t3) * fix(-3196) + z5;
    let odd = [
        t3 * fix(12299) + z1 + z4,
        t2 * fix(25172) + z2 + z3,
        t1 * fix(16819) + z2 + z4,
        t0 * fix(2446) + z1 + z3,
    ];
    let mut output = [Wrapping(0); 8];
    for i in 0..4 {
        output[i] = even[i] + odd[i];
        output[7 - i] = even[i] - odd[i];
    }
    output
}
