//! JPEG files to RGB, bit for bit as libjpeg-turbo decodes them: the decoder behind the reference.
//!
//! The published Rust decoders round elsewhere in the inverse transform and the chroma upsampling: 3 to 4 steps of 255
//! measured for zune-jpeg and jpeg-decoder, 18 on small noisy files. Hence this one: 8-bit Huffman, baseline and progressive.
//! Follow a file through [`decode`], [`scan`] (bits to coefficients), [`idct`] (coefficients to planes) and [`rgb`].

mod huffman;
mod idct;
mod rgb;
mod scan;

use super::image::{ImageLimits, RgbImage, check_size, invalid};
use crate::error::Result;
use huffman::{BitReader, HuffmanTable};
use scan::{Scan, ScanComponent};

/// Scans one file may have: a progressive file has about ten, libjpeg's longest script eighteen, and each costs a walk over
/// the image: a hundred of them over 64 megapixels, in a file of 10 kB, took three seconds.
const MAX_SCANS: usize = 32;

/// Coefficients in the order they are stored, then where a broken run of zeros may point.
const ZIGZAG: [u8; 80] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
];

/// An 8 × 8 block of coefficients, row by row.
type Block = [i16; 64];

/// A colour component: how it is sampled and what was read of it.
struct Component {
    id: u8,
    /// Samples per unit, horizontally and vertically.
    sampling: [usize; 2],
    quantization_id: usize,
    /// Latched when its first scan begins, as tables may change later.
    quantization: Option<[u16; 64]>,
    /// Samples that carry picture.
    size: [usize; 2],
    /// Blocks that carry picture, and blocks stored per row.
    num_blocks: [usize; 2],
    stride: usize,
    blocks: Vec<Block>,
}

/// The picture while it is being read.
struct Frame {
    size: [usize; 2],
    max_sampling: [usize; 2],
    /// Units across and down; a unit holds `sampling` blocks of each component.
    num_units: [usize; 2],
    is_progressive: bool,
    components: Vec<Component>,
}

/// How the components say colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColorSpace {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

#[derive(Default)]
struct Decoder {
    quantization: [Option<[u16; 64]>; 4],
    dc_tables: [Option<HuffmanTable>; 4],
    ac_tables: [Option<HuffmanTable>; 4],
    restart_interval: usize,
    frame: Option<Frame>,
    num_scans: usize,
    is_jfif: bool,
    adobe_transform: Option<u8>,
    exif: Option<Vec<u8>>,
}

/// The pixels of a JPEG file, not yet turned, and its EXIF block if it has one.
///
/// # Errors
/// `InvalidRequest` if it is damaged, cut short, larger than `limits`, or neither baseline nor progressive.
pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<(RgbImage, Option<Vec<u8>>)> {
    let mut decoder = Decoder::default();
    let mut position = 2;
    loop {
        let (marker, start) = next_marker(bytes, position)?;
        if marker == 0xd9 {
            return decoder.finish();
        }
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            position = start;
            continue;
        }
        let len = bytes.get(start..start + 2).map(|len| usize::from(u16::from_be_bytes([len[0], len[1]])));
        let end = start + len.filter(|&len| len >= 2).ok_or_else(cut_short)?;
        let segment = bytes.get(start + 2..end).ok_or_else(cut_short)?;
        decoder.segment(marker, segment, limits)?;
        position = if marker == 0xda { decoder.scan(segment, bytes, end)? } else { end };
    }
}

/// The next marker from `position` on, and the position after it.
fn next_marker(bytes: &[u8], mut position: usize) -> Result<(u8, usize)> {
    loop {
        match bytes.get(position..position + 2).ok_or_else(cut_short)? {
            [0xff, 0xff] => position += 1,
            [0xff, marker] if *marker != 0 => return Ok((*marker, position + 2)),
            _ => position += 1,
        }
    }
}

impl Decoder {
    fn segment(&mut self, marker: u8, segment: &[u8], limits: &ImageLimits) -> Result<()> {
        match (marker, segment) {
            (0xc0..=0xc2, _) => self.start_frame(marker == 0xc2, segment, limits)?,
            (0xc4, _) => self.huffman_tables(segment)?,
            (0xc3 | 0xc5..=0xcf, _) => {
                return Err(invalid(format_args!(
                    "JPEG process {marker:#x}, expected baseline or progressive"
                )));
            }
            (0xdb, _) => self.quantization_tables(segment)?,
            (0xdd, [high, low, ..]) => self.restart_interval = usize::from(u16::from_be_bytes([*high, *low])),
            (0xe0, [b'J', b'F', b'I', b'F', 0, ..]) => self.is_jfif = true,
            (0xe1, [b'E', b'x', b'i', b'f', 0, 0, exif @ ..]) if self.exif.is_none() => {
                self.exif = Some(exif.to_vec());
            }
            (0xee, [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..]) => {
                self.adobe_transform = Some(*transform);
            }
            _ => {}
        }
        Ok(())
    }

