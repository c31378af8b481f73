//! [`Device`]: memory, and launches one after another.

use crate::block::{self, Plan};
use crate::exec::Env;
use crate::fault::Fault;
use crate::kernel::{Kernel, Slot, Source, Special};
use crate::lanes::Lanes;
use crate::memory::{Memory, Purpose, Use};
use crate::module::{Module, Space};
use crate::report::Report;
use crate::shared::{MOST, Shared};
use crate::warp::Warp;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAX_THREADS: u64 = 1024;
/// Enough for minutes of honest work; what loops for ever ends here.
const MAX_STEPS: u64 = 1 << 32;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub shared_bytes: u32,
}

/// A device's memory, and the order in which its threads run. May be used by several threads, which wait for each other.
#[derive(Debug)]
pub struct Device {
    memory: Mutex<Memory>,
    seed: u64,
    max_steps: u64,
}

impl Default for Device {
    fn default() -> Self {
        Self { memory: Mutex::default(), seed: 0, max_steps: MAX_STEPS }
    }
}

impl Device {
    /// A device whose blocks and warps run in an order that follows from `seed`; 0 is ascending, as by default.
    pub fn with_seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The same device, on which a launch fails that has warps execute more than `max_steps` instructions.
    #[must_use]
    pub fn with_max_steps(self, max_steps: u64) -> Self {
        Self { max_steps, ..self }
    }

    /// Waits for whoever uses the memory.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that nobody has written to; aligned to 256 bytes, with a gap behind it that faults.
    pub fn allocate(&self, bytes: usize) -> u64 {
        self.memory().allocate(bytes)
    }

    /// Memory that nobody has written to, where some was that has been given back: graphs have theirs where it was before.
    ///
    /// # Errors
    /// If `address` is none that `allocate` gave and `free` took.
    pub fn allocate_again(&self, address: u64) -> Result<(), Fault> {
        self.memory().allocate_again(address).map_err(Fault::new)
    }

    /// Gives memory back.
    ///
    /// # Errors
    /// If `address` is none that `allocate` gave.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        self.memory().free(address).map_err(Fault::new)
    }

    /// How many bytes are allocated now, those of modules' variables and of mapped memory included.
    pub fn allocated_bytes(&self) -> usize {
        self.memory().allocated_bytes()
    }

    /// Where the allocation that holds `address` begins, and how many bytes it has.
    pub fn allocation(&self, address: u64) -> Option<(u64, usize)> {
        self.memory().range(address)
    }

    /// Copies to the device; what is written counts as initialized.
    ///
    /// # Errors
    /// If that is outside of what is allocated.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.memory().write(address, bytes, Purpose::Host).map_err(Fault::new)
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// If that is outside of what is allocated, or nobody wrote it.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.memory().read(address, bytes, Purpose::Host).map_err(Fault::new)
    }

    /// Copies within the device; bytes that nobody wrote stay so.
    ///
    /// # Errors
    /// If either range is outside of what is allocated.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Fault> {
        self.memory().copy(from, to, bytes).map_err(Fault::new)
    }

    /// Fills `bytes` bytes with copies of `pattern`.
    ///
    /// # Errors
    /// If that is outside of what is allocated.
    pub fn fill(&self, address: u64, bytes: usize, pattern: &[u8]) -> Result<(), Fault> {
        let filled: Vec<u8> = pattern.iter().copied().cycle().take(bytes).collect();
        self.write(address, &filled)
    }

    /// Where each allocation begins that the last launch used, and how it did.
    pub fn used(&self) -> Vec<(u64, Use)> {
        self.memory().used()
    }

    /// Where a variable of a module lies, and how many bytes it has; none if there is no such variable.
    ///
    /// # Errors
    /// If the module's variables cannot be laid out.
    pub fn variable(&self, module: &Module, name: &str) -> Result<Option<(u64, usize)>, Fault> {
        let Some((number, variable)) = module.variable(name) else { return Ok(None) };
        let places = place_variables(&mut self.memory(), module)?;
        Ok(Some((places[number], variable.bytes as usize)))
    }

    /// Runs a kernel to its end. `parameters`: each as it lies in memory, little-endian.
    ///
    /// # Errors
    /// If the kernel does what it must not; memory is then as the threads left it.
    pub fn launch(
        &self,
        module: &Module,
        kernel: &str,
        shape: LaunchShape,
        parameters: &[Vec<u8>],
    ) -> Result<Report, Fault> {
        let kernel = module.kernel(kernel)?;
        let named = |what: Fault| Fault::new(format_args!("kernel {}: {what}", kernel.name));
        check_shape(&kernel, &shape).map_err(named)?;
        let parameters = lay_out(&kernel, parameters).map_err(named)?;
        let mut memory = self.memory();
        let variables = place_variables(&mut memory, module)?;
        memory.begin_launch(kernel.granule);
        let num_warps = shape.block.iter().product::<u32>().div_ceil(32) as usize;
        let shared_bytes = dynamic_shared(&kernel, 16) + shape.shared_bytes;
        let mut env = Env {
            kernel: &kernel,
            parameters: &parameters,
            memory: &mut memory,
            shared: Shared::new(shared_bytes, kernel.granule, num_warps),
            report: Report::default(),
            block: 0,
        };
        let plan = Plan { block: shape.block, seed: self.seed, max_steps: self.max_steps };
        let mut warps: Vec<Warp> = (0..num_warps)
            .map(|number| {
                let registers = first_registers(&kernel, &shape, &variables, number);
                Warp::new(number, registers, kernel.num_preds, kernel.local_bytes as usize)
            })
            .collect();
        run_blocks(&plan, shape.grid, &mut warps, &mut env)?;
        Ok(env.report)
    }
}

