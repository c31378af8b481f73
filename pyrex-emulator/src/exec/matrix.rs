//! `ldmatrix`, `mma` and `wmma`: what all lanes of a warp do with matrices.

use super::Env;
use super::memory::{aligned, number};
use crate::fault::Trouble;
use crate::fragment::Role;
use crate::kernel::{Access, AddressSpace, Aligned, Fragment, Multiply, Slot, Strength};
use crate::lanes::{Lanes, Mask};
use crate::report::{bank_conflicts, sectors};
use crate::shared::Write;
use crate::warp::Warp;

impl Warp {
    /// All lanes do `what`.
    pub(crate) fn aligned(&mut self, what: &Aligned, env: &mut Env<'_>) -> Result<(), Trouble> {
        match what {
            Aligned::LoadMatrix { d, address, transposed } => self.load_matrix(d, address, *transposed, env),
            Aligned::Multiply(multiply) => {
                self.multiply(multiply);
                Ok(())
            }
            Aligned::LoadFragment(fragment) => self.load_fragment(fragment, env),
            Aligned::StoreFragment(fragment) => self.store_fragment(fragment, env),
        }
    }

    /// Lane `8 · i + r` has the address of row `r` of matrix `i`; lane `l` gets the elements `2 (l % 4)` and the next of row
    /// `l / 4`, or of the column if it is transposed.
    fn load_matrix(
        &mut self,
        d: &[Slot],
        address: &Access,
        transposed: bool,
        env: &mut Env<'_>,
    ) -> Result<(), Trouble> {
        let (addresses, _) = self.addresses(address, !0);
        let spaces =
            self.addresses(address, (1u64.wrapping_shl(8 * d.len() as u32).wrapping_sub(1)) as Mask).1;
        if spaces.iter().any(|(space, lanes)| *space != AddressSpace::Shared && *lanes != 0) {
            return Err(Trouble::warp("the rows of a matrix are not in shared memory"));
        }
        for (matrix, slot) in d.iter().enumerate() {
            let lanes: Mask = 0xff << (8 * matrix);
            env.report.bank_conflicts += bank_conflicts(&addresses, 16, lanes);
            let mut elements = [[0u16; 8]; 8];
            for (row, elements) in elements.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                let from = aligned(addresses[lane], 16, lane)?;
                let bytes = env.shared.read(from, 16, (self.number, lane), true);
                let bytes = bytes.map_err(|what| Trouble::lane(lane, what))?;
                for (element, two) in elements.iter_mut().zip(bytes.chunks_exact(2)) {
                    *element = u16::from_le_bytes([two[0], two[1]]);
                }
            }
            self.registers[*slot as usize] = std::array::from_fn(|lane| {
                let (row, col) = (lane / 4, lane % 4 * 2);
                let [low, high] = match transposed {
                    false => [elements[row][col], elements[row][col + 1]],
                    true => [elements[col][row], elements[col + 1][row]],
                };
                u64::from(low) | u64::from(high) << 16
            });
        }
        Ok(())
    }

    fn multiply(&mut self, op: &Multiply) {
        let [_, n, k] = op.shape.sizes;
        let a = self.gather(op, Role::A, &op.a);
        let b = self.gather(op, Role::B, &op.b);
        let mut c = self.gather(op, Role::C, &op.c);
        let at_once = op.shape.at_once.unwrap_or(k);
        for (sums, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
            for (a, b) in a.chunks_exact(at_once).zip(b.chunks_exact(at_once * n)) {
                match (n, op.shape.at_once) {
                    (8, Some(_)) => cut_products::<8>(sums, a, b),
                    (32, Some(_)) => cut_products::<32>(sums, a, b),
                    (_, Some(_)) => cut_products::<16>(sums, a, b),
                    (8, None) => add_products::<8>(sums, a, b),
                    (32, None) => add_products::<32>(sums, a, b),
                    (_, None) => add_products::<16>(sums, a, b),
                }
            }
        }
        let layout = op.shape.layout(Role::D);
        if op.shape.clamps {
            c.iter_mut().for_each(|sum| *sum = sum.clamp(f64::from(i32::MIN), f64::from(i32::MAX)));
        }
        for (register, slot) in op.d.iter().enumerate() {
            self.registers[*slot as usize] = layout.scatter(&c, register);
        }
    }

    /// A matrix by rows, from its fragment.
    fn gather(&self, op: &Multiply, role: Role, registers: &[Slot]) -> Vec<f64> {
        let registers: Vec<&Lanes> = registers.iter().map(|slot| &self.registers[*slot as usize]).collect();
        op.shape.layout(role).gather(&registers)
    }

    /// Where element `index` of each lane lies.
    fn element_addresses(&self, fragment: &Fragment, index: usize) -> ([u64; 32], AddressSpace) {
        let (base, spaces) = self.addresses(&fragment.address, !0);
        let space =
            spaces.iter().find(|(_, lanes)| *lanes != 0).map_or(AddressSpace::Global, |(space, _)| *space);
        let addresses = std::array::from_fn(|lane| {
            let (row, col) = fragment.layout.place(lane, index);
            let stride = self.registers[fragment.stride as usize][lane];
            let (line, within) = if fragment.by_columns { (col, row) } else { (row, col) };
            base[lane] + (line as u64 * stride + within as u64) * u64::from(fragment.address.bytes)
        });
        (addresses, space)
    }

    fn load_fragment(&mut self, fragment: &Fragment, env: &mut Env<'_>) -> Result<(), Trouble> {
        let (layout, len) = (&fragment.layout, fragment.address.bytes as usize);
        let per_register = layout.per_register();
        for index in 0..layout.per_lane() {
            let (addresses, space) = self.element_addresses(fragment, index);
            note_element(env, space, &addresses, len, false);
            let slot = fragment.registers[index / per_register] as usize;
            let shift = index % per_register * layout.element.bits() as usize;
            for (lane, address) in addresses.into_iter().enumerate() {
                let address = aligned(address, len, lane)?;
                let mut bytes = [0; 8];
                let purpose = env.purpose(Strength::Weak);
                match space {
                    AddressSpace::Shared => env
                        .shared
                        .read(address, len, (self.number, lane), true)
                        .map(|found| bytes[..len].copy_from_slice(found)),
                    _ => env.memory.read(address, &mut bytes[..len], purpose),
                }
                .map_err(|what| Trouble::lane(lane, what))?;
                let before = if shift == 0 { 0 } else { self.registers[slot][lane] };
                self.registers[slot][lane] = before | number(&bytes[..len]) << shift;
            }
        }
        Ok(())
    }

    fn store_fragment(&mut self, fragment: &Fragment, env: &mut Env<'_>) -> Result<(), Trouble> {
        let (layout, len) = (&fragment.layout, fragment.address.bytes as usize);
        let per_register = layout.per_register();
        for index in 0..layout.per_lane() {
            let (addresses, space) = self.element_addresses(fragment, index);
            note_element(env, space, &addresses, len, true);
            let slot = fragment.registers[index / per_register] as usize;
            let shift = index % per_register * layout.element.bits() as usize;
            for (lane, address) in addresses.into_iter().enumerate() {
                let address = aligned(address, len, lane)?;
                let bytes = (self.registers[slot][lane] >> shift).to_le_bytes();
                let purpose = env.purpose(Strength::Weak);
                match space {
                    AddressSpace::Shared => {
                        env.shared.write(address, &bytes[..len], (self.number, lane), Write::Plain)
                    }
                    _ => env.memory.write(address, &bytes[..len], purpose),
                }
                .map_err(|what| Trouble::lane(lane, what))?;
            }
        }
        Ok(())
    }
}

