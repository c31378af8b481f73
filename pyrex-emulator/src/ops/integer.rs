//! Integers and bits.

use super::{Arithmetic, Opcode};
use crate::kernel::CarryFn;
use crate::lanes::{Map, one, three, two};
use crate::types::Type;

/// Calls `$body` with `$T` as the Rust type of `$ty`.
macro_rules! integer {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty {
            Type::U(16) | Type::B(16) => {
                type $T = u16;
                $body
            }
            Type::S(16) => {
                type $T = i16;
                $body
            }
            Type::U(32) | Type::B(32) => {
                type $T = u32;
                $body
            }
            Type::S(32) => {
                type $T = i32;
                $body
            }
            Type::U(64) | Type::B(64) => {
                type $T = u64;
                $body
            }
            Type::S(64) => {
                type $T = i64;
                $body
            }
            _ => return None,
        }
    };
}

/// What an opcode of integers computes.
pub(crate) fn integer(op: &Opcode<'_>) -> Option<Arithmetic> {
    let ty = op.ty()?;
    if ty.is_float() || ty == Type::Pred {
        return None;
    }
    match op.base {
        "mul" | "mad" | "mul24" | "mad24" => products(op, ty),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => bitwise(op.base, ty),
        "popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" => fields(op, ty),
        "prmt" | "shf" | "dp4a" | "dp2a" | "sad" => words(op, ty),
        _ => plain(op, ty),
    }
}

fn plain(op: &Opcode<'_>, ty: Type) -> Option<Arithmetic> {
    if op.has("sat") {
        let f: Map = match (op.base, ty) {
            ("add", Type::S(32)) => two(i32::saturating_add),
            ("sub", Type::S(32)) => two(i32::saturating_sub),
            _ => return None,
        };
        return Arithmetic::uniform(f, ty, 2);
    }
    let (f, count): (Map, usize) = integer!(ty, T => match op.base {
        "add" => (two(T::wrapping_add), 2),
        "sub" => (two(T::wrapping_sub), 2),
        "min" => (two(|a: T, b: T| a.min(b)), 2),
        "max" => (two(|a: T, b: T| a.max(b)), 2),
        // By zero: what the hardware gives.
        "div" => (two(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }), 2),
        "rem" => (two(|a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) }), 2),
        "neg" => (one(|a: T| (0 as T).wrapping_sub(a)), 1),
        "abs" => (one(|a: T| if (a as i128) < 0 { (0 as T).wrapping_sub(a) } else { a }), 1),
        _ => return None,
    });
    Arithmetic::uniform(f, ty, count)
}

fn products(op: &Opcode<'_>, ty: Type) -> Option<Arithmetic> {
    let is_sum = op.base.starts_with("mad");
    if op.has("wide") {
        return wide_products(is_sum, ty);
    }
    let high = op.has("hi");
    if op.base.ends_with("24") {
        return products_24(ty, high, is_sum);
    }
    let f: Map = integer!(ty, T => match (high, is_sum) {
        (false, false) => two(T::wrapping_mul),
        (false, true) => three(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)),
        (true, false) => two(|a: T, b: T| ((a as i128).wrapping_mul(b as i128) >> T::BITS) as T),
        (true, true) => {
            three(|a: T, b: T, c: T| (((a as i128).wrapping_mul(b as i128) >> T::BITS) as T).wrapping_add(c))
        }
    });
    Arithmetic::uniform(f, ty, if is_sum { 3 } else { 2 })
}