fn run_blocks(plan: &Plan, grid: [u32; 3], warps: &mut [Warp], env: &mut Env<'_>) -> Result<(), Fault> {
    let num_blocks: u64 = grid.iter().map(|len| u64::from(*len)).product();
    for number in 0..num_blocks {
        // With another seed blocks begin elsewhere, and odd seeds go backwards.
        let start = (number + plan.seed) % num_blocks;
        let block = if plan.seed % 2 == 1 { num_blocks - 1 - start } else { start };
        env.block = block as u32;
        env.shared.reset();
        let [x, y, _] = grid.map(u64::from);
        let index = [block % x, block / x % y, block / x / y];
        warps.iter_mut().for_each(|warp| begin(plan, env.kernel, warp, index));
        block::run(plan, warps, env)?;
    }
    Ok(())
}

fn begin(plan: &Plan, kernel: &Kernel, warp: &mut Warp, block: [u64; 3]) {
    for (slot, source) in &kernel.initial {
        if let Source::Special(Special::Block(axis)) = source {
            warp.registers[*slot as usize] = [block[*axis]; 32];
        }
    }
    let rest = plan.num_threads() - warp.number as u32 * 32;
    warp.begin(if rest >= 32 { !0 } else { (1 << rest) - 1 });
}

fn check_shape(kernel: &Kernel, shape: &LaunchShape) -> Result<(), Fault> {
    let threads: u64 = shape.block.iter().map(|len| u64::from(*len)).product();
    let blocks: u64 = shape.grid.iter().map(|len| u64::from(*len)).product();
    let max_threads = kernel.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS);
    if threads == 0 || threads > max_threads || shape.block[2] > 64 {
        return Err(Fault::new(format_args!(
            "blocks of {:?} threads, expected 1 to {max_threads}",
            shape.block
        )));
    }
    if blocks == 0 || shape.grid[0] > i32::MAX as u32 || shape.grid[1] > 65535 || shape.grid[2] > 65535 {
        let grid = shape.grid;
        return Err(Fault::new(format_args!(
            "a grid of {grid:?} blocks, expected 1 to [2^31 - 1, 65535, 65535]"
        )));
    }
    let shared = u64::from(kernel.shared_bytes) + u64::from(shape.shared_bytes);
    if shared > u64::from(MOST) {
        return Err(Fault::new(format_args!("{shared} bytes of shared memory, expected at most {MOST}")));
    }
    Ok(())
}

