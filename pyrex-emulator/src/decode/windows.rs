//! Where generic addresses of the other spaces lie: far from all that is allocated.

/// Where those of shared memory begin.
pub(crate) const SHARED: u64 = 0x0100_0000_0000;
/// Where those of local memory begin.
pub(crate) const LOCAL: u64 = 0x0180_0000_0000;
/// Where those of parameters begin.
pub(crate) const PARAMETER: u64 = 0x01c0_0000_0000;
/// How many each of them has.
pub(crate) const WINDOW: u64 = 0x0010_0000_0000;