/// Products of the low 24 bits, of which the low or the high 32 bits are taken.
fn products_24(ty: Type, high: bool, is_sum: bool) -> Option<Arithmetic> {
    let signed = ty.is_signed();
    let low_24 =
        move |x: u32| if signed { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
    let product = move |a, b| ((low_24(a) * low_24(b)) >> if high { 16 } else { 0 }) as u32;
    let f = match is_sum {
        false => two(product),
        true => three(move |a: u32, b: u32, c: u32| product(a, b).wrapping_add(c)),
    };
    Arithmetic::uniform(f, ty, if is_sum { 3 } else { 2 })
}

fn wide_products(is_sum: bool, ty: Type) -> Option<Arithmetic> {
    macro_rules! wide {
        ($from:ty, $to:ty) => {
            match is_sum {
                false => two(|a: $from, b: $from| (a as $to).wrapping_mul(b as $to)),
                true => three(|a: $from, b: $from, c: $to| (a as $to).wrapping_mul(b as $to).wrapping_add(c)),
            }
        };
    }
    let (f, result): (Map, Type) = match ty {
        Type::U(16) => (wide!(u16, u32), Type::U(32)),
        Type::S(16) => (wide!(i16, i32), Type::S(32)),
        Type::U(32) => (wide!(u32, u64), Type::U(64)),
        Type::S(32) => (wide!(i32, i64), Type::S(64)),
        _ => return None,
    };
    let mut sources = vec![ty; 2];
    sources.extend(is_sum.then_some(result));
    Some(Arithmetic { f, sources })
}

fn bitwise(base: &str, ty: Type) -> Option<Arithmetic> {
    if matches!(base, "shl" | "shr") {
        let f: Map = integer!(ty, T => match base {
            "shl" => two(|a: T, b: u32| a.checked_shl(b).unwrap_or(0)),
            _ => two(|a: T, b: u32| a >> b.min(T::BITS - 1) >> u32::from(b >= T::BITS)),
        });
        return Some(Arithmetic { f, sources: vec![ty, Type::U(32)] });
    }
    let (f, count): (Map, usize) = integer!(ty, T => match base {
        "and" => (two(|a: T, b: T| a & b), 2),
        "or" => (two(|a: T, b: T| a | b), 2),
        "xor" => (two(|a: T, b: T| a ^ b), 2),
        "not" => (one(|a: T| !a), 1),
        "cnot" => (one(|a: T| T::from(a == 0)), 1),
        _ => return None,
    });
    Arithmetic::uniform(f, ty, count)
}

fn fields(op: &Opcode<'_>, ty: Type) -> Option<Arithmetic> {
    let wide = ty.bits() == 64;
    let count = Type::U(32);
    let from = |f, sources| Some(Arithmetic { f, sources });
    match op.base {
        "popc" => from(one(|a: u64| a.count_ones()), vec![ty]),
        "clz" if wide => from(one(|a: u64| a.leading_zeros()), vec![ty]),
        "clz" => from(one(|a: u32| a.leading_zeros()), vec![ty]),
        "brev" if wide => from(one(u64::reverse_bits), vec![ty]),
        "brev" => from(one(u32::reverse_bits), vec![ty]),
        "bfind" => {
            let (signed, width, shift) = (ty.is_signed(), ty.bits(), op.has("shiftamt"));
            from(one(move |a: u64| find_bit(a, signed, width, shift)), vec![ty])
        }
        "bfe" => {
            let (signed, width) = (ty.is_signed(), ty.bits());
            let f =
                three(move |a: u64, at: u32, len: u32| extract(a, at & 0xff, len & 0xff, (signed, width)));
            from(f, vec![ty, count, count])
        }
        // The fourth operand has a slot of its own, see the decoder.
        _ => None,
    }
}

/// The highest bit that differs from the sign; all ones if there is none.
fn find_bit(a: u64, signed: bool, width: u32, shift: bool) -> u32 {
    let wide = crate::types::sign_extend(a, width);
    let bits = match signed && (wide as i64) < 0 {
        true => !wide,
        false => a,
    };
    match bits {
        0 => u32::MAX,
        _ if shift => bits.leading_zeros() - (64 - width),
        _ => 63 - bits.leading_zeros(),
    }
}

fn extract(a: u64, at: u32, len: u32, (signed, width): (bool, u32)) -> u64 {
    let wide = if signed { crate::types::sign_extend(a, width) as i64 as i128 } else { i128::from(a) };
    if len == 0 {
        return 0;
    }
    let field = wide >> at.min(127);
    // Beyond the number there is its sign.
    let len = len.min(width.saturating_sub(at).max(1)).min(width);
    let shift = 128 - len;
    let field = if signed { field << shift >> shift } else { ((field as u128) << shift >> shift) as i128 };
    crate::types::truncate(field as u64, width)
}

/// `bfi`: the low `len` bits of `a` put into `b` at bit `at`.
pub(crate) fn insert(a: u64, b: u64, at: u32, len: u32) -> u64 {
    let (at, len) = (at & 0xff, len & 0xff);
    if at >= 64 || len == 0 {
        return b;
    }
    let mask = (if len >= 64 { !0 } else { (1 << len) - 1 }) << at;
    b & !mask | a << at & mask
}

/// `lop3`: the function of three bits whose table is `table`.
pub(crate) fn lookup(table: u32) -> Map {
    let row = |at: u32| 0u32.wrapping_sub(table >> at & 1);
    let rows: [u32; 8] = std::array::from_fn(|at| row(at as u32));
    three(move |a: u32, b: u32, c: u32| {
        let of_ab = |high: u32, low: u32| c & high | !c & low;
        a & (b & of_ab(rows[7], rows[6]) | !b & of_ab(rows[5], rows[4]))
            | !a & (b & of_ab(rows[3], rows[2]) | !b & of_ab(rows[1], rows[0]))
    })
}

fn words(op: &Opcode<'_>, ty: Type) -> Option<Arithmetic> {
    match op.base {
        "prmt" => Arithmetic::uniform(permute(op)?, ty, 3),
        "shf" => Arithmetic::uniform(funnel(op), ty, 3),
        "sad" => {
            let f =
                integer!(ty, T => three(|a: T, b: T, c: T| c.wrapping_add(a.max(b).wrapping_sub(a.min(b)))));
            Arithmetic::uniform(f, ty, 3)
        }
        _ => dot(op),
    }
}

/// `shf`: 64 bits `b:a` shifted by `c`, of which one half is taken.
fn funnel(op: &Opcode<'_>) -> Map {
    let (left, clamp) = (op.has("l"), op.has("clamp"));
    three(move |a: u32, b: u32, c: u32| {
        let both = u64::from(b) << 32 | u64::from(a);
        let shift = if clamp { c.min(32) } else { c & 31 };
        if left { (both << shift >> 32) as u32 } else { (both >> shift) as u32 }
    })
}

fn permute(op: &Opcode<'_>) -> Option<Map> {
    let pick = |a: u32, b: u32, selector: u32| -> u32 {
        let bytes = u64::from(b) << 32 | u64::from(a);
        let byte = (bytes >> ((selector & 7) * 8)) as u8;
        u32::from(if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 })
    };
    let by = move |selectors: fn(u32) -> [u32; 4]| {
        three(move |a: u32, b: u32, c: u32| {
            let selectors = selectors(c);
            (0..4).fold(0, |all, at| all | pick(a, b, selectors[at]) << (8 * at))
        })
    };
    let mode = op.modifiers.iter().find(|modifier| Type::named(modifier).is_none());
    Some(match mode {
        None => by(|c| [0, 4, 8, 12].map(|shift| c >> shift & 0xf)),
        Some(&"f4e") => by(|c| [0, 1, 2, 3].map(|at: u32| ((c & 3) + at) & 7)),
        Some(&"b4e") => by(|c| [0, 7, 6, 5].map(|at: u32| ((c & 3) + at) & 7)),
        Some(&"rc8") => by(|c| [c & 3; 4]),
        Some(&"rc16") => by(|c| [0, 1, 0, 1].map(|at| (c & 1) * 2 + at)),
        Some(&"ecl") => by(|c| [0, 1, 2, 3].map(|at: u32| at.max(c & 3))),
        Some(&"ecr") => by(|c| [0, 1, 2, 3].map(|at: u32| at.min(c & 3))),
        Some(_) => return None,
    })
}

