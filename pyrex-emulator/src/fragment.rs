//! Which lane holds which element of a matrix: [`Layout`], and [`Shape`], a product with the types of its matrices.
//!
//! Source: PTX ISA 9.0, "Matrix fragments for mma". How `wmma` spreads elements over lanes is left open there; here it is by rows.

use crate::lanes::{Bits, Lanes};
use crate::ops::Opcode;
use crate::ops::rounding::{Rounding, short};
use crate::types::Type;
use half::f16;

/// Which matrix of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    A,
    B,
    C,
    D,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];
}

/// Where each element of a matrix is.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) element: Type,
    /// Which element of the matrix by rows each element of each lane is: all those of lane 0 first.
    places: Vec<u16>,
}

impl Layout {
    /// How many elements a lane has.
    pub(crate) fn per_lane(&self) -> usize {
        self.places.len() / 32
    }

    /// How many elements one register holds.
    pub(crate) fn per_register(&self) -> usize {
        (32 / self.element.bits() as usize).max(1)
    }

    /// How many registers a lane has.
    pub(crate) fn num_registers(&self) -> usize {
        self.per_lane() / self.per_register()
    }

    /// Row and column of element `index` of `lane`.
    pub(crate) fn place(&self, lane: usize, index: usize) -> (usize, usize) {
        let at = usize::from(self.places[lane * self.per_lane() + index]);
        (at / self.cols, at % self.cols)
    }

    /// The layout of what `wmma.load` or `wmma.store` moves.
    pub(crate) fn of_wmma(op: &Opcode<'_>) -> Option<Self> {
        let sizes = op.modifiers.iter().find_map(|one| sizes(one))?;
        let role = match *op.modifiers.get(1)? {
            "a" => Role::A,
            "b" => Role::B,
            "c" => Role::C,
            "d" => Role::D,
            _ => return None,
        };
        Some(Self::by_rows(sizes, role, op.ty()?))
    }

    fn by_rows(sizes: [usize; 3], role: Role, element: Type) -> Self {
        let (rows, cols) = extent(sizes, role);
        // Of f16 a lane always has 16, so that an element is in up to four lanes.
        let is_f16 = element == Type::F16 && matches!(role, Role::A | Role::B);
        let copies = if is_f16 { 32 * 16 / (rows * cols) } else { 1 };
        let places = (0..rows * cols * copies).map(|at| (at % (rows * cols)) as u16).collect();
        Self { rows, cols, element, places }
    }

    /// The layout of `mma`, for 16 or 8 rows of `A` and 8 columns of `B`.
    fn of_mma(sizes: [usize; 3], role: Role, element: Type) -> Self {
        let (rows, cols) = extent(sizes, role);
        // Elements that lie side by side in a lane: a register's, of results two.
        let together = match role {
            Role::A | Role::B => (32 / element.bits() as usize).max(1),
            Role::C | Role::D => 2,
        };
        let per_lane = rows * cols / 32;
        let place = |lane: usize, index: usize| {
            let (group, in_group) = (lane / 4, lane % 4);
            let (piece, within) = (index / together, index % together);
            // Pieces of 8 rows follow each other first, then those further along k.
            match role {
                Role::A => {
                    let row_pieces = rows / 8;
                    let col = piece / row_pieces * 4 * together + in_group * together + within;
                    (piece % row_pieces * 8 + group, col)
                }
                Role::B => (piece * 4 * together + in_group * together + within, group),
                Role::C | Role::D => (piece * 8 + group, in_group * 2 + within),
            }
        };
        let places = (0..32 * per_lane)
            .map(|at| {
                let (row, col) = place(at / per_lane, at % per_lane);
                (row * cols + col) as u16
            })
            .collect();
        Self { rows, cols, element, places }
    }

    /// The matrix by rows.
    pub(crate) fn gather(&self, registers: &[&Lanes]) -> Vec<f64> {
        let of = |read: fn(u64) -> f64| self.gather_by(registers, read);
        match self.element {
            Type::F16 => of(|bits| f64::from(f16::of(bits & 0xffff).to_f32_const())),
            Type::Bf16 => of(|bits| f64::from(f32::from_bits((bits as u32) << 16))),
            // The low bits are not looked at.
            Type::Tf32 => of(|bits| f64::from(f32::of(bits & 0xffff_e000))),
            Type::F32 => of(|bits| f64::from(f32::of(bits))),
            Type::F64 => of(f64::of),
            Type::S(8) => of(|bits| f64::from(bits as u8 as i8)),
            Type::U(8) => of(|bits| f64::from(bits as u8)),
            Type::S(_) => of(|bits| f64::from(bits as i32)),
            _ => of(|bits| f64::from(bits as u32)),
        }
    }

