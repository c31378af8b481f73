//! `cvt`: from any type to any other.

use super::rounding::{Rounding, short, tf32};
use super::{Arithmetic, Opcode};
use crate::lanes::{Bits, Map, Two, one, two};
use crate::types::{Type, sign_extend, truncate};
use half::{bf16, f16};

/// What `cvt` computes; its result is put into a register of `width` bits.
pub(crate) fn convert(op: &Opcode<'_>, width: u32) -> Option<Arithmetic> {
    let types = op.types();
    let (to, from) = (*types.first()?, *types.last()?);
    if matches!(to, Type::F16x2 | Type::Bf16x2) {
        return pair(op, to);
    }
    let f = match (to.is_float(), from.is_float()) {
        (false, false) => between_integers(op.has("sat"), to, from, width),
        (false, true) => to_integer(op, to, from, width)?,
        (true, false) => from_integer(op, to, from)?,
        (true, true) => between_floats(op, to, from)?,
    };
    Some(Arithmetic { f, sources: vec![from] })
}

fn rounding(op: &Opcode<'_>) -> Option<Rounding> {
    op.modifiers.iter().find_map(|modifier| Rounding::named(modifier))
}

/// `cvt.rn.bf16x2.f32 d, a, b`: `a` in the high half.
fn pair(op: &Opcode<'_>, to: Type) -> Option<Arithmetic> {
    let rounding = rounding(op)?;
    let relu = op.has("relu");
    let clamp = move |x: f32| f64::from(if relu && x < 0.0 { 0.0 } else { x });
    let f = match to {
        Type::F16x2 => {
            two(move |a: f32, b: f32| Two::<f16>(short(clamp(b), rounding), short(clamp(a), rounding)))
        }
        _ => two(move |a: f32, b: f32| Two::<bf16>(short(clamp(b), rounding), short(clamp(a), rounding))),
    };
    Some(Arithmetic { f, sources: vec![Type::F32; 2] })
}

/// The number as an integer of 128 bits.
fn wide(bits: u64, ty: Type) -> i128 {
    match ty.is_signed() {
        true => i128::from(sign_extend(bits, ty.bits()) as i64),
        false => i128::from(truncate(bits, ty.bits())),
    }
}

fn clamped(x: i128, to: Type) -> i128 {
    match to.is_signed() {
        true => x.clamp(-(1 << (to.bits() - 1)), (1 << (to.bits() - 1)) - 1),
        false => x.clamp(0, (1 << to.bits()) - 1),
    }
}

fn between_integers(sat: bool, to: Type, from: Type, width: u32) -> Map {
    let (to_bits, from_bits) = (to.bits(), from.bits());
    let finish = move |x: u64| match to.is_signed() {
        true => truncate(sign_extend(x, to_bits), width),
        false => truncate(x, to_bits.min(width)),
    };
    match (sat, from.is_signed()) {
        (true, _) => one(move |a: u64| finish(clamped(wide(a, from), to) as u64)),
        (false, true) => one(move |a: u64| finish(sign_extend(a, from_bits))),
        (false, false) => one(move |a: u64| finish(truncate(a, from_bits))),
    }
}

fn to_integer(op: &Opcode<'_>, to: Type, from: Type, width: u32) -> Option<Map> {
    let rounding = rounding(op)?;
    let ftz = op.has("ftz");
    let finish = move |x: f64| {
        let x = if ftz && x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { x };
        // Rust's cast clamps, and takes NaN to 0, as PTX does.
        truncate(
            clamped(rounding.integral(x) as i128, to) as u64,
            if to.is_signed() { width } else { to.bits() },
        )
    };
    Some(match from {
        Type::F16 => one(move |a: f16| finish(a.to_f64())),
        Type::Bf16 => one(move |a: bf16| finish(a.to_f64())),
        Type::F32 => one(move |a: f32| finish(f64::from(a))),
        Type::F64 => one(finish),
        _ => return None,
    })
}

fn from_integer(op: &Opcode<'_>, to: Type, from: Type) -> Option<Map> {
    let rounding = rounding(op)?;
    let value = move |a: u64| wide(a, from);
    Some(match to {
        Type::F32 if rounding == Rounding::Nearest => match (from.is_signed(), from.bits()) {
            (true, 32) => one(|a: i32| a as f32),
            (false, 32) => one(|a: u32| a as f32),
            _ => one(move |a: u64| value(a) as f32),
        },
        Type::F32 => one(move |a: u64| rounding.f32(odd_integer(value(a)))),
        Type::F64 if rounding == Rounding::Nearest => one(move |a: u64| value(a) as f64),
        Type::F64 => one(move |a: u64| {
            let near = value(a) as f64;
            rounding.f64((near, (value(a) - near as i128) as f64))
        }),
        Type::F16 => one(move |a: u64| short::<f16>(odd_integer(value(a)), rounding)),
        Type::Bf16 => one(move |a: u64| short::<bf16>(odd_integer(value(a)), rounding)),
        _ => return None,
    })
}

/// An integer as f64, with what does not fit kept in the last bit.
fn odd_integer(x: i128) -> f64 {
    let near = x as f64;
    super::rounding::odd((near, (x - near as i128) as f64))
}

fn between_floats(op: &Opcode<'_>, to: Type, from: Type) -> Option<Map> {
    if to == Type::Tf32 {
        let away = op.has("rna");
        return Some(one(move |a: f32| tf32(a, away)));
    }
    let integral = op.modifiers.iter().any(|one| matches!(*one, "rni" | "rzi" | "rmi" | "rpi"));
    let rounding = rounding(op).unwrap_or(Rounding::Nearest);
    let (sat, relu, ftz) = (op.has("sat"), op.has("relu"), op.has("ftz"));
    let flush = move |x: f64| match ftz && x.abs() < f64::from(f32::MIN_POSITIVE) {
        true => 0f64.copysign(x),
        false => x,
    };
    let before = move |x: f64| {
        let mut x = if from == Type::F32 { flush(x) } else { x };
        if integral {
            x = rounding.integral(x);
        }
        if sat {
            x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
        }
        if relu && x < 0.0 { 0.0 } else { x }
    };
    let read: fn(u64) -> f64 = match from {
        Type::F16 => |bits| f16::of(bits).to_f64(),
        Type::Bf16 => |bits| bf16::of(bits).to_f64(),
        Type::F32 => |bits| f64::from(f32::of(bits)),
        Type::F64 => f64::of,
        _ => return None,
    };
    Some(match to {
        Type::F16 => one(move |a: u64| short::<f16>(before(read(a)), rounding)),
        Type::Bf16 => one(move |a: u64| short::<bf16>(before(read(a)), rounding)),
        Type::F32 => one(move |a: u64| flush(f64::from(rounding.f32(before(read(a))))) as f32),
        Type::F64 => one(move |a: u64| before(read(a))),
        _ => return None,
    })
}
