//! [`Kernel`]: a kernel decoded: registers are numbers, labels are steps, functions stand where they were called.

use crate::lanes::{Map, Mask, Test};
use crate::module::Parameter;
use std::fmt;

/// The number of a register, of a constant, or of what a special register holds.
pub(crate) type Slot = u32;

/// The number of a predicate; 0 is always true.
pub(crate) type Pred = u32;

/// A kernel decoded.
pub(crate) struct Kernel {
    /// Its name.
    pub(crate) name: String,
    /// What it takes.
    pub(crate) parameters: Vec<Parameter>,
    /// `.maxntid`
    pub(crate) max_threads: Option<u64>,
    /// Its instructions.
    pub(crate) steps: Vec<Step>,
    /// How many registers and constants it has.
    pub(crate) num_slots: usize,
    /// How many predicates.
    pub(crate) num_preds: usize,
    /// What slots hold before the first instruction.
    pub(crate) initial: Vec<(Slot, Source)>,
    /// Bytes of shared memory that it declares.
    pub(crate) shared_bytes: u32,
    /// Bytes of local memory of a thread.
    pub(crate) local_bytes: u32,
    /// The narrowest access to shared or global memory, at most 4 bytes: what is kept per byte can be kept per so many.
    pub(crate) granule: u32,
}

/// What a slot holds before the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A number.
    Bits(u64),
    /// The address of a variable of the module, and what is added.
    Variable(usize, i64),
    /// Where dynamic shared memory begins, and what is added.
    DynamicShared(u32, i64),
    /// A special register.
    Special(Special),
}

/// Special registers that do not change while a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(usize),
    BlockLen(usize),
    Block(usize),
    GridLen(usize),
    Lane,
    Warp,
    NumWarps,
    LanesEqual,
    LanesBelow,
    LanesUpTo,
    LanesFrom,
    LanesAbove,
    DynamicSharedBytes,
    SharedBytes,
}

/// One instruction.
pub(crate) struct Step {
    /// Which lanes run it.
    pub(crate) guard: Guard,
    /// Its line in the PTX.
    pub(crate) line: u32,
    /// What it does.
    pub(crate) op: Op,
}

/// A predicate, or its opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) pred: Pred,
    pub(crate) invert: Mask,
}

impl Guard {
    /// Lets all pass.
    pub(crate) const ALWAYS: Self = Self { pred: 0, invert: 0 };
}

/// Which memory an address is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressSpace {
    Generic,
    Global,
    Constant,
    Shared,
    Local,
    Parameter,
}

/// With whom an access has to be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    /// With all that others do there.
    Weak,
    /// With weak ones alone: `.volatile`, `.relaxed`, `.acquire`, `.release`, and atomics.
    Strong,
    /// A read of what nobody writes in this launch: `.nc`.
    ReadOnly,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: AddressSpace,
    /// Bytes of one element.
    pub(crate) bytes: u32,
    /// The register with the address.
    pub(crate) address: Slot,
    /// What is added to it.
    pub(crate) offset: i64,
    /// With whom it has to be in order.
    pub(crate) strength: Strength,
}

/// What an atomic does to two numbers: the one in memory and the given one.
pub(crate) type Update = Box<dyn Fn(u64, u64) -> u64 + Send + Sync>;

/// How predicates of a comparison are combined with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

