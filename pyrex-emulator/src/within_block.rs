//! [`Clocks`]: which threads of a block know what which others did.
//!
//! Each warp has a clock that moves on when its lanes meet and when it comes to a barrier. Who leaves a barrier knows all that
//! those who came had done, and what they knew. The lanes of `bar.warp.sync` know of each other. No other instruction makes an
//! order, as on a device.

use crate::lanes::{Mask, lanes_of};

/// A thread of a block: warp and lane.
pub(crate) type Thread = (usize, usize);

/// Stands for all lanes of a warp, or several of them.
pub(crate) const MANY: u8 = 0xff;

/// Up to when something is known of each warp: by its clock, and by its barriers alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    clock: [u32; 32],
    barriers: [u32; 32],
}

impl Known {
    fn join(&mut self, other: &Self) {
        for (own, other) in self.clock.iter_mut().zip(other.clock) {
            *own = (*own).max(other);
        }
        for (own, other) in self.barriers.iter_mut().zip(other.barriers) {
            *own = (*own).max(other);
        }
    }
}

/// Who wrote something, and when by the clock of its warp; 0 if nobody did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) when: u32,
    pub(crate) warp: u8,
    pub(crate) lane: u8,
}

/// Who did something that threads may do at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    /// When it was last done, by the clock of the one warp that did it.
    clock: u32,
    /// How many barriers that warp had come to; of several warps, the most. Warps that go through the same barriers are so
    /// told apart from those that are ahead.
    barriers: u32,
    warps: Mask,
    /// By which lane, or `MANY`.
    lane: u8,
}

/// The clocks of a block's warps.
pub(crate) struct Clocks {
    /// What a warp knows of the others; of itself, what all its lanes know of each other.
    known: Vec<Known>,
    /// The clock of each warp, and how many barriers it came to.
    now: Vec<(u32, u32)>,
    /// Up to when lanes of a warp know of each other, if only some of them met.
    lanes: Vec<Option<Box<[[u32; 32]; 32]>>>,
}

impl Clocks {
    /// Clocks at their beginning.
    pub(crate) fn new(num_warps: usize) -> Self {
        Self {
            known: vec![Known::default(); num_warps],
            now: vec![(1, 1); num_warps],
            lanes: vec![None; num_warps],
        }
    }