/// Adds the products of a row of `A` with `B`, of `N` columns, which are exact in f64, as their sum is but for its last bits.
fn add_products<const N: usize>(sums: &mut [f64], a: &[f64], b: &[f64]) {
    let mut all = [0.0; N];
    all.copy_from_slice(sums);
    for (factor, b) in a.iter().zip(b.chunks_exact(N)) {
        for (sum, b) in all.iter_mut().zip(b) {
            *sum += factor * b;
        }
    }
    sums.copy_from_slice(&all);
}

/// The same as tensor cores add floats into f32: of the sum so far and of each product what lies more than one bit below the last
/// bit of the greatest of them is cut off, and of their sum what f32 cannot hold.
///
/// PTX promises no more than the accuracy of f32. This is what an A100 does, the least exact device that the kernels may meet; an H100
/// adds 16 or 8 products at once, and cuts one bit lower. Source: Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores", 2025.
fn cut_products<const N: usize>(sums: &mut [f64], a: &[f64], b: &[f64]) {
    let mut greatest: [f64; N] = std::array::from_fn(|col| sums[col].abs());
    for (factor, b) in a.iter().zip(b.chunks_exact(N)) {
        for (greatest, b) in greatest.iter_mut().zip(b) {
            let product = (factor * b).abs();
            *greatest = if product > *greatest { product } else { *greatest };
        }
    }
    let unit = greatest.map(|x| power_below(x) / (1 << 24) as f64);
    let mut all: [f64; N] = std::array::from_fn(|col| cut(sums[col], unit[col]));
    for (factor, b) in a.iter().zip(b.chunks_exact(N)) {
        for ((sum, b), unit) in all.iter_mut().zip(b).zip(&unit) {
            *sum += cut(factor * b, *unit);
        }
    }
    for (sum, all) in sums.iter_mut().zip(all) {
        // The 24 bits of an f32; an infinity or a NaN stays one.
        *sum = f64::from_bits(all.to_bits() & !0x1fff_ffff | if all.is_nan() { 1 << 51 } else { 0 });
    }
}

/// The greatest power of two that is not above `x`, of what f32 can be multiplied to; where `x` is not finite, it is not.
fn power_below(x: f64) -> f64 {
    f64::from_bits(x.max(1e-150).to_bits() & 0x7ff0_0000_0000_0000)
}

/// `x` without what is below a multiple of `unit`, of which it is less than 2^51.
fn cut(x: f64, unit: f64) -> f64 {
    // Beside so large a number there is room for whole units only.
    let large = if unit.is_finite() { unit * 1.5 * (1u64 << 52) as f64 } else { 0.0 };
    let near = (x + large) - large;
    near - if near.abs() > x.abs() { unit.copysign(x) } else { 0.0 }
}

/// Counts what is moved; how a device groups the elements of a fragment is not known.
fn note_element(env: &mut Env<'_>, space: AddressSpace, addresses: &[u64; 32], len: usize, writes: bool) {
    if space == AddressSpace::Shared {
        return;
    }
    let (sectors, bytes) = (sectors(addresses, len as u64, !0), 32 * len as u64);
    match writes {
        false => {
            env.report.sectors_read += sectors;
            env.report.bytes_read += bytes;
        }
        true => {
            env.report.sectors_written += sectors;
            env.report.bytes_written += bytes;
        }
    }
}
