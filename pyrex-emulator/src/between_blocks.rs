//! [`BlockOrder`]: which blocks of a launch know what which others wrote.
//!
//! A block that writes, fences, and then meets another one at an atomic has told it: split work is published so. All else that
//! one block writes and another reads, or writes as well, has no order. Fences and meetings count for the block as a whole.

use std::collections::HashMap;

/// Who wrote a granule, and how many fences the block had made before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The block and one, so that 0 is nobody; the highest bit is set if the write was strong.
    by: u32,
    fences: u32,
}

const STRONG: u32 = 1 << 31;

impl Stamp {
    /// Which block.
    pub(crate) fn block(self) -> u32 {
        (self.by & !STRONG).saturating_sub(1)
    }

    /// Whether there is a writer.
    pub(crate) fn is_somebody_s(self) -> bool {
        self.by != 0
    }

    /// Whether it was an atomic, or a write that may come together with others.
    pub(crate) fn is_strong(self) -> bool {
        self.by & STRONG != 0
    }
}

/// Who knows what of whom.
#[derive(Debug, Default)]
pub(crate) struct BlockOrder {
    /// How many fences a block made.
    fences: HashMap<u32, u32>,
    /// At each address: of which blocks how many fences are known to who meets there.
    places: HashMap<u64, HashMap<u32, u32>>,
    /// Of which blocks how many fences a block knows.
    known: HashMap<u32, HashMap<u32, u32>>,
}

impl BlockOrder {
    /// The stamp of what `block` writes now.
    pub(crate) fn stamp(&self, block: u32, strong: bool) -> Stamp {
        let fences = self.fences.get(&block).copied().unwrap_or(0);
        Stamp { by: (block + 1) | if strong { STRONG } else { 0 }, fences }
    }

    /// Whether what bears `stamp` happened before what `block` does now.
    pub(crate) fn knows(&self, block: u32, stamp: Stamp) -> bool {
        if stamp.by == 0 || stamp.block() == block {
            return true;
        }
        let known = self.known.get(&block).and_then(|known| known.get(&stamp.block()));
        known.is_some_and(|fences| stamp.fences < *fences)
    }

    /// `block` made what it wrote visible.
    pub(crate) fn fence(&mut self, block: u32) {
        *self.fences.entry(block).or_default() += 1;
    }

    /// `block` met others at `address`: it learns what they knew, and leaves what it knows.
    pub(crate) fn meet(&mut self, block: u32, address: u64) {
        let place = self.places.entry(address).or_default();
        let known = self.known.entry(block).or_default();
        join(known, place);
        let own = self.fences.get(&block).copied().unwrap_or(0);
        if own > 0 {
            join(place, known);
            place.insert(block, own);
        }
    }
}

fn join(into: &mut HashMap<u32, u32>, from: &HashMap<u32, u32>) {
    for (block, fences) in from {
        let known = into.entry(*block).or_default();
        *known = (*known).max(*fences);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fenced_and_met_is_known() {
        let mut order = BlockOrder::default();
        let early = order.stamp(0, false);
        order.fence(0);
        let late = order.stamp(0, false);
        order.meet(0, 64);
        assert!(!order.knows(1, early), "they have not met");
        order.meet(1, 64);
        assert!(order.knows(1, early));
        assert!(!order.knows(1, late), "it was written behind the fence");
        order.fence(1);
        order.meet(1, 128);
        order.meet(2, 128);
        assert!(order.knows(2, early), "what is known is passed on");
        assert!(order.knows(0, late) && order.knows(5, Stamp::default()));
    }
}
