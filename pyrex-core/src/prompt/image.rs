//! The bytes of an image file to upright RGB, as the reference reads a file given by its path.
//!
//! That is torchvision's `decode_image` in RGB mode: alpha is dropped and not composited, grey is repeated, palettes are
//! looked up, and the EXIF orientation of JPEG and PNG is applied (that of WebP is not: the reference ignores it).
//! Where we differ from it:
//! - 16-bit PNG: the high byte, as Pillow reads 16-bit RGB; the reference hands the model values up to 257.
//! - GIF and WebP with several frames: the first; the reference fails.
//! - BMP: as Pillow reads it; the reference refuses it.
//! - JPEG whose EXIF block follows an XMP block: turned upright, as Pillow does; the reference looks at the first block only.
//!
//! All others give the reference's values exactly. Sizes are checked in the header before anything is decoded.

use super::jpeg;
use crate::error::{Error, Result};
use image::codecs::{bmp::BmpDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, Limits};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CHANNELS: usize = 3;

/// An upright image of 8-bit RGB, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// How large an image may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the file.
    pub max_bytes: usize,
    /// Width times height.
    pub max_pixels: usize,
}

impl Default for ImageLimits {
    /// 64 MiB and 64 megapixels (8192 × 8192): a phone's largest photograph fits, and decoding it stays below 1 GiB.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_pixels: 64 << 20 }
    }
}

impl RgbImage {
    /// An image of `width · height` pixels of three values each.
    ///
    /// # Panics
    /// If `pixels` has another length.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), width * height * CHANNELS, "an RGB image of {width}×{height}");
        Self { width, height, pixels }
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The image turned upright, given its EXIF orientation; numbers other than 2 to 8 change nothing.
    fn upright(self, orientation: u8) -> Self {
        let (w, h) = (self.width, self.height);
        let source = |x: usize, y: usize| match orientation {
            2 => (w - 1 - x, y),
            3 => (w - 1 - x, h - 1 - y),
            4 => (x, h - 1 - y),
            5 => (y, x),
            6 => (y, h - 1 - x),
            7 => (w - 1 - y, h - 1 - x),
            _ => (w - 1 - y, x),
        };
        let (width, height) = match orientation {
            2..=4 => (w, h),
            5..=8 => (h, w),
            _ => return self,
        };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = source(x, y);
                pixels.extend_from_slice(&self.pixels[(y * w + x) * CHANNELS..][..CHANNELS]);
            }
        }
        Self::new(width, height, pixels)
    }
}

/// Decodes a PNG, JPEG, WebP, GIF or BMP file.
///
/// # Errors
/// `InvalidRequest` if it is none of these, is damaged or cut short, or is larger than `limits`.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    if bytes.len() > limits.max_bytes {
        return Err(invalid(format_args!("{} bytes, expected at most {}", bytes.len(), limits.max_bytes)));
    }
    let decoder = match bytes {
        [0x89, b'P', b'N', b'G', ..] => decode_png,
        [0xff, 0xd8, 0xff, ..] => decode_jpeg,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => decode_webp,
        [b'G', b'I', b'F', b'8', ..] => decode_gif,
        [b'B', b'M', ..] => decode_bmp,
        _ => return Err(invalid("not a PNG, JPEG, WebP, GIF or BMP file")),
    };
    // The decoders are fuzzed by their authors; the guard is for the panic that nobody found yet.
    catch_unwind(AssertUnwindSafe(|| decoder(bytes, limits)))
        .unwrap_or_else(|_| Err(invalid("the file is damaged in a way its decoder does not know")))
}

fn decode_png(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), allocation(limits)).map_err(invalid)?;
    let mut decoder = checked(decoder, limits)?;
    let orientation = decoder.orientation().map_or(1, Orientation::to_exif);
    Ok(to_rgb(decoder)?.upright(orientation))
}

fn decode_jpeg(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    let (image, exif) = jpeg::decode(bytes, limits)?;
    let orientation =
        exif.and_then(|exif| Orientation::from_exif_chunk(&exif)).map_or(1, Orientation::to_exif);
    Ok(image.upright(orientation))
}

