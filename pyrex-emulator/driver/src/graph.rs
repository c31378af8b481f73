//! Graphs: what a capture recorded, to be done again and again.

use crate::driver::{Driver, Handle, refuse};
use crate::order::{Clock, StreamId};
use crate::status::{Outcome, Status};
use crate::work::Work;
use pyrex_emulator::Module;
use std::collections::HashMap;
use std::sync::Arc;

/// What was recorded.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// The stream that was captured; others have joined it.
    pub(crate) origin: Option<StreamId>,
    pub(crate) nodes: Vec<Node>,
    /// Addresses and bytes.
    pub(crate) allocations: Vec<(u64, u64)>,
}

/// One step, and the stream it was put on.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) branch: StreamId,
    pub(crate) step: Step,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Something is done.
    Work(Work),
    /// An event is recorded.
    Record(u64),
    /// One is waited for.
    Wait(u64),
}

/// A graph that can be launched.
#[derive(Debug)]
pub(crate) struct Executable {
    origin: Option<StreamId>,
    nodes: Arc<[Node]>,
    allocations: Vec<(u64, u64)>,
    /// Whether a launch frees what the last one left allocated.
    frees_on_launch: bool,
}

impl Graph {
    /// How many nodes CUDA would count.
    pub(crate) fn len(&self) -> usize {
        self.nodes.iter().filter(|node| matches!(node.step, Step::Work(_))).count()
    }
}

impl Executable {
    /// Whether a kernel of `module` is among the nodes.
    pub(crate) fn has_kernels_of(&self, module: &Arc<Module>) -> bool {
        self.nodes.iter().any(|node| match &node.step {
            Step::Work(Work::Launch(launch)) => Arc::ptr_eq(&launch.module, module),
            _ => false,
        })
    }
}

impl Driver {
    /// Makes a graph one that can be launched.
    ///
    /// # Errors
    /// `INVALID_VALUE` for unknown flags.
    pub(crate) fn instantiate(&mut self, graph: Handle, flags: u64) -> Outcome<Handle> {
        const AUTO_FREE_ON_LAUNCH: u64 = 1;
        const UPLOAD: u64 = 2;
        const USE_NODE_PRIORITY: u64 = 8;
        if flags & !(AUTO_FREE_ON_LAUNCH | UPLOAD | USE_NODE_PRIORITY) != 0 {
            return refuse(
                Status::INVALID_VALUE,
                format_args!("a graph is instantiated with flags {flags:#x}"),
            );
        }
        let graph = self.graphs.get(&graph).ok_or(Status::INVALID_HANDLE)?;
        let executable = Executable {
            origin: graph.origin,
            nodes: graph.nodes.clone().into(),
            allocations: graph.allocations.clone(),
            frees_on_launch: flags & AUTO_FREE_ON_LAUNCH != 0,
        };
        let handle = self.next_handle();
        self.executables.insert(handle, executable);
        Ok(handle)
    }

    /// Does all that was recorded, after what is on the stream.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the last launch left memory allocated, and the graph was not told to free it; what the work says.
    pub(crate) fn launch_graph(&mut self, executable: Handle, stream: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        let executable = self.executables.get(&executable).ok_or(Status::INVALID_HANDLE)?;
        let (origin, nodes, frees) =
            (executable.origin, Arc::clone(&executable.nodes), executable.frees_on_launch);
        let left = executable.allocations.iter().map(|(address, _)| *address);
        let left: Vec<u64> = left.filter(|address| self.memory.owner(*address).is_some()).collect();
        if self.capturing(stream)?.is_some() {
            return refuse(
                Status::NOT_SUPPORTED,
                "a graph is launched into a capture, which the emulator cannot do",
            );
        }
        if !frees && !left.is_empty() {
            return refuse(
                Status::INVALID_VALUE,
                "a graph is launched again before the memory of its last launch was freed",
            );
        }
        for address in left {
            self.perform(stream, &Work::Free { address })?;
        }
        self.report.counters.graph_launches += 1;
        let (_, start) = self.begin(stream);
        let mut branches = HashMap::from([(origin, stream)]);
        let mut records: HashMap<u64, Clock> = HashMap::new();
        for node in &*nodes {
            let branch = match branches.get(&Some(node.branch)) {
                Some(branch) => *branch,
                None => {
                    let branch = StreamId(self.next_handle());
                    self.clocks.insert(branch, start.clone());
                    branches.insert(Some(node.branch), branch);
                    branch
                }
            };
            match &node.step {
                Step::Work(work) => self.perform(branch, work)?,
                Step::Record(record) => drop(records.insert(*record, self.begin(branch).1)),
                Step::Wait(record) => self.clocks.entry(branch).or_default().join(&records[record]),
            }
        }
        Ok(())
    }
}
