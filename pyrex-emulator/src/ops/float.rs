//! f32 and f64. Approximate functions are off by as much as a device's may be.

use super::rounding::{Rounding, odd, two_sum};
use super::{Arithmetic, Opcode};
use crate::lanes::{Map, one, three, two};
use crate::types::Type;

/// What is done to numbers before and after.
#[derive(Clone, Copy)]
struct Mode {
    ftz: bool,
    sat: bool,
    rounding: Rounding,
}

impl Mode {
    fn of(op: &Opcode<'_>) -> Self {
        let rounding = op.modifiers.iter().find_map(|modifier| Rounding::named(modifier));
        Self { ftz: op.has("ftz"), sat: op.has("sat"), rounding: rounding.unwrap_or(Rounding::Nearest) }
    }

    fn is_plain(self) -> bool {
        !self.ftz && !self.sat
    }

    fn before(self, x: f32) -> f32 {
        if self.ftz && x.is_subnormal() { 0f32.copysign(x) } else { x }
    }

    fn after(self, x: f32) -> f32 {
        let x = self.before(x);
        match self.sat {
            true if x.is_nan() => 0.0,
            true => x.clamp(0.0, 1.0) + 0.0,
            false => x,
        }
    }

    fn one(self, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Map {
        match self.is_plain() {
            true => one(f),
            false => one(move |a| self.after(f(self.before(a)))),
        }
    }

    fn two(self, f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Map {
        match self.is_plain() {
            true => two(f),
            false => two(move |a, b| self.after(f(self.before(a), self.before(b)))),
        }
    }

    fn three(self, f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> Map {
        match self.is_plain() {
            true => three(f),
            false => three(move |a, b, c| self.after(f(self.before(a), self.before(b), self.before(c)))),
        }
    }
}

/// What an opcode of f32 or f64 computes.
pub(crate) fn float(op: &Opcode<'_>) -> Option<Arithmetic> {
    let ty = op.ty()?;
    let mode = Mode::of(op);
    let (f, count) = match ty {
        Type::F32 if mode.rounding == Rounding::Nearest => nearest_f32(op, mode)?,
        Type::F32 => directed_f32(op.base, mode)?,
        Type::F64 => f64s(op, mode)?,
        _ => return None,
    };
    Arithmetic::uniform(f, ty, count)
}

fn nearest_f32(op: &Opcode<'_>, mode: Mode) -> Option<(Map, usize)> {
    Some(match op.base {
        "add" => (mode.two(|a, b| a + b), 2),
        "sub" => (mode.two(|a, b| a - b), 2),
        "mul" => (mode.two(|a, b| a * b), 2),
        "fma" | "mad" => (mode.three(f32::mul_add), 3),
        "min" | "max" => (extreme_f32(op, mode), 2),
        // A sign is changed even of NaN.
        "abs" => (mode.one(f32::abs), 1),
        "neg" => (mode.one(|a| -a), 1),
        "copysign" => (two(|a: f32, b: f32| b.copysign(a)), 2),
        "div" if op.has("rn") => (mode.two(|a, b| a / b), 2),
        "sqrt" if op.has("rn") => (mode.one(f32::sqrt), 1),
        "rcp" if op.has("rn") => (mode.one(|a| 1.0 / a), 1),
        "div" => (mode.two(quotient_within_2_ulp), 2),
        _ => (approximate(op.base, mode)?, 1),
    })
}

/// A function that a device approximates. Source of the bounds: PTX ISA 9.0.
fn approximate(base: &str, mode: Mode) -> Option<Map> {
    const ULP: f64 = 1.0 / (1 << 23) as f64;
    let (f, relative, absolute): (fn(f64) -> f64, _, _) = match base {
        "rcp" => (|a| 1.0 / a, ULP, 0.0),
        "sqrt" => (f64::sqrt, ULP, 0.0),
        "rsqrt" => (|a| 1.0 / a.sqrt(), ULP, 0.0),
        "ex2" => (f64::exp2, 2.0 * ULP, 0.0),
        "lg2" => (f64::log2, ULP, 2.0 * ULP),
        "sin" => (f64::sin, ULP, 4.0 * ULP),
        "cos" => (f64::cos, ULP, 4.0 * ULP),
        "tanh" => (f64::tanh, 4096.0 * ULP, 0.0),
        _ => return None,
    };
    Some(mode.one(move |a| off(f(f64::from(a)), a.to_bits(), relative - ULP / 2.0, absolute)))
}

/// A number near `exact` that follows from `seed`, at most `relative` of it and `absolute` away before it is rounded. What f32 can
/// hold is exact, as powers of two are on a device.
fn off(exact: f64, seed: u32, relative: f64, absolute: f64) -> f32 {
    let near = exact as f32;
    if f64::from(near) == exact || near.is_nan() || near.is_infinite() {
        return near;
    }
    let mixed = seed.wrapping_mul(0x9e37_79b9);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) as i32;
    let share = f64::from(mixed) / f64::from(1u32 << 31);
    (exact + share * (exact.abs() * relative + absolute)) as f32
}

/// `a / b` as `div.approx` and `div.full` may have it.
fn quotient_within_2_ulp(a: f32, b: f32) -> f32 {
    off(f64::from(a) / f64::from(b), a.to_bits() ^ b.to_bits().rotate_left(9), 1.5 / (1 << 23) as f64, 0.0)
}

/// `1 / a` as devices begin to divide: of both only the high halves.
fn reciprocal_of_high_half(a: f64) -> f64 {
    let high = |x: f64| f64::from_bits(x.to_bits() & !0xffff_ffff);
    let found = 1.0 / high(a);
    if a.is_nan() { found } else { high(found) }
}

fn extreme_f32(op: &Opcode<'_>, mode: Mode) -> Map {
    let (max, nan) = (op.base == "max", op.has("NaN"));
    let (by_magnitude, sign) = (op.has("abs"), op.has("xorsign"));
    mode.two(move |a, b| {
        let (x, y) = if by_magnitude { (a.abs(), b.abs()) } else { (a, b) };
        let found = extreme(f64::from(x), f64::from(y), max, nan) as f32;
        if sign {
            found.copysign(if a.is_sign_negative() != b.is_sign_negative() { -1.0 } else { 1.0 })
        } else {
            found
        }
    })
}

/// The smaller or bigger one, −0 below +0; NaN loses unless it is asked for.
pub(crate) fn extreme(a: f64, b: f64, max: bool, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) | (false, true) if nan => f64::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if (a.total_cmp(&b).is_lt()) == max => b,
        _ => a,
    }
}

