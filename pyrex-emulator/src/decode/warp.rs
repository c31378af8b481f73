//! What lanes of a warp do together.

use super::Decoder;
use super::memory::update;
use crate::fragment::{Layout, Role, Shape};
use crate::kernel::{AddressSpace, Aligned, Fragment, Guard, Multiply, Op, Shuffle, Together, Vote};
use crate::ops::Opcode;
use crate::syntax::Operand;
use crate::types::Type;

impl<'a> Decoder<'a> {
    /// Decodes an instruction of a warp; false if it is none.
    pub(super) fn warp(
        &mut self,
        op: &Opcode<'_>,
        operands: &[Operand<'a>],
        guard: Guard,
    ) -> Result<bool, String> {
        let decoded = match (op.base, operands) {
            ("shfl", [d, a, b, c, members]) => {
                let what = self.shuffle(op, d, [a, b, c])?;
                self.together(what, members)?
            }
            ("vote", [d, a, members]) => {
                let what = self.vote(op, d, a)?;
                self.together(what, members)?
            }
            ("match", [d, a, members]) => {
                let (name, p) = match d {
                    Operand::Pair(d, p) => (Operand::Word(d), Some(self.pred(p)?)),
                    d => (d.clone(), None),
                };
                let d = self.destination(&name)?.number;
                let a = self.source(a, op.ty().ok_or("no type")?)?;
                self.together(Together::Match { all: op.has("all"), d, p, a }, members)?
            }
            ("redux", [d, a, members]) => {
                let ty = op.ty().ok_or("no type")?;
                let f = update(op, ty).ok_or("no reduction that is known")?;
                let (d, a) = (self.destination(d)?.number, self.source(a, ty)?);
                self.together(Together::Reduce { f, d, a }, members)?
            }
            ("bar" | "barrier", [members]) if op.has("warp") => self.together(Together::Barrier, members)?,
            ("activemask", [d]) => Op::ActiveMask(self.destination(d)?.number),
            ("elect", _) => return Ok(false),
            ("ldmatrix", [d, from]) => self.load_matrix(op, d, from)?,
            ("mma", [d, a, b, c]) => self.multiply(op, [d, a, b, c])?,
            ("wmma", [d, a, b, c]) if op.has("mma") => self.multiply(op, [d, a, b, c])?,
            ("wmma", [d, from, stride]) if op.has("load") => self.fragment(op, d, (from, stride), true)?,
            ("wmma", [to, s, stride]) if op.has("store") => self.fragment(op, s, (to, stride), false)?,
            _ => return Ok(false),
        };
        self.push(0, guard, decoded);
        Ok(true)
    }

    fn together(&mut self, what: Together, members: &Operand<'a>) -> Result<Op, String> {
        Ok(Op::Together { what, members: self.source(members, Type::B(32))? })
    }

    fn shuffle(
        &mut self,
        op: &Opcode<'_>,
        d: &Operand<'a>,
        [a, b, c]: [&Operand<'a>; 3],
    ) -> Result<Together, String> {
        let mode = match op.modifiers.get(1) {
            Some(&"up") => Shuffle::Up,
            Some(&"down") => Shuffle::Down,
            Some(&"bfly") => Shuffle::Butterfly,
            Some(&"idx") => Shuffle::Index,
            _ => return Err("no shuffle that is known".to_owned()),
        };
        let (name, in_range) = match d {
            Operand::Pair(d, p) => (Operand::Word(d), Some(self.pred(p)?)),
            d => (d.clone(), None),
        };
        Ok(Together::Shuffle {
            mode,
            d: self.destination(&name)?.number,
            in_range,
            a: self.source(a, Type::B(32))?,
            b: self.source(b, Type::B(32))?,
            c: self.source(c, Type::B(32))?,
        })
    }

    fn vote(&mut self, op: &Opcode<'_>, d: &Operand<'a>, a: &Operand<'a>) -> Result<Together, String> {
        let kind = match op.modifiers.get(1) {
            Some(&"all") => Vote::All,
            Some(&"any") => Vote::Any,
            Some(&"uni") => Vote::Uniform,
            Some(&"ballot") => Vote::Ballot,
            _ => return Err("no vote that is known".to_owned()),
        };
        let a = self.guard(a)?;
        Ok(match (kind, d) {
            (Vote::Ballot, d) => Together::Vote { kind, d: self.destination(d)?.number, p: 0, a },
            (_, Operand::Word(p)) => Together::Vote { kind, d: 0, p: self.pred(p)?, a },
            _ => return Err("no predicate".to_owned()),
        })
    }

    fn load_matrix(&mut self, op: &Opcode<'_>, d: &Operand<'a>, from: &Operand<'a>) -> Result<Op, String> {
        if !op.has("m8n8") || op.ty() != Some(Type::B(16)) {
            return Err("only matrices of 8 × 8 with 16 bits each are known".to_owned());
        }
        let d = self.all_destinations(d)?;
        let space = if op.has("shared") { AddressSpace::Shared } else { AddressSpace::Generic };
        let address = self.access(from, space, 16)?;
        Ok(Op::Aligned(Aligned::LoadMatrix { d, address, transposed: op.has("trans") }))
    }

    fn multiply(&mut self, op: &Opcode<'_>, [d, a, b, c]: [&Operand<'a>; 4]) -> Result<Op, String> {
        let shape = Shape::of(op).ok_or("no shape and types that are known")?;
        let multiply = Multiply {
            d: self.all_destinations(d)?,
            a: self.sources(a, Type::B(32))?,
            b: self.sources(b, Type::B(32))?,
            c: self.sources(c, Type::B(32))?,
            shape,
        };
        let wanted = Role::ALL.map(|role| multiply.shape.layout(role).num_registers());
        let found = [&multiply.a, &multiply.b, &multiply.c, &multiply.d].map(Vec::len);
        if wanted != found {
            return Err(format!("fragments of {found:?} registers, expected {wanted:?}"));
        }
        Ok(Op::Aligned(Aligned::Multiply(Box::new(multiply))))
    }

    fn fragment(
        &mut self,
        op: &Opcode<'_>,
        registers: &Operand<'a>,
        (address, stride): (&Operand<'a>, &Operand<'a>),
        loads: bool,
    ) -> Result<Op, String> {
        let layout = Layout::of_wmma(op).ok_or("no shape and type that are known")?;
        let space = op.modifiers.iter().find_map(|one| super::arithmetic::space(one));
        let bytes = layout.element.bytes();
        self.granule = self.granule.min(bytes);
        let registers = match loads {
            true => self.all_destinations(registers)?,
            false => self.sources(registers, Type::B(32))?,
        };
        if registers.len() != layout.num_registers() {
            return Err(format!(
                "a fragment of {} registers, expected {}",
                registers.len(),
                layout.num_registers()
            ));
        }
        let fragment = Fragment {
            registers,
            address: self.access(address, space.unwrap_or(AddressSpace::Generic), bytes)?,
            stride: self.source(stride, Type::U(32))?,
            by_columns: op.has("col"),
            layout,
        };
        Ok(Op::Aligned(if loads {
            Aligned::LoadFragment(fragment)
        } else {
            Aligned::StoreFragment(fragment)
        }))
    }
}
