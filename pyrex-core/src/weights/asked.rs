//! [`Asked`]: what a model asked its checkpoint for, and what a part of it does with it.

/// A tensor that a model asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The bytes it takes in the checkpoint; without files, as much as dummy weights and published checkpoints take.
    pub num_bytes: u64,
}

impl Asked {
    /// How many elements it has.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A weight, and what the operation that is shown under some name does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedWeight<'a> {
    /// The weight.
    pub weight: &'a Asked,
    /// What is done with it.
    pub how: WeightUse,
}

/// What an operation does with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightUse {
    /// Multiplies `[out, in]` with what goes in; with its first rows alone if fewer come out.
    Product,
    /// Looks some of its rows up.
    Rows,
    /// Scales what goes in.
    Scale,
}
