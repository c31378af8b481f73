//! One scan of a JPEG file: bits to coefficients.

use super::huffman::{BitReader, HuffmanTable};
use super::{Block, Component, Frame, ZIGZAG, cut_short, invalid};
use crate::error::Result;

pub(super) struct ScanComponent<'a> {
    pub(super) index: usize,
    pub(super) dc_table: Option<&'a HuffmanTable>,
    pub(super) ac_table: Option<&'a HuffmanTable>,
}

/// What a scan brings of each block.
enum Kind {
    /// All of a block: baseline.
    Whole,
    DcFirst,
    DcRefine,
    AcFirst,
    AcRefine,
}

pub(super) struct Scan<'a> {
    components: Vec<ScanComponent<'a>>,
    kind: Kind,
    /// The first and the last coefficient, in stored order.
    first: usize,
    last: usize,
    /// The lowest bit that this scan brings.
    low_bit: u32,
    restart_interval: usize,
}

/// What one block leaves for the next.
#[derive(Default)]
struct State {
    predictions: [i32; 4],
    /// Blocks still to come that bring nothing new.
    end_run: u32,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        frame: &Frame,
        components: Vec<ScanComponent<'a>>,
        [first, last]: [u8; 2],
        precision: u8,
        restart_interval: usize,
    ) -> Result<Self> {
        let (high_bit, low_bit) = (precision >> 4, u32::from(precision & 15));
        let kind = match (frame.is_progressive, first, high_bit) {
            (false, ..) => Kind::Whole,
            (true, 0, 0) => Kind::DcFirst,
            (true, 0, _) => Kind::DcRefine,
            (true, _, 0) => Kind::AcFirst,
            (true, _, _) => Kind::AcRefine,
        };
        let (needs_dc, needs_ac, most) = match kind {
            Kind::Whole => (true, true, 4),
            Kind::DcFirst => (true, false, 4),
            Kind::DcRefine => (false, false, 4),
            Kind::AcFirst | Kind::AcRefine => (false, true, 1),
        };
        let has_tables = |c: &ScanComponent<'_>| {
            (!needs_dc || c.dc_table.is_some()) && (!needs_ac || c.ac_table.is_some())
        };
        let is_ordered = !frame.is_progressive || (first == 0) == (last == 0) && first <= last && last < 64;
        if !(1..=most).contains(&components.len()) || !is_ordered || low_bit > 13 {
            return Err(invalid(format_args!(
                "a scan of {} components from {first} to {last}",
                components.len()
            )));
        }
        if !components.iter().all(has_tables) {
            return Err(invalid("a scan without its Huffman table"));
        }
        let (first, last) = (usize::from(first), usize::from(last));
        Ok(Self { components, kind, first, last, low_bit, restart_interval })
    }

    pub(super) fn run(&self, frame: &mut Frame, reader: &mut BitReader<'_>) -> Result<()> {
        // A scan of one component has no units: its blocks come row by row, without those that only fill units up.
        let [across, down] = match self.components.as_slice() {
            [only] => frame.components[only.index].num_blocks,
            _ => frame.num_units,
        };
        let mut state = State::default();
        let mut until_restart = self.restart_interval;
        for y in 0..down {
            for x in 0..across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        reader.restart();
                        state = State::default();
                        until_restart = self.restart_interval;
                    }
                    until_restart -= 1;
                }
                if !reader.is_exhausted() {
                    self.unit(&mut frame.components, reader, &mut state, [x, y]);
                }
            }
            if reader.is_exhausted() && reader.is_at_end() {
                return Err(cut_short());
            }
        }
        Ok(())
    }

    fn unit(&self, all: &mut [Component], reader: &mut BitReader<'_>, state: &mut State, [x, y]: [usize; 2]) {
        if let [only] = self.components.as_slice() {
            let component = &mut all[only.index];
            let block = &mut component.blocks[y * component.stride + x];
            return self.block(only, block, reader, state);
        }
        for part in &self.components {
            let component = &mut all[part.index];
            let [h, v] = component.sampling;
            for (dy, dx) in (0..v).flat_map(|dy| (0..h).map(move |dx| (dy, dx))) {
                let block = &mut component.blocks[(y * v + dy) * component.stride + x * h + dx];
                self.block(part, block, reader, state);
            }
        }
    }

    fn block(
        &self,
        part: &ScanComponent<'_>,
        block: &mut Block,
        reader: &mut BitReader<'_>,
        state: &mut State,
    ) {
        match self.kind {
            Kind::Whole => {
                block[0] = dc(part, reader, state) as i16;
                whole_ac(part, block, reader);
            }
            Kind::DcFirst => block[0] = (dc(part, reader, state) << self.low_bit) as i16,
            Kind::DcRefine => block[0] |= i16::from(reader.bit()) << self.low_bit,
            Kind::AcFirst => self.ac_first(part, block, reader, state),
            Kind::AcRefine => self.ac_refine(part, block, reader, state),
        }
    }

    fn ac_first(
        &self,
        part: &ScanComponent<'_>,
        block: &mut Block,
        reader: &mut BitReader<'_>,
        state: &mut State,
    ) {
        let Some(table) = part.ac_table else { return };
        if state.end_run > 0 {
            state.end_run -= 1;
            return;
        }
        let mut k = self.first;
        while k <= self.last {
            let symbol = reader.symbol(table);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                let value = reader.signed(size) << self.low_bit;
                block[usize::from(ZIGZAG[k])] = value as i16;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                state.end_run = (1 << run) - 1 + reader.take(run as u32) as u32;
                return;
            }
        }
    }

    fn ac_refine(
        &self,
        part: &ScanComponent<'_>,
        block: &mut Block,
        reader: &mut BitReader<'_>,
        state: &mut State,
    ) {
        let Some(table) = part.ac_table else { return };
        let bit = 1i16 << self.low_bit;
        let mut k = self.first;
        while state.end_run == 0 && k <= self.last {
            let symbol = reader.symbol(table);
            let (mut zeros, size) = (usize::from(symbol >> 4), symbol & 15);
            let mut value = 0;
            if size > 0 {
                value = if reader.bit() { bit } else { -bit };
            } else if zeros < 15 {
                state.end_run = (1 << zeros) + reader.take(zeros as u32) as u32;
                break;
            }
            // Passes `zeros` coefficients that are still zero, refining every other one on the way.
            while k <= self.last {
                let coefficient = &mut block[usize::from(ZIGZAG[k])];
                if *coefficient != 0 {
                    refine(coefficient, bit, reader);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                k += 1;
            }
            if value != 0 && k <= self.last {
                block[usize::from(ZIGZAG[k])] = value;
            }
            k += 1;
        }
        if state.end_run > 0 {
            for &place in ZIGZAG.get(k..=self.last).unwrap_or_default() {
                let coefficient = &mut block[usize::from(place)];
                if *coefficient != 0 {
                    refine(coefficient, bit, reader);
                }
            }
            state.end_run -= 1;
        }
    }
}

fn dc(part: &ScanComponent<'_>, reader: &mut BitReader<'_>, state: &mut State) -> i32 {
    let Some(table) = part.dc_table else { return 0 };
    let size = u32::from(reader.symbol(table)).min(15);
    let prediction = &mut state.predictions[part.index];
    *prediction = prediction.wrapping_add(reader.signed(size));
    *prediction
}

fn whole_ac(part: &ScanComponent<'_>, block: &mut Block, reader: &mut BitReader<'_>) {
    let Some(table) = part.ac_table else { return };
    let mut k = 1;
    while k < 64 {
        let symbol = reader.symbol(table);
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            k += run;
            block[usize::from(ZIGZAG[k])] = reader.signed(size) as i16;
            k += 1;
        } else if run == 15 {
            k += 16;
        } else {
            return;
        }
    }
}

fn refine(coefficient: &mut i16, bit: i16, reader: &mut BitReader<'_>) {
    if reader.bit() && *coefficient & bit == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient >= 0 { bit } else { -bit });
    }
}