impl Logic {
    pub(crate) fn apply(self, a: Mask, b: Mask) -> Mask {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

/// Where a shuffle takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What a warp agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What lanes of a warp do together; each waits for all that its mask names.
pub(crate) enum Together {
    /// `bar.warp.sync`
    Barrier,
    /// `shfl.sync`: destination, whether the source was in range, value, which lane, clamp and segment.
    Shuffle { mode: Shuffle, d: Slot, in_range: Option<Pred>, a: Slot, b: Slot, c: Slot },
    /// `vote.sync`
    Vote { kind: Vote, d: Slot, p: Pred, a: Guard },
    /// `match.any.sync`, `match.all.sync`
    Match { all: bool, d: Slot, p: Option<Pred>, a: Slot },
    /// `redux.sync`
    Reduce { f: Update, d: Slot, a: Slot },
}

/// What all lanes of a warp do together.
pub(crate) enum Aligned {
    /// `ldmatrix`: how many matrices, whether transposed.
    LoadMatrix { d: Vec<Slot>, address: Access, transposed: bool },
    /// `mma.sync`
    Multiply(Box<Multiply>),
    /// `wmma.load`: the fragment's registers, and where its elements lie.
    LoadFragment(Fragment),
    /// `wmma.store`
    StoreFragment(Fragment),
}

/// A product of matrices that lie in fragments.
pub(crate) struct Multiply {
    pub(crate) shape: crate::fragment::Shape,
    pub(crate) d: Vec<Slot>,
    pub(crate) a: Vec<Slot>,
    pub(crate) b: Vec<Slot>,
    pub(crate) c: Vec<Slot>,
}

/// A fragment in memory.
pub(crate) struct Fragment {
    pub(crate) layout: crate::fragment::Layout,
    pub(crate) registers: Vec<Slot>,
    pub(crate) address: Access,
    /// Elements from one row, or column, to the next.
    pub(crate) stride: Slot,
    /// Whether columns lie one behind another.
    pub(crate) by_columns: bool,
}

/// `bar`, `barrier`
pub(crate) struct Barrier {
    /// Which.
    pub(crate) id: Slot,
    /// How many threads; none for all of the block.
    pub(crate) count: Option<Slot>,
    /// Whether this does not wait.
    pub(crate) arrives: bool,
    /// Whether a warp comes as a whole.
    pub(crate) aligned: bool,
    /// What is learned from all that came.
    pub(crate) verdict: Option<Verdict>,
}

/// `barrier.red`
#[derive(Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) given: Guard,
    pub(crate) kind: VerdictKind,
}

#[derive(Clone, Copy)]
pub(crate) enum VerdictKind {
    Count(Slot),
    And(Pred),
    Or(Pred),
}

/// Arithmetic with a carry.
pub(crate) struct Carry {
    pub(crate) f: CarryFn,
    pub(crate) d: Slot,
    pub(crate) s: [Slot; 3],
    /// Where the carry is kept.
    pub(crate) carry: Pred,
    /// Whether the carry is added, and whether it is kept.
    pub(crate) takes: bool,
    pub(crate) keeps: bool,
}

/// Sources and carry to result and carry.
pub(crate) type CarryFn = fn([u64; 3], bool) -> (u64, bool);

/// What an instruction does.
pub(crate) enum Op {
    Map {
        f: Map,
        d: Slot,
        s: [Slot; 3],
    },
    /// One number in several registers, the lowest bits first; a register may be left out.
    Unpack {
        a: Slot,
        d: Vec<Option<Slot>>,
        bits: u32,
    },
    Pack {
        s: Vec<Slot>,
        d: Slot,
        bits: u32,
    },
    Test {
        f: Test,
        a: Slot,
        b: Slot,
        d: Option<Pred>,
        not_d: Option<Pred>,
        with: Option<(Logic, Guard)>,
    },
    Select {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Guard,
    },
    Logic {
        f: Logic,
        d: Pred,
        a: Guard,
        b: Guard,
    },
    Carry(Carry),
    Load {
        access: Access,
        d: Vec<Option<Slot>>,
        sign_from: Option<u32>,
        width: u32,
    },
    Store {
        access: Access,
        s: Vec<Slot>,
    },
    Atomic {
        access: Access,
        f: Update,
        d: Option<Slot>,
        b: Slot,
    },
    /// Compare with `b`, write `c`.
    Exchange {
        access: Access,
        d: Option<Slot>,
        b: Slot,
        c: Slot,
    },
    /// `cp.async`: destination, source, bytes, and how many of them are read.
    Copy {
        to: Access,
        from: Access,
        source_bytes: Option<Slot>,
    },
    CommitCopies,
    /// Waits until at most so many groups are under way; none for all copies.
    WaitCopies(Option<u32>),
    Together {
        what: Together,
        members: Slot,
    },
    Aligned(Aligned),
    ActiveMask(Slot),
    Barrier(Barrier),
    Fence,
    Branch(u32),
    Switch {
        index: Slot,
        targets: Vec<u32>,
    },
    Exit,
    Trap(String),
    Clock(Slot),
    Nothing,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({}, {} steps)", self.name, self.steps.len())
    }
}