    /// Sets them back.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.now.len());
    }

    /// What a write of `by` is noted as.
    #[inline]
    pub(crate) fn written(&self, by: Thread) -> Written {
        Written { when: self.now[by.0].0, warp: by.0 as u8, lane: by.1 as u8 }
    }

    /// Whether a write happened before what `by` does now, or what its whole warp does.
    #[inline(always)]
    pub(crate) fn knows(&self, by: Thread, written: Written, whole_warp: bool) -> bool {
        let warp = usize::from(written.warp);
        written.when <= self.known[by.0].clock[warp]
            || warp == by.0 && !whole_warp && self.lanes_know(by, written.lane, written.when)
    }

    fn lanes_know(&self, (warp, lane): Thread, other: u8, when: u32) -> bool {
        let other = usize::from(other);
        lane == other || self.lanes[warp].as_ref().is_some_and(|met| when <= met[lane][other])
    }

    /// What was touched, with one more thread, or all of its warp, that does so now.
    #[inline(always)]
    pub(crate) fn touch(&self, before: Touched, by: Thread, whole_warp: bool) -> Touched {
        let lane = if whole_warp { MANY } else { by.1 as u8 };
        let warps = 1 << by.0;
        let (clock, barriers) = self.now[by.0];
        let is_same = before.warps == warps && before.clock == clock && before.lane == lane;
        let is_among =
            before.warps.count_ones() > 1 && before.warps & warps != 0 && before.barriers >= barriers;
        if is_same || is_among {
            return before;
        }
        if before.warps == 0 || lanes_of(before.warps).all(|warp| self.knows_touch(by, before, warp)) {
            return Touched { clock, barriers, warps, lane };
        }
        Touched { clock, barriers: barriers.max(before.barriers), warps: before.warps | warps, lane: MANY }
    }

    fn knows_touch(&self, by: Thread, touched: Touched, warp: usize) -> bool {
        let known = &self.known[by.0];
        match touched.warps.count_ones() {
            1 => touched.clock <= known.clock[warp],
            _ => touched.barriers <= known.barriers[warp],
        }
    }

    /// One of those who touched something of whom `by` does not know it: warp, and lane or `MANY`.
    #[inline]
    pub(crate) fn unknown(&self, by: Thread, touched: Touched) -> Option<(u8, u8)> {
        if touched.warps == 0 {
            return None;
        }
        let unknown = lanes_of(touched.warps).find(|warp| {
            let is_own = *warp == by.0
                && touched.warps.count_ones() == 1
                && touched.lane != MANY
                && self.lanes_know(by, touched.lane, touched.clock);
            !is_own && !self.knows_touch(by, touched, *warp)
        });
        unknown.map(|warp| (warp as u8, touched.lane))
    }

    /// Lanes of a warp came together: each knows what the others did.
    pub(crate) fn lanes_meet(&mut self, warp: usize, members: Mask, alive: Mask) {
        let now = self.now[warp].0;
        self.now[warp].0 += 1;
        if members & alive == alive {
            self.known[warp].clock[warp] = now;
            return;
        }
        let met = self.lanes[warp].get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut joined = [0; 32];
        for lane in lanes_of(members) {
            for (all, one) in joined.iter_mut().zip(met[lane]) {
                *all = (*all).max(one);
            }
        }
        for lane in lanes_of(members) {
            joined[lane] = now;
        }
        for lane in lanes_of(members) {
            met[lane] = joined;
        }
    }

    /// What a warp knows as it comes to a barrier is added to what is known there.
    pub(crate) fn arrive(&mut self, warp: usize, at_barrier: &mut Known) {
        at_barrier.join(&self.known[warp]);
        let (clock, barriers) = &mut self.now[warp];
        at_barrier.clock[warp] = *clock;
        at_barrier.barriers[warp] = *barriers;
        *clock += 1;
        *barriers += 1;
    }

    /// A warp that leaves a barrier knows what all knew who came.
    pub(crate) fn leave(&mut self, warp: usize, at_barrier: &Known) {
        self.known[warp].join(at_barrier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(clocks: &mut Clocks, warps: &[usize]) {
        let mut known = Known::default();
        warps.iter().for_each(|warp| clocks.arrive(*warp, &mut known));
        warps.iter().for_each(|warp| clocks.leave(*warp, &known));
    }

    #[test]
    fn a_barrier_makes_known_what_was_done_before_it() {
        let mut clocks = Clocks::new(3);
        let early = clocks.written((0, 3));
        assert!(clocks.knows((0, 3), early, false) && !clocks.knows((0, 4), early, false));
        barrier(&mut clocks, &[0, 1]);
        let late = clocks.written((0, 3));
        assert!(clocks.knows((1, 0), early, false) && !clocks.knows((1, 0), late, false));
        assert!(!clocks.knows((2, 0), early, false));
        barrier(&mut clocks, &[1, 2]);
        assert!(clocks.knows((2, 0), early, true), "what is known is passed on");
    }

    #[test]
    fn readers_are_remembered_until_they_are_known() {
        let mut clocks = Clocks::new(3);
        let one = clocks.touch(Touched::default(), (0, 5), false);
        assert_eq!(clocks.unknown((0, 5), one), None);
        assert_eq!(clocks.unknown((0, 6), one), Some((0, 5)));
        let both = clocks.touch(one, (1, 5), false);
        assert_eq!(clocks.unknown((1, 5), both), Some((0, MANY)));
        // Warp 1 reads again between its own barrier and that of the other two: all three came to as many.
        barrier(&mut clocks, &[0, 2]);
        assert_eq!(clocks.unknown((2, 0), both), Some((1, MANY)));
        barrier(&mut clocks, &[1, 2]);
        assert_eq!(clocks.unknown((2, 0), both), None);
    }

    #[test]
    fn lanes_that_met_know_each_other() {
        let mut clocks = Clocks::new(1);
        let written = clocks.written((0, 1));
        clocks.lanes_meet(0, 0b0011, !0);
        assert!(clocks.knows((0, 0), written, false) && !clocks.knows((0, 2), written, false));
        clocks.lanes_meet(0, 0b0101, !0);
        assert!(clocks.knows((0, 2), written, false), "lane 0 passes it on");
        assert!(!clocks.knows((0, 2), written, true));
        clocks.lanes_meet(0, !0, !0);
        assert!(clocks.knows((0, 9), written, true));
    }
}
