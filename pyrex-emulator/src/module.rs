//! [`Module`]: PTX cut into functions and variables. Bodies are read when a kernel is first launched.

use crate::decode::decode;
use crate::fault::Fault;
use crate::kernel::Kernel;
use crate::lexer::{Lexer, Token, integer};
use crate::syntax::{Initial, Variable, variable, variables};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A module of PTX, parsed.
#[derive(Debug)]
pub struct Module {
    id: u64,
    text: String,
    functions: HashMap<String, Function>,
    variables: Vec<Global>,
    kernels: Mutex<HashMap<String, Arc<Kernel>>>,
}

/// What is known of a kernel before it is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its name.
    pub name: String,
    /// How many bytes each parameter has.
    pub parameter_sizes: Vec<usize>,
}

/// A function or kernel whose body nobody has read.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Whether it can be launched.
    pub(crate) is_kernel: bool,
    /// What it returns.
    pub(crate) results: Vec<Parameter>,
    /// What it takes.
    pub(crate) parameters: Vec<Parameter>,
    /// `.maxntid`, or `.reqntid`.
    pub(crate) max_threads: Option<u64>,
    /// Where its body begins, behind the brace: byte and line.
    pub(crate) body: Option<(usize, u32)>,
}

/// A parameter: where it lies among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// A variable of the module.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) align: u32,
    pub(crate) bytes: u64,
    /// What it begins with.
    pub(crate) initial: Vec<u8>,
    /// Where the address of another one stands in it: offset, name, what is added.
    pub(crate) addresses: Vec<(usize, String, i64)>,
}

/// Where a variable of a module lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// `.global`
    Global,
    /// `.const`
    Constant,
    /// `.shared`
    Shared,
    /// `.extern .shared`: behind all that is declared.
    DynamicShared,
}

