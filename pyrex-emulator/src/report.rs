//! [`Report`]: what a launch did, counted.

use crate::lanes::{Mask, lanes_of};

/// What a launch did: what decides its speed on a device, and can be counted without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions that a warp executed.
    pub instructions: u64,
    /// Sectors of 32 bytes that warps read from global memory, one count for each time a warp's instruction touches one.
    pub sectors_read: u64,
    /// The same for what they wrote.
    pub sectors_written: u64,
    /// Bytes of global memory that threads asked to read.
    pub bytes_read: u64,
    /// Bytes that they wrote.
    pub bytes_written: u64,
    /// How often an access to shared memory had to be repeated, because threads of a warp wanted different words of one bank.
    pub bank_conflicts: u64,
}

/// How many different sectors of 32 bytes the lanes of `mask` touch with `bytes` bytes each.
pub(crate) fn sectors(addresses: &[u64; 32], bytes: u64, mask: Mask) -> u64 {
    let mut found = [0; 64];
    let mut len = 0;
    let mut sorted = true;
    for lane in lanes_of(mask) {
        for sector in [addresses[lane] / 32, (addresses[lane] + bytes - 1) / 32] {
            if len == 0 || found[len - 1] != sector {
                sorted &= len == 0 || found[len - 1] < sector;
                found[len] = sector;
                len += 1;
            }
        }
    }
    if sorted {
        return len as u64;
    }
    found[..len].sort_unstable();
    1 + found[..len].windows(2).filter(|two| two[0] != two[1]).count() as u64
}

/// How often an access of `bytes` bytes a lane must be repeated: there are 32 banks of words of 4 bytes, and wider accesses go
/// by halves or quarters of a warp.
pub(crate) fn bank_conflicts(addresses: &[u64; 32], bytes: u64, mask: Mask) -> u64 {
    let phase_len = match bytes {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    (0..32).step_by(phase_len).map(|first| phase(addresses, bytes, mask, first..first + phase_len)).sum()
}

fn phase(addresses: &[u64; 32], bytes: u64, mask: Mask, lanes: std::ops::Range<usize>) -> u64 {
    let mut words = [0; 32];
    let mut len = 0;
    // Mostly each bank has one word: then there is nothing to count.
    let mut of_bank = [u64::MAX; 32];
    let mut differ = false;
    for lane in lanes.filter(|lane| mask >> lane & 1 == 1) {
        for word in addresses[lane] / 4..(addresses[lane] + bytes).div_ceil(4) {
            let first = &mut of_bank[word as usize % 32];
            differ |= *first != word && *first != u64::MAX;
            *first = word;
            words[len] = word;
            len += 1;
        }
    }
    if differ { most_words_of_a_bank(&mut words[..len]) - 1 } else { 0 }
}

fn most_words_of_a_bank(words: &mut [u64]) -> u64 {
    words.sort_unstable();
    let mut of_bank = [0u64; 32];
    let mut last = None;
    for word in words {
        if last != Some(*word) {
            of_bank[*word as usize % 32] += 1;
        }
        last = Some(*word);
    }
    of_bank.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(of: impl Fn(u64) -> u64) -> [u64; 32] {
        std::array::from_fn(|lane| of(lane as u64))
    }

    #[test]
    fn sectors_are_counted_once() {
        assert_eq!(sectors(&addresses(|lane| lane * 4), 4, !0), 4);
        assert_eq!(sectors(&addresses(|lane| 124 - lane * 4), 4, !0), 4);
        assert_eq!(sectors(&addresses(|lane| lane * 16), 16, !0), 16);
        assert_eq!(sectors(&addresses(|lane| lane * 4096), 2, 0xff), 8);
        assert_eq!(sectors(&addresses(|_| 64), 2, !0), 1);
        assert_eq!(sectors(&addresses(|lane| lane % 2 * 64), 2, !0), 2);
    }

    #[test]
    fn banks_are_words_of_four_bytes() {
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 4), 4, !0), 0);
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 8), 4, !0), 1);
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 128), 4, !0), 31);
        assert_eq!(bank_conflicts(&addresses(|_| 128), 4, !0), 0, "one word for all");
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 2), 2, !0), 0, "two lanes a word");
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 8), 8, !0), 0, "a half of the warp at a time");
        assert_eq!(bank_conflicts(&addresses(|lane| lane * 16), 16, !0), 0, "a quarter at a time");
        assert_eq!(
            bank_conflicts(&addresses(|lane| lane * 128), 16, !0),
            28,
            "eight lanes, all in four banks"
        );
    }
}