/// `dp4a` and `dp2a`: products of bytes with bytes or halves, added to `c`.
fn dot(op: &Opcode<'_>) -> Option<Arithmetic> {
    let types = op.types();
    let [a_type, b_type] = types[..] else { return None };
    let byte = |word: u32, at: u32, signed: bool| match signed {
        true => i64::from((word >> (8 * at)) as i8),
        false => i64::from((word >> (8 * at)) as u8),
    };
    let half = |word: u32, at: u32, signed: bool| match signed {
        true => i64::from((word >> (16 * at)) as i16),
        false => i64::from((word >> (16 * at)) as u16),
    };
    let (a_signed, b_signed) = (a_type.is_signed(), b_type.is_signed());
    let first = if op.has("hi") { 2 } else { 0 };
    let f = match op.base {
        "dp4a" => three(move |a: u32, b: u32, c: u32| {
            (0..4).fold(c, |sum, at| sum.wrapping_add((byte(a, at, a_signed) * byte(b, at, b_signed)) as u32))
        }),
        _ => three(move |a: u32, b: u32, c: u32| {
            let product = |at| half(a, at, a_signed) * byte(b, first + at, b_signed);
            (0..2).fold(c, |sum, at| sum.wrapping_add(product(at) as u32))
        }),
    };
    let result = if a_signed || b_signed { Type::S(32) } else { Type::U(32) };
    Some(Arithmetic { f, sources: vec![a_type, b_type, result] })
}

