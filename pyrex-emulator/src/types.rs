//! [`Type`]: the types of PTX, and numbers written as them.

use crate::lanes::Bits;
use crate::lexer::integer;
use half::{bf16, f16};

/// A type of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    /// One bit.
    Pred,
    /// Bits of that many bits, `.b8` to `.b128`.
    B(u8),
    /// Unsigned integers.
    U(u8),
    /// Signed integers.
    S(u8),
    /// `.f16`
    F16,
    /// `.bf16`
    Bf16,
    /// `.tf32`
    Tf32,
    /// `.f32`
    F32,
    /// `.f64`
    F64,
    /// `.f16x2`
    F16x2,
    /// `.bf16x2`
    Bf16x2,
}

impl Type {
    /// The type that a modifier names, without its dot.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Pred,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            _ => {
                let width: u8 = name.get(1..)?.parse().ok()?;
                match (name.as_bytes()[0], width) {
                    (b'b', 8 | 16 | 32 | 64 | 128) => Self::B(width),
                    (b'u', 8 | 16 | 32 | 64) => Self::U(width),
                    (b's', 8 | 16 | 32 | 64) => Self::S(width),
                    _ => return None,
                }
            }
        })
    }

    /// How many bits it has.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B(width) | Self::U(width) | Self::S(width) => u32::from(width),
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 | Self::F32 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::F64 => 64,
        }
    }

    /// How many bytes it takes in memory.
    pub(crate) fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Whether narrow numbers of it are widened by their sign.
    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S(_))
    }

    /// Whether it is a float.
    pub(crate) fn is_float(self) -> bool {
        !matches!(self, Self::Pred | Self::B(_) | Self::U(_) | Self::S(_))
    }

    /// The bits of a number as PTX writes it: `12`, `-0x3`, `0f3F800000`, `0d…`, `1.5`.
    pub(crate) fn literal(self, word: &str) -> Option<u64> {
        let (negative, word) = match word.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, word),
        };
        let float = match word.get(..2) {
            Some("0f" | "0F") => Some(f64::from(f32::of(u64::from_str_radix(&word[2..], 16).ok()?))),
            Some("0d" | "0D") => Some(f64::of(u64::from_str_radix(&word[2..], 16).ok()?)),
            _ if word.contains('.') => Some(word.parse().ok()?),
            _ => None,
        };
        let Some(float) = float else {
            let number = integer(word)?;
            let number = if negative { number.wrapping_neg() } else { number };
            return Some(match self {
                Self::F32 => (number as i64 as f32).bits(),
                Self::F64 => (number as i64 as f64).bits(),
                _ => truncate(number, self.bits()),
            });
        };
        let float = if negative { -float } else { float };
        Some(match self {
            Self::F64 | Self::B(64) => float.bits(),
            Self::F16 => f16::from_f64(float).bits(),
            Self::Bf16 => bf16::from_f64(float).bits(),
            _ => (float as f32).bits(),
        })
    }
}

/// The low `width` bits.
pub(crate) fn truncate(bits: u64, width: u32) -> u64 {
    if width >= 64 { bits } else { bits & ((1 << width) - 1) }
}

/// The low `width` bits, with the highest of them repeated above.
pub(crate) fn sign_extend(bits: u64, width: u32) -> u64 {
    let shift = 64 - width.min(64);
    ((bits << shift) as i64 >> shift) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bits_of_their_type() {
        assert_eq!(Type::F32.literal("0f3F800000"), Some(0x3f80_0000));
        assert_eq!(Type::F64.literal("0d3FF0000000000000"), Some(1f64.to_bits()));
        assert_eq!(Type::S(32).literal("-1"), Some(0xffff_ffff));
        assert_eq!(Type::B(16).literal("-0x8000"), Some(0x8000));
        assert_eq!(Type::F32.literal("1.5"), Some(0x3fc0_0000));
        assert_eq!(Type::named("u24"), None);
        assert_eq!(Type::named("s64"), Some(Type::S(64)));
        assert_eq!(sign_extend(0x80, 8), (-128i64) as u64);
    }
}
