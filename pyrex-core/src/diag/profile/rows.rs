//! [`ProfileRow`]: the operations of a pass, summed as a reader wants them.

use super::{Bound, Ceilings, Cost, Operation, ProfilePhase};
use crate::trace::Origin;

/// What goes into one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// The same operation of all layers of a stage.
    #[default]
    Operation,
    /// All of a layer; what stands in none, by its stage.
    Layer,
    /// All of a stage.
    Stage,
}

/// Some operations as one.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// Their stage.
    pub stage: &'static str,
    /// Their layer, if they have one in common.
    pub layer: Option<usize>,
    /// What they are called inside their layers, if they are one; empty for a whole layer's output.
    pub operation: Option<String>,
    /// Who shows them, if they are one.
    pub origin: Option<Origin>,
    /// How often they are shown in a pass.
    pub calls: usize,
    /// The time of all of them.
    pub time_ms: f64,
    /// The cost of all of them.
    pub cost: Cost,
    /// The time that each, bound by its nearer ceiling, would take, all of them together; if the ceilings are known.
    pub ideal_ms: Option<f64>,
    /// Where most of that time would go.
    pub bound: Option<Bound>,
}

impl ProfileRow {
    /// Floating-point operations per second.
    pub fn flops_per_s(&self) -> f64 {
        self.cost.flops as f64 / self.time_ms * 1e3
    }

    /// Bytes per second.
    pub fn bytes_per_s(&self) -> f64 {
        self.cost.bytes as f64 / self.time_ms * 1e3
    }

    /// How near it comes to its ceiling, 1 being there. More than that where weights or activations were in a cache.
    pub fn share_of_ceiling(&self) -> Option<f64> {
        self.ideal_ms.map(|ideal_ms| ideal_ms / self.time_ms).filter(|share| share.is_finite())
    }
}

impl ProfilePhase {
    /// The operations in rows, those that take longest first.
    pub fn rows(&self, by: GroupBy, ceilings: Option<&Ceilings>) -> Vec<ProfileRow> {
        let mut groups: Vec<(Key<'_>, Vec<&Operation>)> = Vec::new();
        for operation in &self.operations {
            let key = key(by, operation);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, group)) => group.push(operation),
                None => groups.push((key, vec![operation])),
            }
        }
        let mut rows: Vec<ProfileRow> =
            groups.iter().map(|(key, group)| row(*key, group, ceilings)).collect();
        rows.sort_by(|a, b| b.time_ms.total_cmp(&a.time_ms));
        rows
    }

    /// All operations as one row.
    pub fn total(&self, ceilings: Option<&Ceilings>) -> ProfileRow {
        row(Key { stage: "total", layer: None, operation: None }, &self.operations, ceilings)
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Key<'a> {
    stage: &'static str,
    layer: Option<usize>,
    operation: Option<(&'a str, bool)>,
}

fn key(by: GroupBy, operation: &Operation) -> Key<'_> {
    let stage = operation.stage;
    let named = (operation.operation.as_str(), operation.layer.is_some());
    match by {
        GroupBy::Operation => Key { stage, layer: None, operation: Some(named) },
        GroupBy::Layer => Key { stage, layer: operation.layer, operation: None },
        GroupBy::Stage => Key { stage, layer: None, operation: None },
    }
}

fn row<O: std::borrow::Borrow<Operation>>(
    key: Key<'_>,
    group: &[O],
    ceilings: Option<&Ceilings>,
) -> ProfileRow {
    let group = || group.iter().map(O::borrow);
    let ideal = |ceilings: &Ceilings| -> (f64, f64) {
        group().fold((0.0, 0.0), |(arithmetic, memory), operation| match ceilings.ideal_ms(operation.cost) {
            (ms, Bound::Arithmetic) => (arithmetic + ms, memory),
            (ms, Bound::Memory) => (arithmetic, memory + ms),
        })
    };
    let ideal = ceilings.map(ideal);
    ProfileRow {
        stage: key.stage,
        layer: key.layer,
        operation: key.operation.map(|(name, _)| name.to_string()),
        origin: key.operation.and_then(|_| group().next()).map(|operation| operation.origin),
        calls: group().count(),
        time_ms: group().map(|operation| operation.time_ms).sum(),
        cost: group().map(|operation| operation.cost).sum(),
        ideal_ms: ideal.map(|(arithmetic, memory)| arithmetic + memory),
        bound: ideal.map(
            |(arithmetic, memory)| {
                if arithmetic > memory { Bound::Arithmetic } else { Bound::Memory }
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::profile::OperationKind;

    fn operation(layer: Option<usize>, name: &str, time_ms: f64, flops: u64) -> Operation {
        Operation {
            tap: String::new(),
            stage: "decoder",
            layer,
            operation: name.to_string(),
            origin: Origin { file: "nn/linear.rs", line: 1, function: "nn::linear::Linear::forward" },
            kind: OperationKind::Product,
            time_ms,
            cost: Cost { flops, bytes: 100, weight_bytes: 10 },
        }
    }

    fn phase() -> ProfilePhase {
        let operations = vec![
            operation(Some(0), "q_proj", 1.0, 2000),
            operation(Some(0), "norm", 5.0, 0),
            operation(Some(1), "q_proj", 2.0, 4000),
            operation(Some(1), "norm", 1.0, 0),
            operation(None, "norm", 0.5, 0),
        ];
        ProfilePhase { wall_ms: 10.0, overhead_ms: 0.1, explained: 0.95, operations }
    }

    #[test]
    fn rows_sum_alike_however_they_are_grouped() {
        for (by, num_rows) in [(GroupBy::Operation, 3), (GroupBy::Layer, 3), (GroupBy::Stage, 1)] {
            let rows = phase().rows(by, None);
            assert_eq!(rows.len(), num_rows, "{by:?}");
            assert_eq!(rows.iter().map(|row| row.calls).sum::<usize>(), 5);
            assert_eq!(rows.iter().map(|row| row.cost).sum::<Cost>(), phase().total(None).cost);
            assert!(rows.windows(2).all(|pair| pair[0].time_ms >= pair[1].time_ms));
        }
    }

    #[test]
    fn a_row_is_measured_against_the_ceilings_of_its_parts() {
        // An operation takes 2 ms per 1000 flops, or 1 ms for its 100 bytes.
        let ceilings = Ceilings { flops_per_s: 500e3, bytes_per_s: 100e3 };
        let rows = phase().rows(GroupBy::Operation, Some(&ceilings));
        let names: Vec<_> = rows.iter().map(|row| row.operation.as_deref()).collect();
        assert_eq!(names, [Some("norm"), Some("q_proj"), Some("norm")]);
        assert_eq!((rows[0].ideal_ms, rows[0].bound), (Some(2.0), Some(Bound::Memory)));
        assert_eq!((rows[1].ideal_ms, rows[1].bound), (Some(12.0), Some(Bound::Arithmetic)));
        assert_eq!(rows[1].share_of_ceiling(), Some(4.0));
        assert_eq!((rows[1].flops_per_s(), rows[1].bytes_per_s()), (2e6, 200e3 / 3.0));
        let total = phase().total(Some(&ceilings));
        assert_eq!((total.ideal_ms, total.bound), (Some(15.0), Some(Bound::Arithmetic)));
    }
}
