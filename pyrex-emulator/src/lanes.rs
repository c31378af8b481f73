//! What a register holds for the 32 lanes of a warp, and the types its bits are read as.

use half::{bf16, f16};

/// A register: its bits in each lane, with zeros above its width.
pub(crate) type Lanes = [u64; 32];

/// A set of lanes, or a predicate's value in each.
pub(crate) type Mask = u32;

/// The lanes of `mask`, ascending.
pub(crate) fn lanes_of(mask: Mask) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

/// A type that a register's bits can be read as.
pub(crate) trait Bits: Copy + 'static {
    /// Reads the low bits.
    fn of(bits: u64) -> Self;
    /// The bits, with zeros above.
    fn bits(self) -> u64;
}

macro_rules! integers {
    ($($type:ty as $unsigned:ty),*) => {$(
        impl Bits for $type {
            fn of(bits: u64) -> Self {
                bits as $type
            }
            fn bits(self) -> u64 {
                self as $unsigned as u64
            }
        }
    )*};
}

integers!(u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32, u64 as u64, i64 as u64);

macro_rules! floats {
    ($($type:ty as $unsigned:ty),*) => {$(
        impl Bits for $type {
            fn of(bits: u64) -> Self {
                <$type>::from_bits(bits as $unsigned)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        }
    )*};
}

floats!(f16 as u16, bf16 as u16, f32 as u32, f64 as u64);

/// Two numbers of 16 bits in one register, the first in the low half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Two<T>(pub(crate) T, pub(crate) T);

impl<T: Bits> Bits for Two<T> {
    fn of(bits: u64) -> Self {
        Self(T::of(bits & 0xffff), T::of(bits >> 16 & 0xffff))
    }

    fn bits(self) -> u64 {
        self.0.bits() | self.1.bits() << 16
    }
}

/// What an instruction does to all lanes, whichever run: sources, then the destination.
pub(crate) type Map = Box<dyn Fn([&Lanes; 3], &mut Lanes) + Send + Sync>;

/// A predicate of two registers, for all lanes.
pub(crate) type Test = Box<dyn Fn(&Lanes, &Lanes) -> Mask + Send + Sync>;

/// Lane by lane, from one source.
pub(crate) fn one<A: Bits, D: Bits>(f: impl Fn(A) -> D + Send + Sync + 'static) -> Map {
    Box::new(move |[a, _, _], d| {
        for lane in 0..32 {
            d[lane] = f(A::of(a[lane])).bits();
        }
    })
}

/// Lane by lane, from two sources.
pub(crate) fn two<A: Bits, B: Bits, D: Bits>(f: impl Fn(A, B) -> D + Send + Sync + 'static) -> Map {
    Box::new(move |[a, b, _], d| {
        for lane in 0..32 {
            d[lane] = f(A::of(a[lane]), B::of(b[lane])).bits();
        }
    })
}

/// Lane by lane, from three sources.
pub(crate) fn three<A: Bits, B: Bits, C: Bits, D: Bits>(
    f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
) -> Map {
    Box::new(move |[a, b, c], d| {
        for lane in 0..32 {
            d[lane] = f(A::of(a[lane]), B::of(b[lane]), C::of(c[lane])).bits();
        }
    })
}

/// Lane by lane, whether it holds.
pub(crate) fn test<T: Bits>(f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |a, b| {
        let mut mask = 0;
        for lane in 0..32 {
            mask |= u32::from(f(T::of(a[lane]), T::of(b[lane]))) << lane;
        }
        mask
    })
}
