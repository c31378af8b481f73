//! Huffman codes and the bits they are made of.

/// Codes of up to this many bits are found in one look.
const FAST_BITS: u32 = 9;

pub(super) struct HuffmanTable {
    /// Length and value of the code that the next bits begin with; length 0 for longer codes.
    fast: [(u8, u8); 1 << FAST_BITS],
    /// Per length: one more than the largest code, shifted to 16 bits, and what to add to a code to find its value.
    ends: [u32; 17],
    offsets: [i32; 17],
    values: Vec<u8>,
}

impl HuffmanTable {
    /// The canonical code of `counts[i]` words of `i + 1` bits; `None` if there are more words than the bits allow.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table =
            Self { fast: [(0, 0); 1 << FAST_BITS], ends: [0; 17], offsets: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0u32, 0usize);
        for (bits, &count) in (1u32..).zip(counts) {
            table.offsets[bits as usize] = index as i32 - code as i32;
            for _ in 0..count {
                if code >> bits != 0 {
                    return None;
                }
                if bits <= FAST_BITS {
                    let first = (code << (FAST_BITS - bits)) as usize;
                    table.fast[first..first + (1 << (FAST_BITS - bits))]
                        .fill((bits as u8, *values.get(index)?));
                }
                code += 1;
                index += 1;
            }
            table.ends[bits as usize] = code << (16 - bits);
            code <<= 1;
        }
        Some(table)
    }
}

/// The entropy-coded bits from one marker to the next; zeros after the last of them.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The next bits, from the top.
    bits: u64,
    num_bits: u32,
    /// How many of them are zeros that the file does not have.
    num_padding: u32,
    is_stopped: bool,
    is_exhausted: bool,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, bits: 0, num_bits: 0, num_padding: 0, is_stopped: false, is_exhausted: false }
    }

    /// No further than the next marker.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Whether more bits were taken than there are.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Whether the file ends here without another marker.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_stopped && self.position + 1 >= self.bytes.len()
    }

    /// Makes sure of 32 bits at least.
    pub(super) fn refill(&mut self) {
        if self.num_bits >= 32 {
            return;
        }
        let ahead = self.bytes.get(self.position..).and_then(|rest| rest.first_chunk::<8>());
        if let Some(&next) = ahead.filter(|next| !next.contains(&0xff)) {
            // The bits of the byte that fits in part are set again, to the same, by the next refill.
            self.bits |= u64::from_be_bytes(next) >> self.num_bits;
            let taken = (64 - self.num_bits) / 8;
            self.position += taken as usize;
            self.num_bits += taken * 8;
            return;
        }
        while self.num_bits <= 56 {
            let byte = self.next_byte();
            self.bits |= u64::from(byte) << (56 - self.num_bits);
            self.num_bits += 8;
        }
    }

    fn next_byte(&mut self) -> u8 {
        if !self.is_stopped {
            match self.bytes.get(self.position..) {
                Some([0xff, 0, ..]) => {
                    self.position += 2;
                    return 0xff;
                }
                None | Some([] | [0xff, ..]) => self.is_stopped = true,
                Some([byte, ..]) => {
                    self.position += 1;
                    return *byte;
                }
            }
        }
        self.num_padding += 8;
        0
    }

    fn skip(&mut self, num: u32) {
        self.bits <<= num;
        self.num_bits -= num;
        if self.num_bits < self.num_padding {
            self.num_padding = self.num_bits;
            self.is_exhausted = true;
        }
    }

    /// The next `num` bits, at most 16, of those that [`refill`](Self::refill) made sure of.
    pub(super) fn take(&mut self, num: u32) -> i32 {
        if num == 0 {
            return 0;
        }
        let value = (self.bits >> (64 - num)) as i32;
        self.skip(num);
        value
    }

    /// One bit, refilled.
    pub(super) fn bit(&mut self) -> bool {
        self.refill();
        self.take(1) != 0
    }

    /// A number of `num` bits whose missing sign is its first bit.
    pub(super) fn signed(&mut self, num: u32) -> i32 {
        let value = self.take(num);
        if num > 0 && value < 1 << (num - 1) { value - (1 << num) + 1 } else { value }
    }

    /// The value of the next code; afterwards at least 16 bits are still there. A code that is none counts as 0.
    pub(super) fn symbol(&mut self, table: &HuffmanTable) -> u8 {
        self.refill();
        let (len, value) = table.fast[(self.bits >> (64 - FAST_BITS)) as usize];
        if len > 0 {
            self.skip(u32::from(len));
            return value;
        }
        let next = (self.bits >> 48) as u32;
        for len in FAST_BITS + 1..=16 {
            if next < table.ends[len as usize] {
                self.skip(len);
                let index = (next >> (16 - len)) as i32 + table.offsets[len as usize];
                return usize::try_from(index).ok().and_then(|i| table.values.get(i)).copied().unwrap_or(0);
            }
        }
        self.skip(16);
        0
    }

    /// Goes on behind the restart marker that must be next; if another marker is, the bits stay exhausted.
    pub(super) fn restart(&mut self) {
        (self.bits, self.num_bits, self.num_padding) = (0, 0, 0);
        let mut position = self.position;
        while let Some(&[first, second]) = self.bytes.get(position..).and_then(|rest| rest.first_chunk::<2>())
        {
            match (first, second) {
                (0xff, 0xd0..=0xd7) => {
                    (self.position, self.is_stopped, self.is_exhausted) = (position + 2, false, false);
                    return;
                }
                (0xff, 0x01..=0xfe) => break,
                _ => position += 1,
            }
        }
        (self.position, self.is_stopped, self.is_exhausted) = (position, true, true);
    }
}
