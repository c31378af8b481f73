//! Matrix products, as cuBLAS defines them: columns are contiguous.

use half::{bf16, f16};
use pyrex_emulator::{Device, Fault};
use std::ops::Range;

/// What a matrix holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

/// To what the inputs are rounded before they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    None,
    Tf32,
    Bf16,
    F16,
}

/// One matrix for each batch, in memory of the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) address: u64,
    pub(crate) element: Element,
    /// Elements from a column to the next.
    pub(crate) leading: i64,
    /// Elements from a batch to the next.
    pub(crate) stride: i64,
    /// Whether the product takes it transposed.
    pub(crate) transposed: bool,
}

/// `d = alpha · a · b + beta · c`, of which `d` is `[m, n]` and `a` is `[m, k]`. Summed in f64 and rounded once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) batches: usize,
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) c: Matrix,
    pub(crate) d: Matrix,
    pub(crate) rounding: Rounding,
}

impl Element {
    /// What cuBLAS calls by this number.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F64,
            2 => Self::F16,
            14 => Self::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The number that lies in `bytes`.
    pub(crate) fn widen(self, bytes: &[u8]) -> f64 {
        const LEN: &str = "as many bytes as an element has";
        match self {
            Self::F16 => f16::from_le_bytes(bytes.try_into().expect(LEN)).to_f64(),
            Self::Bf16 => bf16::from_le_bytes(bytes.try_into().expect(LEN)).to_f64(),
            Self::F32 => f64::from(f32::from_le_bytes(bytes.try_into().expect(LEN))),
            Self::F64 => f64::from_le_bytes(bytes.try_into().expect(LEN)),
        }
    }

    fn narrow(self, number: f64, bytes: &mut [u8]) {
        match self {
            Self::F16 => bytes.copy_from_slice(&f16::from_f64(number).to_le_bytes()),
            Self::Bf16 => bytes.copy_from_slice(&bf16::from_f64(number).to_le_bytes()),
            Self::F32 => bytes.copy_from_slice(&(number as f32).to_le_bytes()),
            Self::F64 => bytes.copy_from_slice(&number.to_le_bytes()),
        }
    }
}

impl Rounding {
    fn round(self, number: f64) -> f64 {
        match self {
            Self::None => number,
            Self::F16 => f16::from_f64(number).to_f64(),
            Self::Bf16 => bf16::from_f64(number).to_f64(),
            // f32 with 10 bits of mantissa, of which half the last is added before the rest is cut off.
            Self::Tf32 => f64::from(f32::from_bits(((number as f32).to_bits() + 0x1000) & !0x1fff)),
        }
    }
}

impl Matrix {
    /// Where a column of `batch` lies that has `rows` elements.
    fn column(&self, batch: usize, column: usize, rows: usize) -> Range<u64> {
        let elements = self.stride * batch as i64 + self.leading * column as i64;
        let start = self.address.wrapping_add_signed(elements * self.element.size() as i64);
        start..start + (rows * self.element.size()) as u64
    }

    /// `[rows, columns]` of `batch`, widened; as the product takes it, a column after the other.
    fn read(&self, device: &Device, batch: usize, shape: [usize; 2]) -> Result<Vec<f64>, Fault> {
        let [rows, columns] = shape;
        let stored = if self.transposed { [columns, rows] } else { shape };
        let mut numbers = vec![0.0; rows * columns];
        let mut bytes = vec![0; stored[0] * self.element.size()];
        for column in 0..stored[1] {
            device.read(self.column(batch, column, stored[0]).start, &mut bytes)?;
            for (row, bytes) in bytes.chunks_exact(self.element.size()).enumerate() {
                let place = if self.transposed { row * rows + column } else { column * rows + row };
                numbers[place] = self.element.widen(bytes);
            }
        }
        Ok(numbers)
    }

    fn write(&self, device: &Device, batch: usize, rows: usize, numbers: &[f64]) -> Result<(), Fault> {
        let mut bytes = vec![0; rows * self.element.size()];
        for (column, numbers) in numbers.chunks_exact(rows).enumerate() {
            for (number, bytes) in numbers.iter().zip(bytes.chunks_exact_mut(self.element.size())) {
                self.element.narrow(*number, bytes);
            }
            device.write(self.column(batch, column, rows).start, &bytes)?;
        }
        Ok(())
    }