    fn start_frame(&mut self, is_progressive: bool, segment: &[u8], limits: &ImageLimits) -> Result<()> {
        let [precision, h0, h1, w0, w1, num_components, rest @ ..] = segment else { return Err(cut_short()) };
        let size = [u16::from_be_bytes([*w0, *w1]), u16::from_be_bytes([*h0, *h1])].map(usize::from);
        check_size(size[0], size[1], limits)?;
        let declared = rest.as_chunks::<3>().0;
        if self.frame.is_some() || *precision != 8 || !matches!(num_components, 1 | 3 | 4) {
            return Err(invalid(format_args!(
                "{precision} bits and {num_components} components in one frame of several"
            )));
        }
        let declared = declared.get(..usize::from(*num_components)).ok_or_else(cut_short)?;
        let samplings = declared.iter().map(|&[_, s, _]| [usize::from(s >> 4), usize::from(s & 15)]);
        let max_sampling =
            samplings.clone().reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]).unwrap_or([1, 1]);
        let is_whole =
            |s: [usize; 2]| (0..2).all(|i| matches!(s[i], 1..=4) && max_sampling[i].is_multiple_of(s[i]));
        if !samplings.clone().all(is_whole)
            || samplings.clone().map(|s| s[0] * s[1]).sum::<usize>() > 10 && *num_components > 1
        {
            return Err(invalid(format_args!("sampling factors {:?}", samplings.collect::<Vec<_>>())));
        }
        let num_units = [0, 1].map(|i| size[i].div_ceil(8 * max_sampling[i]));
        let component = |(&[id, _, table], sampling): (&[u8; 3], [usize; 2])| {
            let own = [0, 1].map(|i| (size[i] * sampling[i]).div_ceil(max_sampling[i]));
            let stored = [0, 1].map(|i| num_units[i] * sampling[i]);
            Component {
                id,
                sampling,
                quantization_id: usize::from(table & 3),
                quantization: None,
                size: own,
                num_blocks: own.map(|len| len.div_ceil(8)),
                stride: stored[0],
                blocks: vec![[0; 64]; stored[0] * stored[1]],
            }
        };
        let components = declared.iter().zip(samplings.clone()).map(component).collect();
        self.frame = Some(Frame { size, max_sampling, num_units, is_progressive, components });
        Ok(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        while let [head, rest @ ..] = segment {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let values = rest.get(..64 * width).ok_or_else(cut_short)?;
            let mut table = [0; 64];
            for (value, &place) in values.chunks_exact(width).zip(&ZIGZAG) {
                table[usize::from(place)] = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            self.quantization[usize::from(head & 3)] = Some(table);
            segment = &rest[64 * width..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        while let [head, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(cut_short)?;
            let num_values: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let values = rest.get(..num_values).ok_or_else(cut_short)?;
            let table =
                HuffmanTable::new(counts, values).ok_or_else(|| invalid("a Huffman table is not a code"))?;
            let tables = if head >> 4 == 0 { &mut self.dc_tables } else { &mut self.ac_tables };
            tables[usize::from(head & 3)] = Some(table);
            segment = &rest[num_values..];
        }
        Ok(())
    }

    /// Reads the scan whose data begin at `start`; returns where they end.
    fn scan(&mut self, header: &[u8], bytes: &[u8], start: usize) -> Result<usize> {
        self.num_scans += 1;
        let frame = self.frame.as_mut().ok_or_else(|| invalid("a scan before its frame"))?;
        if self.num_scans > MAX_SCANS {
            return Err(invalid(format_args!("more than {MAX_SCANS} scans")));
        }
        let [num_components, rest @ ..] = header else { return Err(cut_short()) };
        let (named, rest) = rest.split_at_checked(2 * usize::from(*num_components)).ok_or_else(cut_short)?;
        let [first, last, precision, ..] = rest else { return Err(cut_short()) };
        let mut components = Vec::new();
        for &[id, tables] in named.as_chunks::<2>().0 {
            let index = frame.components.iter().position(|component| component.id == id);
            let index =
                index.ok_or_else(|| invalid(format_args!("a scan of component {id}, which is none")))?;
            let component = &mut frame.components[index];
            component.quantization = component.quantization.or(self.quantization[component.quantization_id]);
            components.push(ScanComponent {
                index,
                dc_table: self.dc_tables[usize::from(tables >> 4 & 3)].as_ref(),
                ac_table: self.ac_tables[usize::from(tables & 3)].as_ref(),
            });
        }
        let scan = Scan::new(frame, components, [*first, *last], *precision, self.restart_interval)?;
        let mut reader = BitReader::new(bytes, start);
        scan.run(frame, &mut reader)?;
        Ok(reader.position())
    }

    fn finish(self) -> Result<(RgbImage, Option<Vec<u8>>)> {
        let color = self.color_space();
        let frame = self.frame.ok_or_else(|| invalid("a JPEG file without a picture"))?;
        let [width, height] = frame.size;
        let planes = idct::planes(frame)?;
        Ok((RgbImage::new(width, height, rgb::convert(color, &planes, width, height)), self.exif))
    }

    /// What the components mean, by libjpeg's rules.
    fn color_space(&self) -> ColorSpace {
        let ids: Vec<u8> =
            self.frame.iter().flat_map(|frame| frame.components.iter().map(|c| c.id)).collect();
        match (ids.as_slice(), self.adobe_transform) {
            ([_], _) => ColorSpace::Grey,
            ([_, _, _, _], Some(0) | None) => ColorSpace::Cmyk,
            ([_, _, _, _], _) => ColorSpace::Ycck,
            (_, Some(0)) if !self.is_jfif => ColorSpace::Rgb,
            ([b'R', b'G', b'B'], None) if !self.is_jfif => ColorSpace::Rgb,
            _ => ColorSpace::YCbCr,
        }
    }
}

fn cut_short() -> crate::error::Error {
    invalid("the JPEG file is cut short")
}
