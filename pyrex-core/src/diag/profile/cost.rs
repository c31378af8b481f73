//! [`Cost`]: what an operation has to compute and to move, from the shapes alone.
//!
//! It is the least that the operation's definition asks for, not what a kernel happens to do: each weight and each
//! activation crosses the memory once, however often a kernel reads it, and what stays in a cache counts too. By kind:
//!
//! - a product: `2 · rows · out · in` operations; the weights as the checkpoint stores them, what goes in, what comes out;
//! - attention: `4 · H · D` operations for each pair of a query and a key it sees; the keys and values that any query of
//!   the pass sees, once for each key head; queries and output. The softmax is not counted;
//! - a lookup: the rows it reads from its table, and what comes out;
//! - everything else (norms, gates, rotary embeddings, sums, scatters): no operations, for they are bound by moving what
//!   goes in, taken to be as large as what comes out or twice that where two tensors meet, and what comes out;
//! - a tensor that the tap before has shown already: nothing.

use super::stopwatch::Visit;
use crate::diag::bisect::place_of;
use crate::kv::{KvLayer, KvLayout};
use crate::models::Model;
use crate::weights::{UsedWeight, WeightUse};
use std::iter::Sum;
use std::ops::Add;

/// Taps that two tensors go into: gates and sums. A whole layer's output is a sum too.
const MEETINGS: [&str; 4] = [
    ".down_proj.input",
    ".per_layer_projection.input",
    ".pre_feedforward_layernorm.input",
    ".per_layer_input_gate.input",
];

/// What an operation is, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Rows times a matrix of weights.
    Product,
    /// Queries over keys and values.
    Attention,
    /// Rows of a table.
    Lookup,
    /// Whatever is bound by moving its tensors.
    Elementwise,
    /// The tensor of the tap before, under another name.
    Shown,
}

/// Operations and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations, a multiply-add counting as two.
    pub flops: u64,
    /// Bytes in and out, weights included.
    pub bytes: u64,
    /// Those of weights.
    pub weight_bytes: u64,
}

impl OperationKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Attention => "attention",
            Self::Lookup => "lookup",
            Self::Elementwise => "elementwise",
            Self::Shown => "shown",
        }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            flops: self.flops + other.flops,
            bytes: self.bytes + other.bytes,
            weight_bytes: self.weight_bytes + other.weight_bytes,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// What the queries of a pass see.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight<'a> {
    /// All patches of their own image; so many each.
    Images(&'a [usize]),
    /// The tokens before them and themselves; the pass ends before this position.
    Tokens { end: usize },
}

/// What was done for `visit`, and what that costs.
pub(super) fn cost(model: &dyn Model, sight: Sight<'_>, visit: &Visit) -> (OperationKind, Cost) {
    if visit.shown_before {
        return (OperationKind::Shown, Cost::default());
    }
    if let Some(attention) = attention(model, sight, visit) {
        return (OperationKind::Attention, attention);
    }
    match model.weight_of(&visit.name) {
        Some(used) if used.how == WeightUse::Product => (OperationKind::Product, product(used, visit)),
        Some(used) if used.how == WeightUse::Rows => (OperationKind::Lookup, lookup(used, visit)),
        used => (OperationKind::Elementwise, elementwise(used, visit)),
    }
}

fn product(UsedWeight { weight, .. }: UsedWeight<'_>, visit: &Visit) -> Cost {
    let [num_rows, cols] = [0, 1].map(|axis| weight.shape.get(axis).copied().unwrap_or(1).max(1) as u64);
    let out = visit.shape.last().copied().unwrap_or(1).max(1) as u64;
    let rows = num_elements(visit) / out;
    // Some of the matrix's rows alone may have been asked for.
    let weight_bytes = weight.num_bytes / num_rows * out;
    Cost {
        flops: 2 * rows * out * cols,
        bytes: weight_bytes + rows * (cols + out) * size(visit),
        weight_bytes,
    }
}

fn lookup(UsedWeight { weight, .. }: UsedWeight<'_>, visit: &Visit) -> Cost {
    let weight_bytes = weight.num_bytes / weight.num_elements().max(1) as u64 * num_elements(visit);
    Cost { flops: 0, bytes: weight_bytes + num_elements(visit) * size(visit), weight_bytes }
}

fn elementwise(used: Option<UsedWeight<'_>>, visit: &Visit) -> Cost {
    let weight_bytes = used.map_or(0, |used| used.weight.num_bytes);
    let (layer, operation) = place_of(&visit.name);
    let whole_layer = layer.is_some() && operation.is_empty();
    let meets = whole_layer || MEETINGS.iter().any(|tap| visit.name.ends_with(tap));
    let moved = if meets { 3 } else { 2 } * num_elements(visit) * size(visit);
    Cost { flops: 0, bytes: weight_bytes + moved, weight_bytes }
}

/// Nothing if it is none, or in a layer that the cache does not know.
fn attention(model: &dyn Model, sight: Sight<'_>, visit: &Visit) -> Option<Cost> {
    let (Some(layer), "self_attn.o_proj.input") = place_of(&visit.name) else { return None };
    let &[rows, width] = visit.shape.as_slice() else { return None };
    let (num_pairs, kv_bytes) = match sight {
        Sight::Images(patches) => {
            (patches.iter().map(|n| n * n).sum(), 2 * (rows * width) as u64 * size(visit))
        }
        Sight::Tokens { end } => {
            let (kv_width, window) = keys(&model.spec().kv, layer)?;
            let (first, window) = (end.checked_sub(rows)?, window.unwrap_or(usize::MAX));
            let num_pairs = (first..end).map(|position| window.min(position + 1)).sum();
            let num_keys = end - (first + 1).saturating_sub(window);
            let element = model.spec().dtype.size_in_bytes();
            (num_pairs, (2 * num_keys * kv_width * element) as u64)
        }
    };
    let (num_pairs, width): (usize, usize) = (num_pairs, width);
    let queries_and_output = 2 * num_elements(visit) * size(visit);
    Some(Cost {
        flops: 4 * (width * num_pairs) as u64,
        bytes: kv_bytes + queries_and_output,
        weight_bytes: 0,
    })
}

/// Elements of one token's keys in the layer that `layer` reads, over all heads, and how far back it sees.
fn keys(layout: &KvLayout, layer: usize) -> Option<(usize, Option<usize>)> {
    match *layout.layers.get(layer)? {
        KvLayer::Owns { num_key_value_heads, head_dim, window } => {
            Some((num_key_value_heads * head_dim, window))
        }
        KvLayer::Reads { layer_idx } if layer_idx < layer => keys(layout, layer_idx),
        KvLayer::Reads { .. } => None,
    }
}

fn num_elements(visit: &Visit) -> u64 {
    visit.shape.iter().product::<usize>() as u64
}

/// Bytes of an element of an activation.
fn size(visit: &Visit) -> u64 {
    visit.dtype.size_in_bytes() as u64
}

#[cfg(test)]
mod tests;
