//! Instructions that compute a register from registers, comparisons, and moves.

use super::{Decoder, windows};
use crate::kernel::{AddressSpace, Carry, Guard, Logic, Op};
use crate::lanes::{one, three};
use crate::ops::compare::{comparison, kind_of_number};
use crate::ops::convert::convert;
use crate::ops::float::float;
use crate::ops::half::half;
use crate::ops::integer::{carrying, insert, integer, lookup};
use crate::ops::{Arithmetic, Opcode};
use crate::syntax::Operand;
use crate::types::Type;

type Decoded = Result<bool, String>;

impl<'a> Decoder<'a> {
    /// Decodes an instruction of arithmetic; false if it is none.
    pub(super) fn arithmetic(&mut self, op: &Opcode<'_>, operands: &[Operand<'a>], guard: Guard) -> Decoded {
        let decoded = match (op.base, operands) {
            ("mov", [d, a]) => self.copy(op, d, a)?,
            ("cvta", [d, a]) => self.address(op, d, a)?,
            ("setp", _) => return self.predicate(op, operands, guard),
            ("set", [d, a, b, with @ ..]) => return self.set(op, d, [a, b], with.first(), guard),
            ("testp", [d, a]) => self.test_number(op, d, a)?,
            ("selp", [d, a, b, p]) => self.select(op, [d, a, b], p)?,
            ("slct", [d, a, b, c]) => self.select_by_sign(op, [d, a, b, c])?,
            ("and" | "or" | "xor" | "not", [d, rest @ ..]) if op.has("pred") => self.logic(op, d, rest)?,
            ("lop3", [d, a, b, c, table]) => self.lookup(d, [a, b, c], table)?,
            ("bfi", [d, a, b, at, len]) => return self.insert(op, [d, a, b, at, len], guard),
            ("add" | "addc" | "sub" | "subc" | "mad" | "madc", [d, rest @ ..])
                if op.has("cc") || matches!(op.base, "addc" | "subc" | "madc") =>
            {
                self.carry(op, d, rest)?
            }
            _ => match self.mapped(op, operands)? {
                Some(op) => op,
                None => return Ok(false),
            },
        };
        self.push(0, guard, decoded);
        Ok(true)
    }

    fn mapped(&mut self, op: &Opcode<'_>, operands: &[Operand<'a>]) -> Result<Option<Op>, String> {
        let Some(ty) = op.ty() else { return Ok(None) };
        let arithmetic = match op.base {
            "cvt" => {
                let to = operands.first().ok_or("no destination")?;
                let width = self.destination(to)?.ty.bits();
                convert(op, width)
            }
            "dp4a" | "dp2a" => integer(op),
            _ if matches!(ty, Type::F32 | Type::F64) => float(op),
            _ if ty.is_float() => half(op),
            _ => integer(op),
        };
        let Some(Arithmetic { f, sources }) = arithmetic else { return Ok(None) };
        if operands.len() != sources.len() + 1 {
            return Err(format!("{} operands, expected {}", operands.len(), sources.len() + 1));
        }
        let d = self.destination(&operands[0])?.number;
        let mut s = [d; 3];
        for (slot, (operand, ty)) in s.iter_mut().zip(operands[1..].iter().zip(sources)) {
            *slot = self.source(operand, ty)?;
        }
        Ok(Some(Op::Map { f, d, s }))
    }

    fn copy(&mut self, op: &Opcode<'_>, d: &Operand<'a>, a: &Operand<'a>) -> Result<Op, String> {
        let ty = op.ty().ok_or("no type")?;
        if ty == Type::Pred {
            let Operand::Word(name) = d else { return Err("no predicate".to_owned()) };
            let (d, a) = (self.pred(name)?, self.guard(a)?);
            return Ok(Op::Logic { f: Logic::And, d, a, b: Guard::ALWAYS });
        }
        match (d, a) {
            (Operand::Group(parts), _) => {
                let bits = ty.bits() / parts.len() as u32;
                let d = self.destinations(d)?.into_iter().map(|one| one.map(|one| one.number)).collect();
                Ok(Op::Unpack { a: self.source(a, ty)?, d, bits })
            }
            (_, Operand::Group(parts)) => {
                let bits = ty.bits() / parts.len() as u32;
                let s = self.sources(a, Type::B(bits as u8))?;
                Ok(Op::Pack { s, d: self.destination(d)?.number, bits })
            }
            (_, Operand::Word("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo")) => {
                Ok(Op::Clock(self.destination(d)?.number))
            }
            (_, Operand::Word("%smid" | "%gridid" | "%clusterid.x" | "%cluster_ctarank")) => {
                let zero = self.bits(0);
                self.plain_copy(d, zero)
            }
            _ => {
                let a = self.source(a, ty)?;
                self.plain_copy(d, a)
            }
        }
    }

    fn plain_copy(&mut self, d: &Operand<'a>, a: u32) -> Result<Op, String> {
        let d = self.destination(d)?.number;
        Ok(Op::Map { f: one(|a: u64| a), d, s: [a; 3] })
    }

    /// `cvta`, `cvta.to`: spaces other than the global one lie in windows.
    fn address(&mut self, op: &Opcode<'_>, d: &Operand<'a>, a: &Operand<'a>) -> Result<Op, String> {
        let window = match op.modifiers.iter().find_map(|modifier| space(modifier)) {
            Some(AddressSpace::Shared) => windows::SHARED,
            Some(AddressSpace::Local) => windows::LOCAL,
            Some(AddressSpace::Parameter) => windows::PARAMETER,
            _ => 0,
        };
        let ty = op.ty().ok_or("no type")?;
        let (d, a) = (self.destination(d)?.number, self.source(a, ty)?);
        let f = match op.has("to") {
            true => one(move |a: u64| a.wrapping_sub(window)),
            false => one(move |a: u64| a.wrapping_add(window)),
        };
        Ok(Op::Map { f, d, s: [a; 3] })
    }

    fn predicate(&mut self, op: &Opcode<'_>, operands: &[Operand<'a>], guard: Guard) -> Decoded {
        let ty = op.ty().ok_or("no type")?;
        let [d, a, b, with @ ..] = operands else { return Err("too few operands".to_owned()) };
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        let with = match with.first() {
            Some(operand) => Some((logic(op).ok_or("no logic")?, self.guard(operand)?)),
            None => None,
        };
        let (p, q) = match d {
            Operand::Pair(p, q) => (self.maybe_pred(p)?, self.maybe_pred(q)?),
            Operand::Word(p) => (self.maybe_pred(p)?, None),
            other => return Err(format!("{other:?} is no predicate")),
        };
        let known = || format!("no comparison of {ty:?} that is known");
        if matches!(ty, Type::F16x2 | Type::Bf16x2) {
            for (d, high) in [(p, false), (q, true)] {
                let f = comparison(op, ty, high).ok_or_else(known)?;
                self.push(0, guard, Op::Test { f, a, b, d, not_d: None, with });
            }
            return Ok(true);
        }
        let f = comparison(op, ty, false).ok_or_else(known)?;
        self.push(0, guard, Op::Test { f, a, b, d: p, not_d: q, with });
        Ok(true)
    }

    fn maybe_pred(&mut self, name: &'a str) -> Result<Option<u32>, String> {
        if name == "_" { Ok(None) } else { self.pred(name).map(Some) }
    }

    /// `set`: ones, or 1.0, where a comparison holds.
    fn set(
        &mut self,
        op: &Opcode<'_>,
        d: &Operand<'a>,
        [a, b]: [&Operand<'a>; 2],
        with: Option<&Operand<'a>>,
        guard: Guard,
    ) -> Decoded {
        let types = op.types();
        let [to, from] = types[..] else { return Err("expected two types".to_owned()) };
        let d = self.destination(d)?.number;
        let (a, b) = (self.source(a, from)?, self.source(b, from)?);
        let with = match with {
            Some(operand) => Some((logic(op).ok_or("no logic")?, self.guard(operand)?)),
            None => None,
        };
        let halves: &[bool] =
            if matches!(from, Type::F16x2 | Type::Bf16x2) { &[false, true] } else { &[false] };
        let mut parts = Vec::new();
        for high in halves {
            let p = self.new_register(Type::Pred).number;
            let f = comparison(op, from, *high).ok_or("no comparison that is known")?;
            self.push(0, guard, Op::Test { f, a, b, d: Some(p), not_d: None, with });
            let yes = match to {
                Type::F32 => 0x3f80_0000,
                Type::F16 | Type::F16x2 => 0x3c00,
                Type::Bf16 | Type::Bf16x2 => 0x3f80,
                _ if halves.len() == 2 => 0xffff,
                _ => 0xffff_ffff,
            };
            let part = if halves.len() == 1 { d } else { self.new_register(Type::B(16)).number };
            let (yes, no) = (self.bits(yes), self.bits(0));
            self.push(0, guard, Op::Select { d: part, a: yes, b: no, p: Guard { pred: p, invert: 0 } });
            parts.push(part);
        }
        if parts.len() == 2 {
            self.push(0, guard, Op::Pack { s: parts, d, bits: 16 });
        }
        Ok(true)
    }

    fn test_number(&mut self, op: &Opcode<'_>, d: &Operand<'a>, a: &Operand<'a>) -> Result<Op, String> {
        let Operand::Word(name) = d else { return Err("no predicate".to_owned()) };
        let d = Some(self.pred(name)?);
        let a = self.source(a, op.ty().ok_or("no type")?)?;
        let f = kind_of_number(op).ok_or("no kind that is known")?;
        Ok(Op::Test { f, a, b: a, d, not_d: None, with: None })
    }

    fn select(
        &mut self,
        op: &Opcode<'_>,
        [d, a, b]: [&Operand<'a>; 3],
        p: &Operand<'a>,
    ) -> Result<Op, String> {
        let ty = op.ty().ok_or("no type")?;
        let (d, p) = (self.destination(d)?.number, self.guard(p)?);
        Ok(Op::Select { d, a: self.source(a, ty)?, b: self.source(b, ty)?, p })
    }

    fn select_by_sign(&mut self, op: &Opcode<'_>, [d, a, b, c]: [&Operand<'a>; 4]) -> Result<Op, String> {
        let types = op.types();
        let [ty, by] = types[..] else { return Err("expected two types".to_owned()) };
        let d = self.destination(d)?.number;
        let s = [self.source(a, ty)?, self.source(b, ty)?, self.source(c, by)?];
        let f = match by {
            Type::S(32) => three(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
            _ => three(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        };
        Ok(Op::Map { f, d, s })
    }

    fn logic(&mut self, op: &Opcode<'_>, d: &Operand<'a>, rest: &[Operand<'a>]) -> Result<Op, String> {
        let Operand::Word(name) = d else { return Err("no predicate".to_owned()) };
        let d = self.pred(name)?;
        match (op.base, rest) {
            ("not", [a]) => {
                let a = self.guard(a)?;
                let a = Guard { invert: !a.invert, ..a };
                Ok(Op::Logic { f: Logic::And, d, a, b: Guard::ALWAYS })
            }
            (base, [a, b]) => {
                let (a, b) = (self.guard(a)?, self.guard(b)?);
                let f = named_logic(base).ok_or("no logic that is known")?;
                Ok(Op::Logic { f, d, a, b })
            }
            _ => Err("another number of operands was expected".to_owned()),
        }
    }

    fn lookup(
        &mut self,
        d: &Operand<'a>,
        sources: [&Operand<'a>; 3],
        table: &Operand<'a>,
    ) -> Result<Op, String> {
        let d = self.destination(d)?.number;
        let mut s = [0; 3];
        for (slot, operand) in s.iter_mut().zip(sources) {
            *slot = self.source(operand, Type::B(32))?;
        }
        let Operand::Word(table) = table else { return Err("no table".to_owned()) };
        let table = Type::U(32).literal(table).ok_or("no table")?;
        Ok(Op::Map { f: lookup(table as u32), d, s })
    }

    /// `bfi` has four sources: place and length are put into one register first.
    fn insert(&mut self, op: &Opcode<'_>, operands: [&Operand<'a>; 5], guard: Guard) -> Decoded {
        let ty = op.ty().ok_or("no type")?;
        let [d, a, b, at, len] = operands;
        let (d, a, b) = (self.destination(d)?.number, self.source(a, ty)?, self.source(b, ty)?);
        let s = vec![self.source(at, Type::U(32))?, self.source(len, Type::U(32))?];
        let both = self.new_register(Type::B(64)).number;
        self.push(0, guard, Op::Pack { s, d: both, bits: 32 });
        let width = ty.bits();
        let f = three(move |a: u64, b: u64, both: u64| {
            crate::types::truncate(insert(a, b, both as u32, (both >> 32) as u32), width)
        });
        self.push(0, guard, Op::Map { f, d, s: [a, b, both] });
        Ok(true)
    }

    fn carry(&mut self, op: &Opcode<'_>, d: &Operand<'a>, rest: &[Operand<'a>]) -> Result<Op, String> {
        let (f, count) = carrying(op).ok_or("no carry that is known")?;
        if rest.len() != count {
            return Err(format!("{} sources, expected {count}", rest.len()));
        }
        let ty = op.ty().ok_or("no type")?;
        let d = self.destination(d)?.number;
        let mut s = [d; 3];
        for (slot, operand) in s.iter_mut().zip(rest) {
            *slot = self.source(operand, ty)?;
        }
        let carry = match self.carry {
            Some(carry) => carry,
            None => self.new_register(Type::Pred).number,
        };
        self.carry = Some(carry);
        let takes = matches!(op.base, "addc" | "subc" | "madc");
        Ok(Op::Carry(Carry { f, d, s, carry, takes, keeps: op.has("cc") }))
    }
}

fn logic(op: &Opcode<'_>) -> Option<Logic> {
    op.modifiers.iter().find_map(|modifier| named_logic(modifier))
}

fn named_logic(name: &str) -> Option<Logic> {
    Some(match name {
        "and" => Logic::And,
        "or" => Logic::Or,
        "xor" => Logic::Xor,
        _ => return None,
    })
}

/// The space that a modifier names.
pub(super) fn space(modifier: &str) -> Option<AddressSpace> {
    Some(match modifier {
        "global" => AddressSpace::Global,
        "const" => AddressSpace::Constant,
        "shared" => AddressSpace::Shared,
        "local" => AddressSpace::Local,
        "param" => AddressSpace::Parameter,
        _ => return None,
    })
}