    /// Whether a column has room for `[rows, columns]` as the product takes them.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> bool {
        let stored_rows = if self.transposed { columns } else { rows };
        self.leading >= stored_rows.max(1) as i64
    }
}

impl Product {
    /// Computes all batches.
    ///
    /// # Errors
    /// If something lies outside of what is allocated, or nobody wrote it.
    pub(crate) fn run(&self, device: &Device) -> Result<(), Fault> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        for batch in 0..self.batches {
            let round =
                |numbers: Vec<f64>| numbers.into_iter().map(|number| self.rounding.round(number)).collect();
            let a: Vec<f64> = round(self.a.read(device, batch, [self.m, self.k])?);
            let b: Vec<f64> = round(self.b.read(device, batch, [self.k, self.n])?);
            // What is multiplied by zero need not be there.
            let mut d = match self.beta {
                0.0 => vec![0.0; self.m * self.n],
                _ => self.c.read(device, batch, [self.m, self.n])?,
            };
            for (column, d) in d.chunks_exact_mut(self.m).enumerate() {
                let mut sums = vec![0.0; self.m];
                let factors = &b[column * self.k..][..self.k];
                for (factor, a) in factors.iter().zip(a.chunks_exact(self.m)) {
                    sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += a * factor);
                }
                d.iter_mut().zip(sums).for_each(|(d, sum)| *d = self.alpha * sum + self.beta * *d);
            }
            self.d.write(device, batch, self.m, &d)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(device: &Device, element: Element, numbers: &[f64], leading: i64, transposed: bool) -> Matrix {
        let mut bytes = vec![0; numbers.len() * element.size()];
        for (number, bytes) in numbers.iter().zip(bytes.chunks_exact_mut(element.size())) {
            element.narrow(*number, bytes);
        }
        let address = device.allocate(bytes.len());
        device.write(address, &bytes).unwrap();
        Matrix { address, element, leading, stride: 0, transposed }
    }

    #[test]
    fn a_product_of_either_order_and_element() {
        for element in [Element::F16, Element::Bf16, Element::F32, Element::F64] {
            let device = Device::default();
            // [[1, 2, 3], [4, 5, 6]] · [[1, 0], [0, 1], [2, 2]] = [[7, 8], [16, 17]], by columns.
            let columns = matrix(&device, element, &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], 2, false);
            let rows = matrix(&device, element, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, true);
            let b = matrix(&device, element, &[1.0, 0.0, 2.0, 0.0, 1.0, 2.0], 3, false);
            let d = matrix(&device, element, &[1.0, 1.0, 1.0, 1.0], 2, false);
            for (a, beta) in [(columns, 0.0), (rows, 1.0)] {
                let rounding = Rounding::None;
                let product =
                    Product { m: 2, n: 2, k: 3, batches: 1, alpha: 1.0, beta, a, b, c: d, d, rounding };
                product.run(&device).unwrap();
                let sums = [7.0, 16.0, 8.0, 17.0].map(|sum| if beta == 0.0 { sum } else { 2.0 * sum });
                assert_eq!(d.read(&device, 0, [2, 2]).unwrap(), sums, "{element:?} {beta}");
            }
        }
    }

    #[test]
    fn what_nobody_wrote_is_read_only_if_it_counts() {
        let device = Device::default();
        let a = matrix(&device, Element::F32, &[2.0], 1, false);
        let unwritten = Matrix { address: device.allocate(4), ..a };
        let rounding = Rounding::None;
        let product = Product {
            m: 1,
            n: 1,
            k: 1,
            batches: 1,
            alpha: 1.0,
            beta: 1.0,
            a,
            b: a,
            c: unwritten,
            d: unwritten,
            rounding,
        };
        assert!(product.run(&device).is_err());
        Product { beta: 0.0, ..product }.run(&device).unwrap();
        product.run(&device).unwrap();
        assert_eq!(unwritten.read(&device, 0, [1, 1]).unwrap(), [8.0]);
    }

    #[test]
    fn inputs_are_rounded_as_asked() {
        let number = 1.0 + 2f64.powi(-11);
        assert_eq!(Rounding::Tf32.round(number), 1.0 + 2f64.powi(-10));
        assert_eq!(Rounding::Bf16.round(number), 1.0);
        assert_eq!(Rounding::None.round(number), number);
    }
}
