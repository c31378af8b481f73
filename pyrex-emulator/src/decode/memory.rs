//! Loads, stores, atomics and copies.

use super::Decoder;
use super::arithmetic::space;
use crate::kernel::{Access, AddressSpace, Guard, Op, Strength, Update};
use crate::lanes::Bits;
use crate::lanes::Two;
use crate::ops::Opcode;
use crate::ops::float::extreme;
use crate::ops::rounding::{Rounding, odd, short, two_sum};
use crate::syntax::Operand;
use crate::types::{Type, truncate};
use half::{bf16, f16};

impl<'a> Decoder<'a> {
    /// Decodes an instruction that accesses memory; false if it is none.
    pub(super) fn memory(
        &mut self,
        op: &Opcode<'_>,
        operands: &[Operand<'a>],
        guard: Guard,
    ) -> Result<bool, String> {
        if op.has("release") || op.has("acq_rel") {
            self.push(0, guard, Op::Fence);
        }
        let decoded = match (op.base, operands) {
            ("ld" | "ldu", [d, from]) => self.load(op, d, from)?,
            ("st", [to, s]) => self.store(op, to, s)?,
            ("atom", [d, at, b]) => {
                let d = self.maybe(d)?.map(|d| d.number);
                self.atomic(op, d, at, b)?
            }
            ("atom", [d, at, b, c]) => self.exchange(op, [d, at, b, c])?,
            ("red", [at, b]) => self.atomic(op, None, at, b)?,
            ("cp", [to, from, bytes, rest @ ..]) if op.has("async") => {
                self.copy_async(op, [to, from, bytes], rest.first())?
            }
            ("cp", []) if op.has("commit_group") => Op::CommitCopies,
            ("cp", []) if op.has("wait_all") => Op::WaitCopies(None),
            ("cp", [Operand::Word(count)]) if op.has("wait_group") => {
                Op::WaitCopies(Some(count.parse().map_err(|_| "no count of groups")?))
            }
            ("prefetch" | "prefetchu" | "discard" | "applypriority", _) => Op::Nothing,
            ("membar" | "fence", _) => Op::Fence,
            _ => return Ok(false),
        };
        self.push(0, guard, decoded);
        Ok(true)
    }

    /// How `operand` is accessed, each time with `bytes` bytes, `count` times.
    fn accessed(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
        (bytes, count): (u32, u32),
    ) -> Result<Access, String> {
        let space = op.modifiers.iter().find_map(|one| space(one)).unwrap_or(AddressSpace::Generic);
        let mut access = self.access(operand, space, bytes)?;
        let strong = ["volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"];
        access.strength = match strong.iter().any(|one| op.has(one)) || matches!(op.base, "atom" | "red") {
            true => Strength::Strong,
            false if op.has("nc") => Strength::ReadOnly,
            false => Strength::Weak,
        };
        if !matches!(access.space, AddressSpace::Local | AddressSpace::Parameter | AddressSpace::Constant) {
            self.granule = self.granule.min(bytes * count);
        }
        Ok(access)
    }

    fn load(&mut self, op: &Opcode<'_>, d: &Operand<'a>, from: &Operand<'a>) -> Result<Op, String> {
        let ty = op.ty().ok_or("no type")?;
        let registers = self.destinations(d)?;
        let width = registers.iter().flatten().map(|one| one.ty.bits()).max().unwrap_or(64);
        let access = self.accessed(op, from, (ty.bytes(), registers.len() as u32))?;
        let sign_from = (ty.is_signed() && ty.bits() < width).then_some(ty.bits());
        let d = registers.into_iter().map(|one| one.map(|one| one.number)).collect();
        Ok(Op::Load { access, d, sign_from, width })
    }

    fn store(&mut self, op: &Opcode<'_>, to: &Operand<'a>, s: &Operand<'a>) -> Result<Op, String> {
        let ty = op.ty().ok_or("no type")?;
        let s = self.sources(s, ty)?;
        let access = self.accessed(op, to, (ty.bytes(), s.len() as u32))?;
        Ok(Op::Store { access, s })
    }

    fn atomic(
        &mut self,
        op: &Opcode<'_>,
        d: Option<u32>,
        at: &Operand<'a>,
        b: &Operand<'a>,
    ) -> Result<Op, String> {
        let ty = op.ty().ok_or("no type")?;
        let access = self.accessed(op, at, (ty.bytes(), 1))?;
        let f = update(op, ty).ok_or("no atomic that is known")?;
        Ok(Op::Atomic { access, f, d, b: self.source(b, ty)? })
    }

    fn exchange(&mut self, op: &Opcode<'_>, [d, at, b, c]: [&Operand<'a>; 4]) -> Result<Op, String> {
        if !op.has("cas") {
            return Err("no atomic of two numbers that is known".to_owned());
        }
        let ty = op.ty().ok_or("no type")?;
        let access = self.accessed(op, at, (ty.bytes(), 1))?;
        let d = self.maybe(d)?.map(|d| d.number);
        Ok(Op::Exchange { access, d, b: self.source(b, ty)?, c: self.source(c, ty)? })
    }

