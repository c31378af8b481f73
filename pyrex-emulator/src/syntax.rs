//! Reads a function's body, statement by statement, without knowing what instructions mean.

use crate::fault::Fault;
use crate::lexer::{Lexer, Token};
use crate::types::Type;

/// What an instruction is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, a symbol, a label or a number.
    Word(&'a str),
    /// A number with a minus.
    Negative(&'a str),
    /// `[base + offset]`.
    Address(&'a str, i64),
    /// `symbol + offset`.
    Sum(&'a str, i64),
    /// `{a, b}`
    Group(Vec<Operand<'a>>),
    /// `(a, b)`
    List(Vec<Operand<'a>>),
    /// `a|b`
    Pair(&'a str, &'a str),
    /// `!a`
    Not(&'a str),
}

/// An instruction as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement<'a> {
    /// Its line in the PTX.
    pub(crate) line: u32,
    /// `@p` or `@!p`: the predicate, and whether it must be false.
    pub(crate) guard: Option<(&'a str, bool)>,
    /// The opcode with all its modifiers.
    pub(crate) opcode: &'a str,
    /// What it is given.
    pub(crate) operands: Vec<Operand<'a>>,
}

/// A variable: `.shared .align 16 .b8 name[64]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable<'a> {
    /// `shared`, `global`, `const`, `local` or `param`.
    pub(crate) space: &'a str,
    /// Whether somebody else has it: dynamic shared memory.
    pub(crate) is_extern: bool,
    /// At which multiple of bytes it lies.
    pub(crate) align: u32,
    /// What its elements are.
    pub(crate) element: Type,
    /// Its name.
    pub(crate) name: &'a str,
    /// How many elements it has; 0 if that is left open.
    pub(crate) len: u64,
    /// What it begins with.
    pub(crate) initial: Vec<Initial<'a>>,
}

/// A number, or the address of a symbol with what is added to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Initial<'a> {
    /// As it is written, with its minus.
    Number(bool, &'a str),
    /// An address.
    Symbol(&'a str, i64),
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// `name:`
    Label(&'a str),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `.reg .b32 %r<6>`: the type, the name, and how many if it is a range.
    Register(Type, &'a str, Option<u64>),
    /// A variable.
    Variable(Variable<'a>),
    /// `name: .branchtargets a, b, c;`
    Targets(&'a str, Vec<&'a str>),
    /// An instruction.
    Statement(Statement<'a>),
}

/// Reads the items of a body; registers of one directive come as several.
pub(crate) fn items<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Item<'a>>, Fault> {
    let mut items = Vec::new();
    let mut depth = 1;
    while depth > 0 {
        match lexer.peek() {
            Some(Token::Mark('{')) => {
                lexer.next();
                depth += 1;
                items.push(Item::Open);
            }
            Some(Token::Mark('}')) => {
                lexer.next();
                depth -= 1;
                items.push(Item::Close);
            }
            Some(Token::Mark(';')) => {
                lexer.next();
            }
            Some(Token::Word(word)) if word.starts_with('.') => directive(lexer, &mut items)?,
            Some(_) => items.push(labelled(lexer)?),
            None => return Err(lexer.unexpected("the end of a body")),
        }
    }
    Ok(items)
}

fn directive<'a>(lexer: &mut Lexer<'a>, items: &mut Vec<Item<'a>>) -> Result<(), Fault> {
    let before = lexer.clone();
    match lexer.word()? {
        ".reg" => registers(lexer, items),
        ".shared" | ".local" | ".param" | ".global" | ".const" | ".extern" => {
            *lexer = before;
            items.extend(variables(lexer)?.into_iter().map(Item::Variable));
            Ok(())
        }
        // Hints to an optimizer.
        _ => {
            while !matches!(lexer.next(), Some(Token::Mark(';')) | None) {}
            Ok(())
        }
    }
}

fn registers<'a>(lexer: &mut Lexer<'a>, items: &mut Vec<Item<'a>>) -> Result<(), Fault> {
    let name = lexer.word()?;
    let element = Type::named(&name[1..]).ok_or_else(|| lexer.unexpected("a type of registers"))?;
    loop {
        let name = lexer.word()?;
        let count = match lexer.take('<') {
            true => {
                let count = lexer.count()?;
                lexer.expect('>')?;
                Some(count)
            }
            false => None,
        };
        items.push(Item::Register(element, name, count));
        if !lexer.take(',') {
            return lexer.expect(';');
        }
    }
}

/// Reads a directive that declares variables, up to its semicolon.
pub(crate) fn variables<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Variable<'a>>, Fault> {
    let mut found = Vec::new();
    let mut last = variable(lexer)?;
    while lexer.take(',') {
        let name = lexer.word()?;
        let next = Variable { name, initial: Vec::new(), ..last.clone() };
        found.push(std::mem::replace(&mut last, shape(lexer, next)?));
    }
    found.push(last);
    lexer.expect(';')?;
    Ok(found)
}

/// Reads one variable with all that stands before its name.
pub(crate) fn variable<'a>(lexer: &mut Lexer<'a>) -> Result<Variable<'a>, Fault> {
    let mut variable = Variable {
        space: "",
        is_extern: false,
        align: 0,
        element: Type::B(8),
        name: "",
        len: 1,
        initial: Vec::new(),
    };
    loop {
        let word = lexer.word()?;
        match word {
            ".extern" => variable.is_extern = true,
            ".visible" | ".weak" | ".common" | ".ptr" => {}
            ".global" | ".shared" | ".const" | ".local" | ".param" if variable.space.is_empty() => {
                variable.space = &word[1..];
            }
            // Where a pointer points to.
            ".global" | ".shared" | ".const" | ".local" => {}
            ".align" => variable.align = variable.align.max(lexer.count()? as u32),
            ".attribute" => while !lexer.take(')') && lexer.next().is_some() {},
            _ if word.starts_with('.') => {
                variable.element =
                    Type::named(&word[1..]).ok_or_else(|| lexer.unexpected(&format!("no {word}")))?;
            }
            name => {
                variable.name = name;
                return shape(lexer, variable);
            }
        }
    }
}

fn shape<'a>(lexer: &mut Lexer<'a>, mut variable: Variable<'a>) -> Result<Variable<'a>, Fault> {
    variable.len = 1;
    while lexer.take('[') {
        if lexer.take(']') {
            variable.len = 0;
            continue;
        }
        variable.len *= lexer.count()?;
        lexer.expect(']')?;
    }
    variable.align = variable.align.max(variable.element.bytes());
    if lexer.take('=') {
        initial(lexer, &mut variable.initial)?;
        variable.len = variable.len.max(variable.initial.len() as u64);
    }
    Ok(variable)
}

fn initial<'a>(lexer: &mut Lexer<'a>, values: &mut Vec<Initial<'a>>) -> Result<(), Fault> {
    if lexer.take('{') {
        while !lexer.take('}') {
            initial(lexer, values)?;
            lexer.take(',');
        }
        return Ok(());
    }
    let negative = lexer.take('-');
    let mut word = lexer.word()?;
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        values.push(Initial::Number(negative, word));
        return Ok(());
    }
    if word == "generic" && lexer.take('(') {
        word = lexer.word()?;
        lexer.expect(')')?;
    }
    values.push(Initial::Symbol(word, offset(lexer)?));
    Ok(())
}

fn labelled<'a>(lexer: &mut Lexer<'a>) -> Result<Item<'a>, Fault> {
    let mut ahead = lexer.clone();
    if let (Some(Token::Word(name)), Some(Token::Mark(':'))) = (ahead.next(), ahead.next()) {
        *lexer = ahead;
        return match lexer.peek() {
            Some(Token::Word(".branchtargets")) => {
                lexer.next();
                let mut targets = vec![lexer.word()?];
                while lexer.take(',') {
                    targets.push(lexer.word()?);
                }
                Ok(Item::Targets(name, targets))
            }
            Some(Token::Word(".callprototype" | ".calltargets")) => {
                while !matches!(lexer.next(), Some(Token::Mark(';')) | None) {}
                Ok(Item::Label(name))
            }
            _ => Ok(Item::Label(name)),
        };
    }
    statement(lexer).map(Item::Statement)
}