fn directed_f32(base: &str, mode: Mode) -> Option<(Map, usize)> {
    let rounding = mode.rounding;
    let finish = move |exact: (f64, f64)| rounding.f32(odd(exact));
    let wide = |x: f32| f64::from(x);
    Some(match base {
        "add" => (mode.two(move |a, b| finish(two_sum(wide(a), wide(b)))), 2),
        "sub" => (mode.two(move |a, b| finish(two_sum(wide(a), -wide(b)))), 2),
        "mul" => (mode.two(move |a, b| rounding.f32(wide(a) * wide(b))), 2),
        "fma" | "mad" => (mode.three(move |a, b, c| finish(two_sum(wide(a) * wide(b), wide(c)))), 3),
        "div" => (mode.two(move |a, b| finish(quotient(wide(a), wide(b)))), 2),
        "rcp" => (mode.one(move |a| finish(quotient(1.0, wide(a)))), 1),
        "sqrt" => (mode.one(move |a| finish(root(wide(a)))), 1),
        _ => return None,
    })
}

/// `a / b`, and the sign of what is missing.
fn quotient(a: f64, b: f64) -> (f64, f64) {
    let near = a / b;
    let rest = f64::mul_add(-near, b, a);
    (near, if near.is_finite() && rest != 0.0 { rest * b.signum() } else { 0.0 })
}

/// `√a`, and the sign of what is missing.
fn root(a: f64) -> (f64, f64) {
    let near = a.sqrt();
    (near, if near.is_finite() { f64::mul_add(-near, near, a) } else { 0.0 })
}

fn f64s(op: &Opcode<'_>, mode: Mode) -> Option<(Map, usize)> {
    let (max, nan) = (op.base == "max", op.has("NaN"));
    let rounding = mode.rounding;
    if rounding != Rounding::Nearest {
        return directed_f64(op.base, rounding);
    }
    Some(match op.base {
        "add" => (two(|a: f64, b: f64| a + b), 2),
        "sub" => (two(|a: f64, b: f64| a - b), 2),
        "mul" => (two(|a: f64, b: f64| a * b), 2),
        "fma" | "mad" => (three(f64::mul_add), 3),
        "div" => (two(|a: f64, b: f64| a / b), 2),
        "min" | "max" => (two(move |a, b| extreme(a, b, max, nan)), 2),
        "abs" => (one(f64::abs), 1),
        "neg" => (one(|a: f64| -a), 1),
        "copysign" => (two(|a: f64, b: f64| b.copysign(a)), 2),
        "rcp" if op.has("approx") => (one(reciprocal_of_high_half), 1),
        "rcp" => (one(|a: f64| 1.0 / a), 1),
        "sqrt" => (one(f64::sqrt), 1),
        "rsqrt" => (one(|a: f64| 1.0 / a.sqrt()), 1),
        _ => return None,
    })
}

fn directed_f64(base: &str, rounding: Rounding) -> Option<(Map, usize)> {
    Some(match base {
        "add" => (two(move |a, b| rounding.f64(two_sum(a, b))), 2),
        "sub" => (two(move |a: f64, b: f64| rounding.f64(two_sum(a, -b))), 2),
        "mul" => (two(move |a: f64, b: f64| rounding.f64((a * b, f64::mul_add(a, b, -(a * b))))), 2),
        "div" => (two(move |a, b| rounding.f64(quotient(a, b))), 2),
        "rcp" => (one(move |a| rounding.f64(quotient(1.0, a))), 1),
        "sqrt" => (one(move |a| rounding.f64(root(a))), 1),
        _ => return None,
    })
}