/// `add.cc` and its kind: sources and carry to result and carry.
pub(crate) fn carrying(op: &Opcode<'_>) -> Option<(CarryFn, usize)> {
    fn sum<const BITS: u32>(sum: u128) -> (u64, bool) {
        (crate::types::truncate(sum as u64, BITS), sum >> BITS & 1 == 1)
    }
    fn add<const BITS: u32>([a, b, _]: [u64; 3], carry: bool) -> (u64, bool) {
        sum::<BITS>(u128::from(a) + u128::from(b) + u128::from(carry))
    }
    fn sub<const BITS: u32>([a, b, _]: [u64; 3], borrow: bool) -> (u64, bool) {
        sum::<BITS>(u128::from(a).wrapping_sub(u128::from(b)).wrapping_sub(u128::from(borrow)))
    }
    fn low<const BITS: u32>([a, b, c]: [u64; 3], carry: bool) -> (u64, bool) {
        let product = crate::types::truncate(a.wrapping_mul(b), BITS);
        sum::<BITS>(u128::from(product) + u128::from(c) + u128::from(carry))
    }
    fn high<const BITS: u32>([a, b, c]: [u64; 3], carry: bool) -> (u64, bool) {
        let product = (u128::from(a) * u128::from(b)) >> BITS;
        sum::<BITS>(product + u128::from(c) + u128::from(carry))
    }
    let ty = op.ty()?;
    // The high half of a product would need its sign.
    if ty == Type::S(32) && op.has("hi") || ty == Type::S(64) && op.has("hi") {
        return None;
    }
    let wide = ty.bits() == 64;
    let f: (CarryFn, usize) = match (op.base, op.has("hi"), wide) {
        ("add" | "addc", _, false) => (add::<32>, 2),
        ("add" | "addc", _, true) => (add::<64>, 2),
        ("sub" | "subc", _, false) => (sub::<32>, 2),
        ("sub" | "subc", _, true) => (sub::<64>, 2),
        ("mad" | "madc", false, false) => (low::<32>, 3),
        ("mad" | "madc", false, true) => (low::<64>, 3),
        ("mad" | "madc", true, false) => (high::<32>, 3),
        ("mad" | "madc", true, true) => (high::<64>, 3),
        _ => return None,
    };
    Some(f)
}
