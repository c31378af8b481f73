//! Operands: names become numbers of registers, and numbers become constants.

use super::{Decoder, Place, Register};
use crate::kernel::{Access, AddressSpace, Guard, Pred, Slot, Source, Special, Strength};
use crate::module::Space;
use crate::syntax::Operand;
use crate::types::Type;

impl<'a> Decoder<'a> {
    /// The register `name`, if it is one.
    pub(super) fn register(&mut self, name: &'a str) -> Option<Register> {
        let frame = self.frames.last().expect("a function is being decoded");
        if let Some(found) = frame.scopes.iter().rev().find_map(|scope| scope.registers.get(name)) {
            return Some(*found);
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if prefix.len() == name.len() {
            return None;
        }
        let mut ranges = frame.scopes.iter().rev().flat_map(|scope| &scope.ranges);
        let (_, ty) = *ranges.find(|(range, _)| *range == prefix)?;
        let register = self.new_register(ty);
        let frame = self.frame();
        let declaring = frame
            .scopes
            .iter_mut()
            .rev()
            .find(|scope| scope.ranges.iter().any(|(range, _)| *range == prefix));
        declaring.expect("the range was found above").registers.insert(name, register);
        Some(register)
    }

    /// The predicate `name`.
    pub(super) fn pred(&mut self, name: &'a str) -> Result<Pred, String> {
        match self.register(name) {
            Some(Register { number, ty: Type::Pred }) => Ok(number),
            _ => Err(format!("{name} is no predicate")),
        }
    }

    /// A predicate or its opposite, or a constant.
    pub(super) fn guard(&mut self, operand: &Operand<'a>) -> Result<Guard, String> {
        match operand {
            Operand::Not(name) => Ok(Guard { pred: self.pred(name)?, invert: !0 }),
            Operand::Word("1" | "0xffffffff") => Ok(Guard::ALWAYS),
            Operand::Negative("1") => Ok(Guard::ALWAYS),
            Operand::Word("0") => Ok(Guard { pred: 0, invert: !0 }),
            Operand::Word(name) => Ok(Guard { pred: self.pred(name)?, invert: 0 }),
            other => Err(format!("{other:?} is no predicate")),
        }
    }

    /// A slot that holds `source` from the beginning.
    pub(super) fn constant(&mut self, source: Source) -> Slot {
        if let Some(slot) = self.constants.get(&source) {
            return *slot;
        }
        let slot = self.new_register(Type::B(64)).number;
        self.initial.push((slot, source));
        self.constants.insert(source, slot);
        slot
    }

    /// A number.
    pub(super) fn bits(&mut self, bits: u64) -> Slot {
        self.constant(Source::Bits(bits))
    }

    /// What is read from `operand` as a `ty`.
    pub(super) fn source(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Slot, String> {
        match operand {
            Operand::Negative(number) => match ty.literal(&format!("-{number}")) {
                Some(bits) => Ok(self.bits(bits)),
                None => Err(format!("-{number} is no {ty:?}")),
            },
            Operand::Word(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                match ty.literal(number) {
                    Some(bits) => Ok(self.bits(bits)),
                    None => Err(format!("{number} is no {ty:?}")),
                }
            }
            Operand::Word(name) => self.named(name, 0),
            Operand::Sum(name, offset) => self.named(name, *offset),
            other => Err(format!("{other:?} is no {ty:?}")),
        }
    }

    fn named(&mut self, name: &'a str, offset: i64) -> Result<Slot, String> {
        if let Some(register) = self.register(name).filter(|_| offset == 0) {
            return match register.ty {
                Type::Pred => Err(format!("{name} is a predicate")),
                _ => Ok(register.number),
            };
        }
        if let Some(special) = special(name) {
            return Ok(self.constant(Source::Special(special)));
        }
        if name == "WARP_SZ" {
            return Ok(self.bits(32));
        }
        let (_, source) = self.symbol(name, offset)?;
        Ok(self.constant(source))
    }

    /// The space and the address of a variable.
    pub(super) fn symbol(&mut self, name: &str, offset: i64) -> Result<(AddressSpace, Source), String> {
        let frame = self.frames.last().expect("a function is being decoded");
        let local = frame.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        if let Some(place) = local.or_else(|| frame.parameters.get(name)) {
            return Ok(match place {
                Place::Local(at) => {
                    (AddressSpace::Local, Source::Bits(offset.wrapping_add(i64::from(*at)) as u64))
                }
                Place::Parameter(at) => {
                    (AddressSpace::Parameter, Source::Bits(offset.wrapping_add(i64::from(*at)) as u64))
                }
            });
        }
        if let Some(at) = self.shared.get(name) {
            return Ok((AddressSpace::Shared, Source::Bits(offset.wrapping_add(i64::from(*at)) as u64)));
        }
        let Some((number, variable)) = self.module.variable(name) else {
            return Err(format!("nothing is called {name}"));
        };
        let (space, bytes, align) = (variable.space, variable.bytes as u32, variable.align);
        Ok(match space {
            Space::Global => (AddressSpace::Global, Source::Variable(number, offset)),
            Space::Constant => (AddressSpace::Constant, Source::Variable(number, offset)),
            Space::DynamicShared => (AddressSpace::Shared, Source::DynamicShared(align, offset)),
            Space::Shared => {
                let at = self.place_shared(name, bytes, align);
                (AddressSpace::Shared, Source::Bits(offset.wrapping_add(i64::from(at)) as u64))
            }
        })
    }

    /// The register that is written.
    pub(super) fn destination(&mut self, operand: &Operand<'a>) -> Result<Register, String> {
        match operand {
            Operand::Word(name) => match self.register(name) {
                Some(register) if register.ty != Type::Pred => Ok(register),
                _ => Err(format!("{name} is no register")),
            },
            other => Err(format!("{other:?} is no register")),
        }
    }

    /// The register that is written, unless it is `_`.
    pub(super) fn maybe(&mut self, operand: &Operand<'a>) -> Result<Option<Register>, String> {
        match operand {
            Operand::Word("_") => Ok(None),
            other => self.destination(other).map(Some),
        }
    }

    /// A register, or the registers in braces.
    pub(super) fn destinations(&mut self, operand: &Operand<'a>) -> Result<Vec<Option<Register>>, String> {
        match operand {
            Operand::Group(group) => group.iter().map(|one| self.maybe(one)).collect(),
            other => Ok(vec![self.maybe(other)?]),
        }
    }

    /// Registers in braces that all are written.
    pub(super) fn all_destinations(&mut self, operand: &Operand<'a>) -> Result<Vec<Slot>, String> {
        let registers = self.destinations(operand)?;
        registers
            .into_iter()
            .map(|one| one.map(|one| one.number).ok_or("'_' is no register".to_owned()))
            .collect()
    }

    /// What is read from an operand, or from those in braces.
    pub(super) fn sources(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Vec<Slot>, String> {
        match operand {
            Operand::Group(group) => group.iter().map(|one| self.source(one, ty)).collect(),
            other => Ok(vec![self.source(other, ty)?]),
        }
    }

    /// `[base + offset]` in `space`.
    pub(super) fn access(
        &mut self,
        operand: &Operand<'a>,
        space: AddressSpace,
        bytes: u32,
    ) -> Result<Access, String> {
        let (base, offset) = match operand {
            Operand::Address(base, offset) => (*base, *offset),
            other => return Err(format!("{other:?} is no address")),
        };
        let access =
            |space, address, offset| Access { space, bytes, address, offset, strength: Strength::Weak };
        if let Some(register) = self.register(base) {
            return Ok(access(space, register.number, offset));
        }
        if base.starts_with(|c: char| c.is_ascii_digit()) {
            let address = self.source(&Operand::Word(base), Type::U(64))?;
            return Ok(access(space, address, offset));
        }
        let (of_symbol, source) = self.symbol(base, offset)?;
        let address = self.constant(source);
        match space {
            // A function's own parameters lie in local memory, where the call put them.
            AddressSpace::Parameter | AddressSpace::Generic => Ok(access(of_symbol, address, 0)),
            _ => Ok(access(space, address, 0)),
        }
    }
}

fn special(name: &str) -> Option<Special> {
    let (name, axis) = match name.rsplit_once('.') {
        Some((name, "x")) => (name, 0),
        Some((name, "y")) => (name, 1),
        Some((name, "z")) => (name, 2),
        _ => (name, 0),
    };
    Some(match name {
        "%tid" => Special::Thread(axis),
        "%ntid" => Special::BlockLen(axis),
        "%ctaid" => Special::Block(axis),
        "%nctaid" => Special::GridLen(axis),
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::NumWarps,
        "%lanemask_eq" => Special::LanesEqual,
        "%lanemask_lt" => Special::LanesBelow,
        "%lanemask_le" => Special::LanesUpTo,
        "%lanemask_ge" => Special::LanesFrom,
        "%lanemask_gt" => Special::LanesAbove,
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::SharedBytes,
        _ => return None,
    })
}