impl Module {
    /// Reads PTX.
    ///
    /// # Errors
    /// Where something is not known.
    pub fn parse(ptx: &str) -> Result<Self, Fault> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut module = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            text: ptx.trim_end_matches('\0').to_owned(),
            functions: HashMap::new(),
            variables: Vec::new(),
            kernels: Mutex::default(),
        };
        let text = module.text.clone();
        let mut lexer = Lexer::new(&text, 0, 1);
        while lexer.peek().is_some() {
            module.directive(&mut lexer)?;
        }
        Ok(module)
    }

    /// The kernels that can be launched, by name.
    pub fn kernels(&self) -> Vec<KernelInfo> {
        let kernels = self.functions.iter().filter(|(_, function)| function.is_kernel);
        let mut kernels: Vec<_> = kernels
            .map(|(name, function)| KernelInfo {
                name: name.clone(),
                parameter_sizes: function.parameters.iter().map(|one| one.bytes as usize).collect(),
            })
            .collect();
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        kernels
    }

    /// How many bytes of shared memory `kernel` declares.
    ///
    /// # Errors
    /// If there is no such kernel, or something in it is not known.
    pub fn shared_bytes(&self, kernel: &str) -> Result<u32, Fault> {
        self.kernel(kernel).map(|kernel| kernel.shared_bytes)
    }

    /// What distinguishes this module from all others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The kernel `name`, decoded once.
    pub(crate) fn kernel(&self, name: &str) -> Result<Arc<Kernel>, Fault> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(Arc::clone(kernel));
        }
        let kernel = decode(self, name)
            .map_err(|fault| Fault::new(format_args!("kernel {name}: {fault}")))
            .map(Arc::new)?;
        kernels.insert(name.to_owned(), Arc::clone(&kernel));
        Ok(kernel)
    }

    /// The function `name`.
    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// The variable `name`, and its number.
    pub(crate) fn variable(&self, name: &str) -> Option<(usize, &Global)> {
        self.variables.iter().enumerate().find(|(_, variable)| variable.name == name)
    }

    /// All variables.
    pub(crate) fn variables(&self) -> &[Global] {
        &self.variables
    }

    /// A reader of the body that begins at `start`.
    pub(crate) fn body(&self, start: (usize, u32)) -> Lexer<'_> {
        Lexer::new(&self.text, start.0, start.1)
    }

    fn directive(&mut self, lexer: &mut Lexer<'_>) -> Result<(), Fault> {
        let before = lexer.clone();
        loop {
            match lexer.next() {
                Some(Token::Word(".visible" | ".weak" | ".extern" | ".common")) => {}
                Some(Token::Word(".entry")) => return self.read_function(lexer, true),
                Some(Token::Word(".func")) => return self.read_function(lexer, false),
                Some(Token::Word(".global" | ".const" | ".shared")) => {
                    *lexer = before;
                    let found = variables(lexer)?;
                    return found.iter().try_for_each(|one| self.declare(one, lexer.line()));
                }
                Some(Token::Word(".version" | ".target" | ".address_size")) => {
                    lexer.word()?;
                    while lexer.take(',') {
                        lexer.word()?;
                    }
                    return Ok(());
                }
                Some(Token::Word(".file")) => {
                    // `.file 1 "name", 123, 456`
                    lexer.word()?;
                    lexer.next();
                    while lexer.take(',') {
                        lexer.word()?;
                    }
                    return Ok(());
                }
                // `.section .debug_…  { … }`
                Some(Token::Mark('{')) => return lexer.skip_block(),
                Some(Token::Mark(';')) => return Ok(()),
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    fn read_function(&mut self, lexer: &mut Lexer<'_>, is_kernel: bool) -> Result<(), Fault> {
        let results = if lexer.peek() == Some(Token::Mark('(')) { parameters(lexer)? } else { Vec::new() };
        let name = lexer.word()?.to_owned();
        let parameters = parameters(lexer)?;
        let mut function = Function { is_kernel, results, parameters, max_threads: None, body: None };
        loop {
            match lexer.next() {
                Some(Token::Word(".maxntid" | ".reqntid")) => {
                    let mut threads = lexer.count()?;
                    while lexer.take(',') {
                        threads *= lexer.count()?;
                    }
                    function.max_threads = Some(threads);
                }
                Some(Token::Mark('{')) => {
                    function.body = Some((lexer.at(), lexer.line()));
                    lexer.skip_block()?;
                    break;
                }
                Some(Token::Mark(';')) => break,
                Some(_) => {}
                None => return Err(lexer.unexpected("a body")),
            }
        }
        // What was only declared before has its body now.
        if function.body.is_some() || !self.functions.contains_key(&name) {
            self.functions.insert(name, function);
        }
        Ok(())
    }

    fn declare(&mut self, variable: &Variable<'_>, line: u32) -> Result<(), Fault> {
        let space = match (variable.space, variable.is_extern) {
            ("global", _) => Space::Global,
            ("const", _) => Space::Constant,
            ("shared", true) => Space::DynamicShared,
            _ => Space::Shared,
        };
        let bytes = variable.len * u64::from(variable.element.bytes());
        let mut initial = Vec::new();
        let mut addresses = Vec::new();
        for value in &variable.initial {
            let bits = match value {
                Initial::Number(negative, word) => number(variable, *negative, word).ok_or_else(|| {
                    Fault::at_line(line, format_args!("{word} is no {:?}", variable.element))
                })?,
                Initial::Symbol(name, offset) => {
                    addresses.push((initial.len(), (*name).to_owned(), *offset));
                    0
                }
            };
            initial.extend_from_slice(&bits.to_le_bytes()[..variable.element.bytes() as usize]);
        }
        let (name, align) = (variable.name.to_owned(), variable.align);
        self.variables.push(Global { name, space, align, bytes, initial, addresses });
        Ok(())
    }
}

fn number(variable: &Variable<'_>, negative: bool, word: &str) -> Option<u64> {
    match variable.element.is_float() {
        true => variable.element.literal(&format!("{}{word}", if negative { "-" } else { "" })),
        false => integer(word).map(|bits| if negative { bits.wrapping_neg() } else { bits }),
    }
}

/// Reads `(.param .u64 a, .param .align 4 .b8 b[12])`, and lays them out.
fn parameters(lexer: &mut Lexer<'_>) -> Result<Vec<Parameter>, Fault> {
    let mut parameters = Vec::new();
    let mut offset = 0u32;
    if !lexer.take('(') {
        return Ok(parameters);
    }
    while !lexer.take(')') {
        let one = variable(lexer)?;
        let bytes = one.len as u32 * one.element.bytes();
        offset = offset.next_multiple_of(one.align.max(1));
        parameters.push(Parameter { name: one.name.to_owned(), offset, bytes });
        offset += bytes;
        lexer.take(',');
    }
    Ok(parameters)
}
