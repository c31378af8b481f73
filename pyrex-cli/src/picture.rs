//! Made-up pictures to measure with, as BMP files: the simplest there are.

use pyrex_core::Part;

/// A size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
}

/// Reads `WxH`.
pub(crate) fn parse_size(text: &str) -> Result<Picture, String> {
    const MAX_SIDE: u32 = 8192;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    let (width, height) =
        sides.ok_or_else(|| format!("expected WxH with sides of 1 to {MAX_SIDE} pixels"))?;
    Ok(Picture { width, height })
}

impl Picture {
    /// The picture as the part of a message. Each `variant` looks otherwise, to an engine that remembers what it saw.
    pub(crate) fn to_part(self, variant: u8) -> Part {
        Part::Image(self.to_bmp(variant).into())
    }

    /// 24 bits per pixel, rows from the bottom up, each padded to four bytes.
    fn to_bmp(self, variant: u8) -> Vec<u8> {
        const HEADER_LEN: u32 = 54;
        let row_len = (self.width * 3).next_multiple_of(4);
        let mut file = Vec::new();
        file.extend(b"BM");
        for word in [HEADER_LEN + row_len * self.height, 0, HEADER_LEN, 40, self.width, self.height] {
            file.extend(word.to_le_bytes());
        }
        // One plane, 24 bits; no compression, and nothing else worth saying.
        file.extend([1, 0, 24, 0]);
        file.extend([0; 24]);
        for y in 0..self.height {
            let row = (0..self.width).flat_map(|x| [x as u8, y as u8, (x ^ y) as u8 ^ variant]);
            file.extend(row);
            file.resize((HEADER_LEN + row_len * (y + 1)) as usize, 0);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!(parse_size("640x480"), Ok(Picture { width: 640, height: 480 }));
        for bad in ["640", "0x5", "5x0", "x", "-1x5", "9000x1", "5X5"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_as_long_as_its_header_says() {
        for (width, height) in [(1, 1), (3, 2), (4, 5), (640, 480)] {
            let file = Picture { width, height }.to_bmp(0);
            assert_eq!(file[2..6], (file.len() as u32).to_le_bytes(), "{width}x{height}");
        }
    }
}