fn decode_webp(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    to_rgb(checked(WebPDecoder::new(Cursor::new(bytes)).map_err(invalid)?, limits)?)
}

fn decode_bmp(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    to_rgb(checked(BmpDecoder::new(Cursor::new(bytes)).map_err(invalid)?, limits)?)
}

/// The first frame over the background colour, which also shows through transparent pixels, as in the reference.
fn decode_gif(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    let damaged = |error: gif::DecodingError| invalid(error);
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    options.set_memory_limit(gif::MemoryLimit::Bytes(
        (limits.max_pixels as u64).try_into().map_err(|_| invalid("no pixels are allowed"))?,
    ));
    let mut decoder = options.read_info(bytes).map_err(damaged)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    check_size(width, height, limits)?;
    let background = match (decoder.global_palette(), decoder.bg_color()) {
        (Some(palette), Some(index)) => palette.as_chunks().0.get(index).copied().unwrap_or_default(),
        _ => [0; CHANNELS],
    };
    let frame = decoder.read_next_frame().map_err(damaged)?.ok_or_else(|| invalid("no frame"))?.clone();
    let palette = decoder.palette().map_err(damaged)?.as_chunks::<CHANNELS>().0;
    let mut pixels = background.repeat(width * height);
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    for (row, line) in frame.buffer.chunks_exact(usize::from(frame.width).max(1)).enumerate() {
        for (column, &index) in line.iter().enumerate() {
            let (x, y) = (left + column, top + row);
            if x >= width || y >= height || frame.transparent == Some(index) {
                continue;
            }
            let color = palette.get(usize::from(index)).copied().unwrap_or_default();
            pixels[(y * width + x) * CHANNELS..][..CHANNELS].copy_from_slice(&color);
        }
    }
    Ok(RgbImage::new(width, height, pixels))
}

fn allocation(limits: &ImageLimits) -> Limits {
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some((limits.max_pixels as u64).saturating_mul(8).saturating_add(16 << 20));
    allocation
}

pub(super) fn check_size(width: usize, height: usize, limits: &ImageLimits) -> Result<()> {
    match width.checked_mul(height) {
        Some(1..) if width * height <= limits.max_pixels => Ok(()),
        _ => {
            Err(invalid(format_args!("{width}×{height} pixels, expected 1 to {} in all", limits.max_pixels)))
        }
    }
}

fn checked<D: ImageDecoder>(mut decoder: D, limits: &ImageLimits) -> Result<D> {
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize, limits)?;
    decoder.set_limits(allocation(limits)).map_err(invalid)?;
    Ok(decoder)
}

fn to_rgb(decoder: impl ImageDecoder) -> Result<RgbImage> {
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let total =
        usize::try_from(decoder.total_bytes()).map_err(|_| invalid("more bytes than memory can have"))?;
    let mut raw = vec![0; total];
    decoder.read_image(&mut raw).map_err(invalid)?;
    let (is_wide, channels) = match color {
        ColorType::L8 => (false, 1),
        ColorType::La8 => (false, 2),
        ColorType::Rgb8 => (false, 3),
        ColorType::Rgba8 => (false, 4),
        ColorType::L16 => (true, 1),
        ColorType::La16 => (true, 2),
        ColorType::Rgb16 => (true, 3),
        ColorType::Rgba16 => (true, 4),
        other => return Err(invalid(format_args!("pixels of type {other:?}"))),
    };
    if is_wide {
        raw = raw.as_chunks::<2>().0.iter().map(|&pair| (u16::from_ne_bytes(pair) >> 8) as u8).collect();
    }
    let pixels = match channels {
        3 => raw,
        1 | 2 => raw.chunks_exact(channels).flat_map(|pixel| [pixel[0]; CHANNELS]).collect(),
        _ => raw.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect(),
    };
    Ok(RgbImage::new(width as usize, height as usize, pixels))
}

pub(super) fn invalid(message: impl std::fmt::Display) -> Error {
    Error::invalid_request(format_args!("image: {message}"))
}