/// The parameters as they lie together in memory.
fn lay_out(kernel: &Kernel, parameters: &[Vec<u8>]) -> Result<Vec<u8>, Fault> {
    let wanted: Vec<_> = kernel.parameters.iter().map(|one| one.bytes as usize).collect();
    let found: Vec<_> = parameters.iter().map(Vec::len).collect();
    if wanted != found {
        return Err(Fault::new(format_args!("parameters of {found:?} bytes, expected {wanted:?}")));
    }
    let mut bytes = Vec::new();
    for (parameter, given) in kernel.parameters.iter().zip(parameters) {
        bytes.resize(parameter.offset as usize, 0);
        bytes.extend_from_slice(given);
    }
    Ok(bytes)
}

/// Where dynamic shared memory begins that lies at multiples of `align`.
fn dynamic_shared(kernel: &Kernel, align: u32) -> u32 {
    kernel.shared_bytes.next_multiple_of(align.max(16))
}

/// Where the variables of `module` lie; they are laid out once.
fn place_variables(memory: &mut Memory, module: &Module) -> Result<Vec<u64>, Fault> {
    if let Some(places) = memory.variables.get(&module.id()) {
        return Ok(places.clone());
    }
    let in_memory = |space| matches!(space, Space::Global | Space::Constant);
    let variables = module.variables();
    let places: Vec<u64> = variables
        .iter()
        .map(|variable| if in_memory(variable.space) { memory.allocate(variable.bytes as usize) } else { 0 })
        .collect();
    for (variable, place) in variables.iter().zip(&places).filter(|(variable, _)| in_memory(variable.space)) {
        let mut bytes = variable.initial.clone();
        bytes.resize(variable.bytes as usize, 0);
        for (at, name, offset) in &variable.addresses {
            let found = module.variable(name).map(|(number, _)| places[number].wrapping_add(*offset as u64));
            let address = found.ok_or_else(|| Fault::new(format_args!("{}: no {name}", variable.name)))?;
            bytes[*at..*at + 8].copy_from_slice(&address.to_le_bytes());
        }
        memory.write(*place, &bytes, Purpose::Host).map_err(Fault::new)?;
        if variable.space == Space::Constant {
            memory.make_constant(*place);
        }
    }
    memory.variables.insert(module.id(), places.clone());
    Ok(places)
}

fn first_registers(kernel: &Kernel, shape: &LaunchShape, variables: &[u64], warp: usize) -> Vec<Lanes> {
    let mut registers = vec![[0xa5a5_a5a5; 32]; kernel.num_slots];
    for (slot, source) in &kernel.initial {
        let all = |bits: u64| [bits; 32];
        registers[*slot as Slot as usize] = match *source {
            Source::Bits(bits) => all(bits),
            Source::Variable(number, offset) => all(variables[number].wrapping_add(offset as u64)),
            Source::DynamicShared(align, offset) => {
                all(u64::from(dynamic_shared(kernel, align)).wrapping_add(offset as u64))
            }
            Source::Special(special) => {
                std::array::from_fn(|lane| special_value(special, kernel, shape, (warp, lane)))
            }
        };
    }
    registers
}

fn special_value(
    special: Special,
    kernel: &Kernel,
    shape: &LaunchShape,
    (warp, lane): (usize, usize),
) -> u64 {
    let thread = (warp * 32 + lane) as u32;
    let [x, y, _] = shape.block;
    let bit = 1u32 << lane;
    u64::from(match special {
        Special::Thread(0) => thread % x,
        Special::Thread(1) => thread / x % y,
        Special::Thread(_) => thread / x / y,
        Special::BlockLen(axis) => shape.block[axis],
        Special::GridLen(axis) => shape.grid[axis],
        // Each block writes its own.
        Special::Block(_) => 0,
        Special::Lane => lane as u32,
        Special::Warp => warp as u32,
        Special::NumWarps => shape.block.iter().product::<u32>().div_ceil(32),
        Special::LanesEqual => bit,
        Special::LanesBelow => bit - 1,
        Special::LanesUpTo => bit | (bit - 1),
        Special::LanesFrom => !(bit - 1),
        Special::LanesAbove => !(bit | (bit - 1)),
        Special::DynamicSharedBytes => shape.shared_bytes,
        Special::SharedBytes => dynamic_shared(kernel, 16) + shape.shared_bytes,
    })
}
