//! Decodes a kernel: each statement of its body, and of the functions that it calls, becomes a step.

mod arithmetic;
mod control;
mod memory;
mod operands;
mod warp;
pub(crate) mod windows;

use crate::fault::Fault;
use crate::kernel::{Guard, Kernel, Op, Pred, Slot, Source, Step};
use crate::module::{Module, Parameter};
use crate::syntax::{Item, Statement, Variable, items};
use crate::types::Type;
use std::collections::HashMap;

/// What is kept of the decoding so far.
struct Decoder<'a> {
    module: &'a Module,
    steps: Vec<Step>,
    num_slots: u32,
    num_preds: u32,
    initial: Vec<(Slot, Source)>,
    constants: HashMap<Source, Slot>,
    /// Where variables of shared memory lie.
    shared: HashMap<String, u32>,
    shared_bytes: u32,
    local_bytes: u32,
    granule: u32,
    carry: Option<Pred>,
    frames: Vec<Frame<'a>>,
}

/// A function being decoded: the kernel, or what it calls.
struct Frame<'a> {
    name: String,
    /// Registers and variables by their names, one scope within another.
    scopes: Vec<Scope<'a>>,
    labels: HashMap<&'a str, u32>,
    targets: HashMap<&'a str, Vec<&'a str>>,
    /// Steps whose targets are labels that may stand further below.
    jumps: Vec<(usize, Vec<&'a str>, u32)>,
    /// Steps that go behind the call.
    returns: Vec<usize>,
    /// Where parameters lie.
    parameters: HashMap<String, Place>,
}

#[derive(Default)]
struct Scope<'a> {
    registers: HashMap<&'a str, Register>,
    /// `%r<6>`: what `%r0` to `%r5` are.
    ranges: Vec<(&'a str, Type)>,
    variables: HashMap<&'a str, Place>,
}

/// A register or a predicate, with its width.
#[derive(Clone, Copy, Debug)]
struct Register {
    number: u32,
    ty: Type,
}

/// Where a variable lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the kernel's parameters.
    Parameter(u32),
    /// In a thread's local memory.
    Local(u32),
}

/// Decodes kernel `name` of `module`.
pub(crate) fn decode(module: &Module, name: &str) -> Result<Kernel, Fault> {
    let function = module.function(name).filter(|function| function.is_kernel);
    let function = function.ok_or_else(|| Fault::new("there is no such kernel"))?;
    let mut decoder = Decoder {
        module,
        steps: Vec::new(),
        num_slots: 0,
        num_preds: 1,
        initial: Vec::new(),
        constants: HashMap::new(),
        shared: HashMap::new(),
        shared_bytes: 0,
        local_bytes: 0,
        granule: 4,
        carry: None,
        frames: Vec::new(),
    };
    let place = |one: &Parameter| (one.name.clone(), Place::Parameter(one.offset));
    decoder.function(name, function.parameters.iter().map(place).collect())?;
    decoder.push(0, Guard::ALWAYS, Op::Exit);
    Ok(Kernel {
        name: name.to_owned(),
        parameters: function.parameters.clone(),
        max_threads: function.max_threads,
        steps: decoder.steps,
        num_slots: decoder.num_slots as usize,
        num_preds: decoder.num_preds as usize,
        initial: decoder.initial,
        shared_bytes: decoder.shared_bytes,
        local_bytes: decoder.local_bytes.next_multiple_of(16),
        granule: decoder.granule,
    })
}

impl<'a> Decoder<'a> {
    /// Decodes a function in place, with its parameters where the caller put them.
    fn function(&mut self, name: &str, parameters: HashMap<String, Place>) -> Result<(), Fault> {
        if self.frames.iter().any(|frame| frame.name == name) {
            return Err(Fault::new(format_args!("{name} calls itself")));
        }
        let start = self.module.function(name).and_then(|function| function.body);
        let start = start.ok_or_else(|| Fault::new(format_args!("{name} has no body")))?;
        self.frames.push(Frame {
            name: name.to_owned(),
            scopes: vec![Scope::default()],
            labels: HashMap::new(),
            targets: HashMap::new(),
            jumps: Vec::new(),
            returns: Vec::new(),
            parameters,
        });
        let module = self.module;
        for item in items(&mut module.body(start))? {
            self.item(item)?;
        }
        let frame = self.frames.pop().expect("it was pushed above");
        self.resolve(&frame)
    }

