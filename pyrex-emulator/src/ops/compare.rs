//! Comparisons: `setp`, `set`, `testp`.

use super::Opcode;
use crate::lanes::{Bits, Test, Two, test};
use crate::types::Type;
use half::{bf16, f16};
use std::cmp::Ordering;

/// Which results of a comparison count: less, equal, greater, unordered.
#[derive(Clone, Copy)]
struct Wanted([bool; 4]);

impl Wanted {
    fn named(modifier: &str) -> Option<Self> {
        Some(Self(match modifier {
            "lt" | "lo" => [true, false, false, false],
            "le" | "ls" => [true, true, false, false],
            "gt" | "hi" => [false, false, true, false],
            "ge" | "hs" => [false, true, true, false],
            "eq" => [false, true, false, false],
            "ne" => [true, false, true, false],
            "ltu" => [true, false, false, true],
            "leu" => [true, true, false, true],
            "gtu" => [false, false, true, true],
            "geu" => [false, true, true, true],
            "equ" => [false, true, false, true],
            "neu" => [true, false, true, true],
            "num" => [true, true, true, false],
            "nan" => [false, false, false, true],
            _ => return None,
        }))
    }

    fn has(self, order: Option<Ordering>) -> bool {
        self.0[match order {
            Some(Ordering::Less) => 0,
            Some(Ordering::Equal) => 1,
            Some(Ordering::Greater) => 2,
            None => 3,
        }]
    }
}

/// The comparison that an opcode names, of numbers of `ty`; of two in a register, the low half or the high one.
pub(crate) fn comparison(op: &Opcode<'_>, ty: Type, high: bool) -> Option<Test> {
    fn ordered<T: Bits + PartialOrd>(wanted: Wanted) -> Test {
        test(move |a: T, b: T| wanted.has(a.partial_cmp(&b)))
    }
    fn halves<T: Bits + PartialOrd>(wanted: Wanted, high: bool) -> Test {
        test(move |a: Two<T>, b: Two<T>| {
            wanted.has(if high { a.1.partial_cmp(&b.1) } else { a.0.partial_cmp(&b.0) })
        })
    }
    let wanted = op.modifiers.iter().find_map(|modifier| Wanted::named(modifier))?;
    let flush = |x: f32| if x.is_subnormal() { 0.0 } else { x };
    Some(match ty {
        Type::U(16) | Type::B(16) => ordered::<u16>(wanted),
        Type::S(16) => ordered::<i16>(wanted),
        Type::U(32) | Type::B(32) => ordered::<u32>(wanted),
        Type::S(32) => ordered::<i32>(wanted),
        Type::U(64) | Type::B(64) => ordered::<u64>(wanted),
        Type::S(64) => ordered::<i64>(wanted),
        Type::F16 => ordered::<f16>(wanted),
        Type::Bf16 => ordered::<bf16>(wanted),
        Type::F32 if op.has("ftz") => test(move |a: f32, b: f32| wanted.has(flush(a).partial_cmp(&flush(b)))),
        Type::F32 => ordered::<f32>(wanted),
        Type::F64 => ordered::<f64>(wanted),
        Type::F16x2 => halves::<f16>(wanted, high),
        Type::Bf16x2 => halves::<bf16>(wanted, high),
        _ => return None,
    })
}

/// What kind of number `testp` asks for.
pub(crate) fn kind_of_number(op: &Opcode<'_>) -> Option<Test> {
    macro_rules! kinds {
        ($T:ty) => {{
            let f: fn($T, $T) -> bool = match *op.modifiers.first()? {
                "finite" => |a, _| a.is_finite(),
                "infinite" => |a, _| a.is_infinite(),
                "number" => |a, _| !a.is_nan(),
                "notanumber" => |a, _| a.is_nan(),
                "normal" => |a, _| a.is_normal(),
                "subnormal" => |a, _| a.is_subnormal(),
                _ => return None,
            };
            test(f)
        }};
    }
    Some(match op.ty()? {
        Type::F32 => kinds!(f32),
        Type::F64 => kinds!(f64),
        _ => return None,
    })
}
