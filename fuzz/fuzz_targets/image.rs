//! Any bytes as an image file: refused, or an upright picture within the limits and then patches of its size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyrex_core::ErrorKind;
use pyrex_core::models::gemma4::prompt::{ImageGrid, SOFT_TOKEN_BUDGETS};
use pyrex_core::prompt::image::{ImageLimits, decode};
use pyrex_fuzz::{assert_refusal, check};

fuzz_target!(|data: &[u8]| check(|| decode_and_cut(data)));

fn decode_and_cut(data: &[u8]) {
    // Most runs take a small limit: at the default a file of a few bytes may be a picture that takes a second.
    let limits = match data.len() % 16 {
        0 => ImageLimits::default(),
        _ => ImageLimits { max_pixels: 1 << 20, ..ImageLimits::default() },
    };
    let image = match decode(data, &limits) {
        Ok(image) => image,
        Err(error) => return assert_refusal(&error, &[ErrorKind::InvalidRequest]),
    };
    let (width, height) = (image.width(), image.height());
    assert!((1..=limits.max_pixels).contains(&(width * height)), "{width}×{height}");
    assert_eq!(image.pixels().len(), width * height * 3);
    let max_soft_tokens = SOFT_TOKEN_BUDGETS[data.len() % SOFT_TOKEN_BUDGETS.len()];
    let grid = ImageGrid { patch_size: 16, pooling_kernel_size: 3, max_soft_tokens };
    match grid.patches(&image) {
        Err(error) => assert_refusal(&error, &[ErrorKind::InvalidRequest]),
        Ok(patches) => {
            assert!((1..=max_soft_tokens).contains(&grid.num_soft_tokens(&patches)));
            assert_eq!(patches.columns % 3 + patches.rows % 3, 0, "whole tiles");
            assert_eq!(patches.pixels.len(), patches.columns * patches.rows * 3 * 16 * 16);
        }
    }
}
