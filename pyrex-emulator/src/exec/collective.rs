//! What the lanes of a warp do together once all that are named have come.

use super::Env;
use crate::fault::Trouble;
use crate::kernel::{Shuffle, Slot, Together, Update, Vote};
use crate::lanes::{Lanes, Mask, lanes_of};
use crate::warp::Warp;

impl Warp {
    /// All of `lanes` do `what`.
    pub(crate) fn together(
        &mut self,
        what: &Together,
        lanes: Mask,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        match what {
            Together::Barrier => env.shared.clocks.lanes_meet(self.number, lanes, self.alive),
            Together::Shuffle { mode, d, in_range, a, b, c } => {
                let [a, b, c] = [a, b, c].map(|slot| self.registers[*slot as usize]);
                let (values, ranges) = shuffle(*mode, [&a, &b, &c], lanes)?;
                self.put(*d, lanes, &values);
                self.put_pred(*in_range, lanes, ranges);
            }
            Together::Vote { kind, d, p, a } => {
                let yes = self.guard(*a) & lanes;
                match kind {
                    Vote::Ballot => self.put(*d, lanes, &[u64::from(yes); 32]),
                    Vote::All => self.put_pred(Some(*p), lanes, spread(yes == lanes)),
                    Vote::Any => self.put_pred(Some(*p), lanes, spread(yes != 0)),
                    Vote::Uniform => self.put_pred(Some(*p), lanes, spread(yes == 0 || yes == lanes)),
                }
            }
            Together::Match { all, d, p, a } => {
                let a = self.registers[*a as usize];
                let alike = |lane: usize| {
                    lanes_of(lanes).filter(|other| a[*other] == a[lane]).fold(0, |set, lane| set | 1 << lane)
                };
                let first = lanes.trailing_zeros() as usize;
                let found: Mask = alike(first);
                match all {
                    true => {
                        let agreed = found == lanes;
                        self.put(*d, lanes, &[if agreed { u64::from(lanes) } else { 0 }; 32]);
                        self.put_pred(*p, lanes, spread(agreed));
                    }
                    false => {
                        let sets = std::array::from_fn(|lane| u64::from(alike(lane)));
                        self.put(*d, lanes, &sets);
                    }
                }
            }
            Together::Reduce { f, d, a } => self.reduce(f, *d, *a, lanes),
        }
        Ok(())
    }

    fn reduce(&mut self, f: &Update, d: Slot, a: Slot, lanes: Mask) {
        let a = self.registers[a as usize];
        let all = lanes_of(lanes).map(|lane| a[lane]).reduce(f).unwrap_or(0);
        self.put(d, lanes, &[all; 32]);
    }
}

fn spread(yes: bool) -> Mask {
    if yes { !0 } else { 0 }
}

/// Each lane's value from another lane of its segment, and whether that one is in range: if not, it keeps its own.
fn shuffle(mode: Shuffle, [a, b, c]: [&Lanes; 3], lanes: Mask) -> Result<(Lanes, Mask), Trouble> {
    let mut values = *a;
    let mut ranges = 0;
    for lane in lanes_of(lanes) {
        let (b, clamp, segment) = (b[lane] as usize & 31, c[lane] as usize & 31, c[lane] as usize >> 8 & 31);
        let last = lane & segment | clamp & !segment;
        let first = lane & segment;
        let (from, in_range) = match mode {
            Shuffle::Up => (lane.wrapping_sub(b), lane as isize - b as isize >= last as isize),
            Shuffle::Down => (lane + b, lane + b <= last),
            Shuffle::Butterfly => (lane ^ b, lane ^ b <= last),
            Shuffle::Index => (first | b & !segment, first | b & !segment <= last),
        };
        if !in_range {
            continue;
        }
        if lanes >> from & 1 == 0 {
            return Err(Trouble::lane(
                lane,
                format_args!("it takes from lane {from}, which does not take part"),
            ));
        }
        values[lane] = a[from];
        ranges |= 1 << lane;
    }
    Ok((values, ranges))
}