fn statement<'a>(lexer: &mut Lexer<'a>) -> Result<Statement<'a>, Fault> {
    let guard = match lexer.take('@') {
        true => {
            let negated = lexer.take('!');
            Some((lexer.word()?, negated))
        }
        false => None,
    };
    let opcode = lexer.word()?;
    let line = lexer.line();
    let mut operands = Vec::new();
    while !lexer.take(';') {
        operands.push(operand(lexer)?);
        if !lexer.take(',') && lexer.peek() != Some(Token::Mark(';')) {
            return Err(lexer.unexpected("',' or ';'"));
        }
    }
    Ok(Statement { line, guard, opcode, operands })
}

fn operand<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, Fault> {
    if lexer.take('{') {
        return list(lexer, '}').map(Operand::Group);
    }
    if lexer.take('(') {
        return list(lexer, ')').map(Operand::List);
    }
    if lexer.take('[') {
        let base = lexer.word()?;
        let offset = offset(lexer)?;
        lexer.expect(']')?;
        return Ok(Operand::Address(base, offset));
    }
    if lexer.take('!') {
        return lexer.word().map(Operand::Not);
    }
    if lexer.take('-') {
        return lexer.word().map(Operand::Negative);
    }
    let word = lexer.word()?;
    if lexer.take('|') {
        return Ok(Operand::Pair(word, lexer.word()?));
    }
    match lexer.peek() {
        Some(Token::Mark('+')) => Ok(Operand::Sum(word, offset(lexer)?)),
        _ => Ok(Operand::Word(word)),
    }
}

fn list<'a>(lexer: &mut Lexer<'a>, end: char) -> Result<Vec<Operand<'a>>, Fault> {
    let mut operands = Vec::new();
    while !lexer.take(end) {
        operands.push(operand(lexer)?);
        lexer.take(',');
    }
    Ok(operands)
}

/// `+ 8`, `+-8`, `- 8`, or nothing.
fn offset(lexer: &mut Lexer<'_>) -> Result<i64, Fault> {
    let plus = lexer.take('+');
    let minus = lexer.take('-');
    if !plus && !minus {
        return Ok(0);
    }
    let count = lexer.count()? as i64;
    Ok(if minus { -count } else { count })
}