    fn copy_async(
        &mut self,
        op: &Opcode<'_>,
        [to, from, bytes]: [&Operand<'a>; 3],
        source_bytes: Option<&Operand<'a>>,
    ) -> Result<Op, String> {
        if op.has("bulk") || op.has("mbarrier") {
            return Err("only copies of up to 16 bytes are known".to_owned());
        }
        let bytes = match bytes {
            Operand::Word("4") if op.has("ca") => 4,
            Operand::Word("8") if op.has("ca") => 8,
            Operand::Word("16") => 16,
            other => return Err(format!("{other:?} bytes cannot be copied")),
        };
        let to = self.access(to, AddressSpace::Shared, bytes)?;
        let from = self.access(from, AddressSpace::Global, bytes)?;
        let source_bytes = source_bytes.map(|operand| self.source(operand, Type::U(32))).transpose()?;
        Ok(Op::Copy { to, from, source_bytes })
    }
}

/// What an atomic, or a reduction of a warp, does with two numbers.
pub(super) fn update(op: &Opcode<'_>, ty: Type) -> Option<Update> {
    let name = *op
        .modifiers
        .iter()
        .find(|one| matches!(**one, "add" | "min" | "max" | "inc" | "dec" | "and" | "or" | "xor" | "exch"))?;
    fn f<T: Bits>(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Update {
        Box::new(move |a, b| f(T::of(a), T::of(b)).bits())
    }
    let width = ty.bits();
    Some(match (name, ty) {
        ("exch", _) => Box::new(|_, b| b),
        ("and", _) => Box::new(|a, b| a & b),
        ("or", _) => Box::new(|a, b| a | b),
        ("xor", _) => Box::new(|a, b| a ^ b),
        ("inc", _) => f(|a: u32, b: u32| if a >= b { 0 } else { a + 1 }),
        ("dec", _) => f(|a: u32, b: u32| if a == 0 || a > b { b } else { a - 1 }),
        ("add", Type::F32) => f(|a: f32, b: f32| a + b),
        ("add", Type::F64) => f(|a: f64, b: f64| a + b),
        (_, Type::F16) => f(half::<f16>(name)?),
        (_, Type::Bf16) => f(half::<bf16>(name)?),
        (_, Type::F16x2) => {
            let one = half::<f16>(name)?;
            f(move |a: Two<f16>, b: Two<f16>| Two(one(a.0, b.0), one(a.1, b.1)))
        }
        (_, Type::Bf16x2) => {
            let one = half::<bf16>(name)?;
            f(move |a: Two<bf16>, b: Two<bf16>| Two(one(a.0, b.0), one(a.1, b.1)))
        }
        ("add", _) => Box::new(move |a, b| truncate(a.wrapping_add(b), width)),
        ("min", Type::S(32)) => f(|a: i32, b: i32| a.min(b)),
        ("max", Type::S(32)) => f(|a: i32, b: i32| a.max(b)),
        ("min", Type::S(64)) => f(|a: i64, b: i64| a.min(b)),
        ("max", Type::S(64)) => f(|a: i64, b: i64| a.max(b)),
        ("min", _) => Box::new(|a, b| a.min(b)),
        ("max", _) => Box::new(|a, b| a.max(b)),
        _ => return None,
    })
}

fn half<T: crate::ops::rounding::Short>(
    name: &str,
) -> Option<impl Fn(T, T) -> T + Send + Sync + Copy + use<T>> {
    let f: fn(f64, f64) -> f64 = match name {
        "add" => |a, b| odd(two_sum(a, b)),
        "min" => |a, b| extreme(a, b, false, false),
        "max" => |a, b| extreme(a, b, true, false),
        _ => return None,
    };
    Some(move |a: T, b: T| short(f(a.wide(), b.wide()), Rounding::Nearest))
}
