//! Branches, calls, barriers, and the order in which kinds of instructions are tried.

use super::{Decoder, Place};
use crate::kernel::{Barrier, Guard, Op, Verdict, VerdictKind};
use crate::ops::Opcode;
use crate::syntax::{Operand, Statement};
use crate::types::Type;
use std::collections::HashMap;

impl<'a> Decoder<'a> {
    /// Decodes an instruction.
    pub(super) fn instruction(&mut self, statement: &Statement<'a>, guard: Guard) -> Result<(), String> {
        let op = Opcode::new(statement.opcode);
        let operands = &statement.operands[..];
        let known = self.control(&op, statement, guard)?
            || self.memory(&op, operands, guard)?
            || self.warp(&op, operands, guard)?
            || self.arithmetic(&op, operands, guard)?;
        if known { Ok(()) } else { Err("the emulator does not know this instruction".to_owned()) }
    }

    fn control(&mut self, op: &Opcode<'_>, statement: &Statement<'a>, guard: Guard) -> Result<bool, String> {
        let here = self.steps.len();
        match (op.base, &statement.operands[..]) {
            ("bra", [Operand::Word(label)]) => {
                self.frame().jumps.push((here, vec![label], statement.line));
                self.push(0, guard, Op::Branch(0));
            }
            ("brx", [index, Operand::Word(list)]) => {
                let labels = self.frame().targets.get(list).cloned().ok_or("no list of targets")?;
                let index = self.source(index, Type::U(32))?;
                self.frame().jumps.push((here, labels, statement.line));
                self.push(0, guard, Op::Switch { index, targets: Vec::new() });
            }
            ("ret", []) if self.frames.len() > 1 => {
                self.frame().returns.push(here);
                self.push(0, guard, Op::Branch(0));
            }
            ("ret" | "exit", []) => self.push(0, guard, Op::Exit),
            ("trap" | "brkpt", []) => self.push(0, guard, Op::Trap("a trap".to_owned())),
            ("call", operands) => self.call(operands, guard)?,
            ("bar" | "barrier", operands) if !op.has("warp") => {
                let barrier = self.barrier(op, operands)?;
                self.push(0, guard, Op::Barrier(barrier));
            }
            ("nanosleep" | "pmevent", _) => self.push(0, guard, Op::Nothing),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `bar.sync id`, `barrier.sync.aligned id, count`, `barrier.red.or.pred p, id, q`.
    fn barrier(&mut self, op: &Opcode<'_>, operands: &[Operand<'a>]) -> Result<Barrier, String> {
        let aligned = op.base == "bar" || op.has("aligned");
        let (rest, verdict) = match (op.has("red"), operands) {
            (true, [d, rest @ .., given]) => {
                let given = self.guard(given)?;
                let kind = match d {
                    Operand::Word(p) if op.has("and") => VerdictKind::And(self.pred(p)?),
                    Operand::Word(p) if op.has("or") => VerdictKind::Or(self.pred(p)?),
                    d => VerdictKind::Count(self.destination(d)?.number),
                };
                (rest, Some(Verdict { given, kind }))
            }
            _ => (operands, None),
        };
        let id = rest.first().map_or(Ok(self.bits(0)), |id| self.source(id, Type::U(32)))?;
        let count = rest.get(1).map(|count| self.source(count, Type::U(32))).transpose()?;
        Ok(Barrier { id, count, arrives: op.has("arrive"), aligned, verdict })
    }

    /// A call: the function is decoded here, with its parameters where the caller put them.
    fn call(&mut self, operands: &[Operand<'a>], guard: Guard) -> Result<(), String> {
        let (results, rest) = match operands {
            [Operand::List(results), rest @ ..] => (&results[..], rest),
            rest => (&[][..], rest),
        };
        let (name, given) = match rest {
            [Operand::Word(name)] => (*name, &[][..]),
            [Operand::Word(name), Operand::List(given), ..] => (*name, &given[..]),
            _ => return Err("expected a function".to_owned()),
        };
        let Some(function) = self.module.function(name) else {
            return Err(format!("{name} is no function: calls by pointer are not known"));
        };
        if function.body.is_none() {
            // What the device's runtime brings: printing, asserting, allocating.
            self.push(0, guard, Op::Trap(format!("a call of {name}")));
            return Ok(());
        }
        let mut places = HashMap::new();
        let formal = function.results.iter().chain(&function.parameters);
        let (num_formal, num_given) =
            (function.results.len() + function.parameters.len(), results.len() + given.len());
        if num_formal != num_given {
            return Err(format!("{num_given} parameters, expected {num_formal}"));
        }
        for (formal, actual) in formal.zip(results.iter().chain(given)) {
            let Operand::Word(actual) = actual else { return Err(format!("{actual:?} is no parameter")) };
            places.insert(formal.name.clone(), self.place(actual)?);
        }
        // Lanes that do not call jump over it.
        let skip = self.steps.len();
        let opposite = Guard { invert: !guard.invert, ..guard };
        if guard != Guard::ALWAYS {
            self.push(0, opposite, Op::Branch(0));
        }
        self.function(name, places).map_err(|fault| fault.message)?;
        if guard != Guard::ALWAYS {
            self.steps[skip].op = Op::Branch(self.steps.len() as u32);
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<Place, String> {
        let frame = self.frames.last().expect("a function is being decoded");
        let local = frame.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        local
            .or_else(|| frame.parameters.get(name))
            .copied()
            .ok_or_else(|| format!("no parameter is called {name}"))
    }
}
