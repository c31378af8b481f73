//! Planes to RGB: libjpeg-turbo's "fancy" chroma upsampling and its fixed-point colour conversion.

use super::ColorSpace;
use super::idct::Plane;
use rayon::prelude::*;

/// `width · height` pixels of RGB from planes of any sampling.
pub(super) fn convert(color: ColorSpace, planes: &[Plane], width: usize, height: usize) -> Vec<u8> {
    let mut pixels = vec![0; width * height * 3];
    let rows = pixels.par_chunks_mut(width * 3).enumerate();
    rows.for_each_init(
        || vec![Vec::new(); planes.len()],
        |rows, (y, output)| {
            for (row, plane) in rows.iter_mut().zip(planes) {
                row.clear();
                upsample(plane, y, row);
            }
            convert_row(color, rows, output);
        },
    );
    pixels
}

/// Row `y` of the picture from one plane, perhaps a few samples longer than the picture is wide.
fn upsample(plane: &Plane, y: usize, row: &mut Vec<u8>) {
    let [across, down] = plane.spread;
    let near = plane.row(y / down);
    let is_wide = plane.size[0] > 2;
    // The neighbour is the row above for the upper of two pixels, below for the lower; edges repeat.
    let far_y =
        if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(plane.size[1] - 1) };
    match (across, down) {
        (1, 1) => row.extend_from_slice(near),
        (2, 1) if is_wide => widen(row, near.iter().map(|&sample| u32::from(sample)), [1, 2], 2),
        (1, 2) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            let far = plane.row(far_y).iter();
            row.extend(
                near.iter().zip(far).map(|(&a, &b)| ((u32::from(a) * 3 + u32::from(b) + bias) >> 2) as u8),
            );
        }
        (2, 2) if is_wide => {
            let far = plane.row(far_y).iter();
            widen(row, near.iter().zip(far).map(|(&a, &b)| u32::from(a) * 3 + u32::from(b)), [8, 7], 4);
        }
        _ => row.extend(near.iter().flat_map(|&sample| std::iter::repeat_n(sample, across))),
    }
}

/// Two samples for each: three parts of its own and one of the neighbour's, rounded by `bias`, divided by `1 << shift`.
fn widen(row: &mut Vec<u8>, sums: impl Iterator<Item = u32>, bias: [u32; 2], shift: u32) {
    let mut sums = sums.peekable();
    let mut last = None;
    while let Some(sum) = sums.next() {
        let (left, right) = (last.unwrap_or(sum), sums.peek().copied().unwrap_or(sum));
        row.push(((sum * 3 + left + bias[0]) >> shift) as u8);
        row.push(((sum * 3 + right + bias[1]) >> shift) as u8);
        last = Some(sum);
    }
}

fn convert_row(color: ColorSpace, rows: &[Vec<u8>], output: &mut [u8]) {
    for (x, pixel) in output.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = match (color, rows) {
            (ColorSpace::Rgb, [r, g, b, ..]) => [r[x], g[x], b[x]],
            (ColorSpace::YCbCr, [y, cb, cr, ..]) => from_ycc(y[x], cb[x], cr[x]),
            (ColorSpace::Cmyk, [c, m, y, k]) => from_cmyk([c[x], m[x], y[x]], k[x]),
            (ColorSpace::Ycck, [y, cb, cr, k]) => {
                from_cmyk(from_ycc(y[x], cb[x], cr[x]).map(|v| 255 - v), k[x])
            }
            (_, rows) => [rows[0][x]; 3],
        };
    }
}

/// ITU-R BT.601 at full range in 16 bits of fraction.
fn from_ycc(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let r = y + ((91_881 * cr + HALF) >> 16);
    let g = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let b = y + ((116_130 * cb + HALF) >> 16);
    [r, g, b].map(|value| value.clamp(0, 255) as u8)
}

/// As torchvision and Pillow read CMYK, which JPEG files store inverted.
fn from_cmyk(inks: [u8; 3], k: u8) -> [u8; 3] {
    inks.map(|ink| {
        let k = i32::from(k);
        let shade = k * (255 - i32::from(ink)) + 128;
        (k - (((shade >> 8) + shade) >> 8)).clamp(0, 255) as u8
    })
}
