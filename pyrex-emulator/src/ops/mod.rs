//! What instructions compute, lane by lane, apart from where their operands are.

pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod rounding;

use crate::lanes::Map;
use crate::types::Type;

/// A computation with the types of what it takes.
pub(crate) struct Arithmetic {
    pub(crate) f: Map,
    pub(crate) sources: Vec<Type>,
}

impl Arithmetic {
    /// One that takes `count` numbers of the type that it gives.
    pub(crate) fn uniform(f: Map, ty: Type, count: usize) -> Option<Self> {
        Some(Self { f, sources: vec![ty; count] })
    }
}

/// An opcode: what stands before the first dot, and its modifiers.
#[derive(Clone, Debug)]
pub(crate) struct Opcode<'a> {
    pub(crate) base: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
}

impl<'a> Opcode<'a> {
    /// Cuts `text` at its dots; of `shared::cta` only `shared` is kept.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut parts = text.split('.').map(|part| part.split("::").next().unwrap_or(part));
        Self { base: parts.next().unwrap_or(text), modifiers: parts.collect() }
    }

    /// Whether it has `modifier`.
    pub(crate) fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// The types among its modifiers, in order.
    pub(crate) fn types(&self) -> Vec<Type> {
        self.modifiers.iter().filter_map(|modifier| Type::named(modifier)).collect()
    }

    /// The last type.
    pub(crate) fn ty(&self) -> Option<Type> {
        self.types().pop()
    }
}