    fn gather_by(&self, registers: &[&Lanes], read: impl Fn(u64) -> f64) -> Vec<f64> {
        let mut matrix = vec![0.0; self.rows * self.cols];
        let bits = self.element.bits();
        let mut places = self.places.iter();
        for lane in 0..32 {
            for register in registers {
                for part in 0..self.per_register() as u32 {
                    let place = *places.next().expect("there is one for each element");
                    matrix[usize::from(place)] = read(register[lane] >> (part * bits));
                }
            }
        }
        matrix
    }

    /// What a matrix by rows has in one of the registers.
    pub(crate) fn scatter(&self, matrix: &[f64], register: usize) -> Lanes {
        match self.element {
            Type::F16 => {
                self.scatter_by(matrix, register, |number| short::<f16>(number, Rounding::Nearest).bits())
            }
            Type::F64 => self.scatter_by(matrix, register, f64::bits),
            // Integers wrap.
            Type::S(_) | Type::U(_) => {
                self.scatter_by(matrix, register, |number| u64::from(number as i64 as u32))
            }
            _ => self.scatter_by(matrix, register, |number| (number as f32).bits()),
        }
    }

    fn scatter_by(&self, matrix: &[f64], register: usize, bits: impl Fn(f64) -> u64) -> Lanes {
        let (per_lane, per_register) = (self.per_lane(), self.per_register());
        let mut lanes = [0; 32];
        for (lane, all) in lanes.iter_mut().enumerate() {
            for part in 0..per_register {
                let place = self.places[lane * per_lane + register * per_register + part];
                *all |= bits(matrix[usize::from(place)]) << (part as u32 * self.element.bits() % 64);
            }
        }
        lanes
    }
}

fn extent([m, n, k]: [usize; 3], role: Role) -> (usize, usize) {
    match role {
        Role::A => (m, k),
        Role::B => (k, n),
        Role::C | Role::D => (m, n),
    }
}

/// `m16n8k16`
fn sizes(modifier: &str) -> Option<[usize; 3]> {
    let (m, rest) = modifier.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

/// A product of matrices with their layouts.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) sizes: [usize; 3],
    layouts: [Layout; 4],
    /// Whether integers that do not fit are clamped.
    pub(crate) clamps: bool,
    /// How many products tensor cores add at once, cutting off what f32 cannot hold; nothing where sums are rounded once.
    pub(crate) at_once: Option<usize>,
}

impl Shape {
    /// What `mma` or `wmma.mma` multiplies.
    pub(crate) fn of(op: &Opcode<'_>) -> Option<Self> {
        let sizes = op.modifiers.iter().find_map(|one| sizes(one))?;
        let types = op.types();
        let [d, a, b, c] = match types[..] {
            [d, c] => [d, Type::F16, Type::F16, c],
            [d, a, b, c] => [d, a, b, c],
            _ => return None,
        };
        let is_mma = op.base == "mma";
        let known: &[[usize; 3]] = match (is_mma, a.bits()) {
            (true, 8) => &[[16, 8, 32], [16, 8, 16], [8, 8, 16]],
            (true, 16) => &[[16, 8, 16], [16, 8, 8]],
            (true, 32) => &[[16, 8, 8], [16, 8, 4]],
            (true, 64) => &[[8, 8, 4]],
            (_, 8 | 16) => &[[16, 16, 16], [32, 8, 16], [8, 32, 16]],
            (_, 32) => &[[16, 16, 8]],
            _ => &[[8, 8, 4]],
        };
        if !known.contains(&sizes)
            || is_mma && !(op.has("row") && op.has("col"))
            || op.has("xor")
            || op.has("and")
        {
            return None;
        }
        let layout = |role, element| match is_mma {
            true => Layout::of_mma(sizes, role, element),
            false => Layout::by_rows(sizes, role, element),
        };
        let layouts = [layout(Role::A, a), layout(Role::B, b), layout(Role::C, c), layout(Role::D, d)];
        let at_once = match (a, d) {
            (Type::F16 | Type::Bf16, Type::F32) => Some(8),
            (Type::Tf32, Type::F32) => Some(4),
            _ => None,
        };
        Some(Self { sizes, layouts, clamps: op.has("satfinite"), at_once })
    }

    /// The layout of one of its matrices.
    pub(crate) fn layout(&self, role: Role) -> &Layout {
        &self.layouts[role as usize]
    }
}
