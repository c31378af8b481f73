//! f16 and bf16, alone and two in a register.

use super::float::extreme;
use super::rounding::{Rounding, Short, odd, short, two_sum};
use super::{Arithmetic, Opcode};
use crate::lanes::{Map, Two, one, three, two};
use crate::types::Type;
use half::{bf16, f16};

/// What an opcode of f16, bf16, f16x2 or bf16x2 computes.
pub(crate) fn half(op: &Opcode<'_>) -> Option<Arithmetic> {
    let ty = op.ty()?;
    let function = function(op)?;
    let (f, count) = match ty {
        Type::F16 => single::<f16>(function, Mode::of(op)),
        Type::Bf16 => single::<bf16>(function, Mode::of(op)),
        Type::F16x2 => double::<f16>(function, Mode::of(op)),
        Type::Bf16x2 => double::<bf16>(function, Mode::of(op)),
        _ => return None,
    };
    Arithmetic::uniform(f, ty, count)
}

#[derive(Clone, Copy)]
struct Mode {
    ftz: bool,
    sat: bool,
    relu: bool,
}

impl Mode {
    fn of(op: &Opcode<'_>) -> Self {
        Self { ftz: op.has("ftz"), sat: op.has("sat"), relu: op.has("relu") }
    }

    fn before<T: Short>(self, x: T) -> f64 {
        let wide = x.wide();
        // Subnormals of f16 begin below 2^-14; those of bf16 are kept.
        if self.ftz && T::BIGGEST < 1e6 && wide.abs() < 6.103_515_625e-5 { 0f64.copysign(wide) } else { wide }
    }

    fn after<T: Short>(self, x: f64) -> T {
        let mut x = x;
        if self.sat {
            x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
        }
        if self.relu && x < 0.0 {
            x = 0.0;
        }
        short(self.before(short::<T>(x, Rounding::Nearest)), Rounding::Nearest)
    }
}

#[derive(Clone, Copy)]
enum Function {
    One(fn(f64) -> f64),
    Two(fn(f64, f64) -> f64),
    Three(fn(f64, f64, f64) -> f64),
}

fn function(op: &Opcode<'_>) -> Option<Function> {
    Some(match op.base {
        "add" => Function::Two(|a, b| odd(two_sum(a, b))),
        "sub" => Function::Two(|a, b| odd(two_sum(a, -b))),
        // Products of two such numbers are exact in f64.
        "mul" => Function::Two(|a, b| a * b),
        "fma" => Function::Three(|a, b, c| odd(two_sum(a * b, c))),
        "min" if op.has("NaN") => Function::Two(|a, b| extreme(a, b, false, true)),
        "min" => Function::Two(|a, b| extreme(a, b, false, false)),
        "max" if op.has("NaN") => Function::Two(|a, b| extreme(a, b, true, true)),
        "max" => Function::Two(|a, b| extreme(a, b, true, false)),
        "abs" => Function::One(f64::abs),
        "neg" => Function::One(|a| -a),
        "ex2" => Function::One(f64::exp2),
        "tanh" => Function::One(f64::tanh),
        _ => return None,
    })
}

fn single<T: Short>(function: Function, mode: Mode) -> (Map, usize) {
    match function {
        Function::One(f) => (one(move |a: T| mode.after::<T>(f(mode.before(a)))), 1),
        Function::Two(f) => (two(move |a: T, b: T| mode.after::<T>(f(mode.before(a), mode.before(b)))), 2),
        Function::Three(f) => (
            three(move |a: T, b: T, c: T| mode.after::<T>(f(mode.before(a), mode.before(b), mode.before(c)))),
            3,
        ),
    }
}

fn double<T: Short>(function: Function, mode: Mode) -> (Map, usize) {
    match function {
        Function::One(f) => {
            let g = move |a: T| mode.after::<T>(f(mode.before(a)));
            (one(move |a: Two<T>| Two(g(a.0), g(a.1))), 1)
        }
        Function::Two(f) => {
            let g = move |a: T, b: T| mode.after::<T>(f(mode.before(a), mode.before(b)));
            (two(move |a: Two<T>, b: Two<T>| Two(g(a.0, b.0), g(a.1, b.1))), 2)
        }
        Function::Three(f) => {
            let g =
                move |a: T, b: T, c: T| mode.after::<T>(f(mode.before(a), mode.before(b), mode.before(c)));
            let both = move |a: Two<T>, b: Two<T>, c: Two<T>| Two(g(a.0, b.0, c.0), g(a.1, b.1, c.1));
            (three(both), 3)
        }
    }
}