    fn resolve(&mut self, frame: &Frame<'a>) -> Result<(), Fault> {
        let end = self.steps.len() as u32;
        for at in &frame.returns {
            self.steps[*at].op = Op::Branch(end);
        }
        for (at, labels, line) in &frame.jumps {
            let mut found = Vec::new();
            for label in labels {
                let target = frame.labels.get(label);
                found.push(*target.ok_or_else(|| Fault::at_line(*line, format_args!("no label {label}")))?);
            }
            match &mut self.steps[*at].op {
                Op::Switch { targets, .. } => *targets = found,
                op => *op = Op::Branch(found[0]),
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> &mut Frame<'a> {
        self.frames.last_mut().expect("a function is being decoded")
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        self.frame().scopes.last_mut().expect("a function has a scope")
    }

    fn item(&mut self, item: Item<'a>) -> Result<(), Fault> {
        match item {
            Item::Label(name) => {
                let here = self.steps.len() as u32;
                self.frame().labels.insert(name, here);
            }
            Item::Open => self.frame().scopes.push(Scope::default()),
            // The brace that closes the body closes no scope of its own.
            Item::Close => {
                if self.frame().scopes.len() > 1 {
                    self.frame().scopes.pop();
                }
            }
            Item::Register(ty, name, Some(_)) => self.scope().ranges.push((name, ty)),
            Item::Register(ty, name, None) => {
                let register = self.new_register(ty);
                self.scope().registers.insert(name, register);
            }
            Item::Variable(variable) => self.variable(&variable),
            Item::Targets(name, labels) => {
                self.frame().targets.insert(name, labels);
            }
            Item::Statement(statement) => {
                let line = statement.line;
                self.statement(&statement).map_err(|what| Fault::at_line(line, what))?;
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable<'a>) {
        let bytes = variable.len as u32 * variable.element.bytes();
        if variable.space == "shared" {
            self.place_shared(variable.name, bytes, variable.align);
            return;
        }
        let at = self.local_bytes.next_multiple_of(variable.align.max(1));
        self.local_bytes = at + bytes;
        self.scope().variables.insert(variable.name, Place::Local(at));
    }

    /// Where `name` lies in shared memory.
    fn place_shared(&mut self, name: &str, bytes: u32, align: u32) -> u32 {
        if let Some(at) = self.shared.get(name) {
            return *at;
        }
        let at = self.shared_bytes.next_multiple_of(align.max(1));
        self.shared_bytes = at + bytes;
        self.shared.insert(name.to_owned(), at);
        at
    }

    fn new_register(&mut self, ty: Type) -> Register {
        let next = if ty == Type::Pred { &mut self.num_preds } else { &mut self.num_slots };
        *next += 1;
        Register { number: *next - 1, ty }
    }

    fn push(&mut self, line: u32, guard: Guard, op: Op) {
        self.steps.push(Step { guard, line, op });
    }

    fn statement(&mut self, statement: &Statement<'a>) -> Result<(), String> {
        let guard = match statement.guard {
            Some((name, negated)) => Guard { pred: self.pred(name)?, invert: if negated { !0 } else { 0 } },
            None => Guard::ALWAYS,
        };
        let first = self.steps.len();
        self.instruction(statement, guard)
            .map_err(|what| format!("{} {:?}: {what}", statement.opcode, statement.operands))?;
        for step in &mut self.steps[first..] {
            if step.line == 0 {
                step.line = statement.line;
            }
        }
        Ok(())
    }
}
