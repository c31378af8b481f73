//! Bicubic resize with antialiasing on u8, bit for bit as torchvision does it on a CPU.
//!
//! Per axis, width first and height second with u8 between them; an axis that keeps its size is skipped.
//! Weights are computed in f64 and rounded to i16 with a shift common to the axis (spec §4.2).

use super::image::RgbImage;
use rayon::prelude::*;

const CHANNELS: usize = 3;
/// Rows that one horizontal pass takes side by side, so that the lanes of a vector are rows.
const ROWS: usize = 16;
/// Columns that one vertical pass holds in registers.
const COLUMNS: usize = 32;

/// Resizes `image` to `width` by `height` pixels, all of them at least 1.
///
/// Source: torchvision 0.29, `resize(BICUBIC, antialias=True)` on a u8 tensor. Golden: `resize.json`.
pub fn resize(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let horizontal = (width != image.width()).then(|| resize_rows(image, width));
    let narrowed = horizontal.as_ref().unwrap_or(image);
    match height != image.height() {
        true => resize_columns(narrowed, height),
        false => horizontal.unwrap_or_else(|| image.clone()),
    }
}

/// The weights of one axis, in fixed point.
struct Weights {
    /// Per output: the first input and where its weights lie in `values`.
    spans: Vec<Span>,
    values: Vec<i16>,
    shift: u32,
}

struct Span {
    first: usize,
    weights: std::ops::Range<usize>,
}

impl Weights {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let support = 2.0 * scale.max(1.0);
        let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
        let mut spans = Vec::with_capacity(output);
        let mut weights: Vec<f64> = Vec::new();
        for i in 0..output {
            let center = scale * (i as f64 + 0.5);
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let start = weights.len();
            weights.extend((first..end).map(|j| cubic((j as f64 - center + 0.5) * inverse)));
            let sum: f64 = weights[start..].iter().sum();
            weights[start..].iter_mut().for_each(|weight| *weight /= sum);
            spans.push(Span { first, weights: start..weights.len() });
        }
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let fits = |shift: &u32| (0.5 + largest * f64::from(1u32 << shift)) < f64::from(1 << 15);
        let shift = (0..=22).rev().find(fits).unwrap_or(0);
        let scaled = weights.iter().map(|weight| (weight * f64::from(1u32 << shift)).round() as i16);
        Self { spans, values: scaled.collect(), shift }
    }

    fn of(&self, output: usize) -> (usize, &[i16]) {
        let span = &self.spans[output];
        (span.first, &self.values[span.weights.clone()])
    }
}

/// Keys' cubic with a = −0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn rounded(sum: i32, shift: u32) -> u8 {
    (sum >> shift).clamp(0, 255) as u8
}

fn resize_rows(image: &RgbImage, width: usize) -> RgbImage {
    let weights = Weights::new(image.width(), width);
    let mut pixels = vec![0; width * image.height() * CHANNELS];
    let input_rows = image.pixels().par_chunks(ROWS * image.width() * CHANNELS);
    let output_rows = pixels.par_chunks_mut(ROWS * width * CHANNELS);
    output_rows.zip(input_rows).for_each(|(output, input)| resize_band(&weights, input, output));
    RgbImage::new(width, image.height(), pixels)
}

/// Resizes at most [`ROWS`] rows: they are turned so that one column's values of all rows lie side by side.
fn resize_band(weights: &Weights, input: &[u8], output: &mut [u8]) {
    const LANES: usize = ROWS * CHANNELS;
    let output_stride = weights.spans.len() * CHANNELS;
    let num_rows = output.len() / output_stride;
    let input_stride = input.len() / num_rows;
    let mut turned = vec![[0i16; LANES]; input_stride / CHANNELS];
    for (row, line) in input.chunks_exact(input_stride).enumerate() {
        for (column, pixel) in turned.iter_mut().zip(line.as_chunks::<CHANNELS>().0) {
            for (channel, &value) in pixel.iter().enumerate() {
                column[channel * ROWS + row] = i16::from(value);
            }
        }
    }
    for x in 0..weights.spans.len() {
        let (first, taps) = weights.of(x);
        let mut sums = [(1i32 << weights.shift) >> 1; LANES];
        for (column, &weight) in turned[first..].iter().zip(taps) {
            for (sum, &value) in sums.iter_mut().zip(column) {
                *sum += i32::from(value) * i32::from(weight);
            }
        }
        for row in 0..num_rows {
            for channel in 0..CHANNELS {
                output[row * output_stride + x * CHANNELS + channel] =
                    rounded(sums[channel * ROWS + row], weights.shift);
            }
        }
    }
}

fn resize_columns(image: &RgbImage, height: usize) -> RgbImage {
    let weights = Weights::new(image.height(), height);
    let stride = image.width() * CHANNELS;
    let mut pixels = vec![0; stride * height];
    pixels.par_chunks_mut(stride).enumerate().for_each(|(y, output)| {
        let (first, taps) = weights.of(y);
        let rows = &image.pixels()[first * stride..];
        for (part, output) in output.chunks_mut(COLUMNS).enumerate() {
            let start = part * COLUMNS;
            let mut sums = [(1i32 << weights.shift) >> 1; COLUMNS];
            for (row, &weight) in rows.chunks_exact(stride).zip(taps) {
                for (sum, &value) in sums.iter_mut().zip(&row[start..start + output.len()]) {
                    *sum += i32::from(value) * i32::from(weight);
                }
            }
            for (value, &sum) in output.iter_mut().zip(&sums) {
                *value = rounded(sum, weights.shift);
            }
        }
    });
    RgbImage::new(image.width(), height, pixels)
}
