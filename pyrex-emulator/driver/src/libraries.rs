//! What cuBLAS, cuBLASLt and cuRAND keep between calls.

use crate::driver::Handle;
use crate::product::{Element, Rounding};
use crate::status::{Outcome, Status};
use std::collections::HashMap;

/// All that the libraries keep.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    pub(crate) blas: HashMap<Handle, Blas>,
    /// cuBLASLt's handles, which know nothing, and its descriptors and layouts.
    pub(crate) attributes: HashMap<Handle, Attributes>,
    pub(crate) generators: HashMap<Handle, Generator>,
}

/// A handle of cuBLAS.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blas {
    pub(crate) stream: Handle,
    pub(crate) pointer_mode: u32,
    pub(crate) math_mode: u32,
}

/// Attributes by number, as they were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    values: HashMap<u32, Vec<u8>>,
}

impl Attributes {
    pub(crate) fn set(&mut self, number: u32, value: Vec<u8>) {
        self.values.insert(number, value);
    }

    /// A number of so many bytes; `default` if it was not set.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it was set to something of another size.
    pub(crate) fn get<const BYTES: usize>(&self, number: u32, default: [u8; BYTES]) -> Outcome<[u8; BYTES]> {
        let value = self.values.get(&number);
        value.map_or(Ok(default), |value| value.as_slice().try_into().map_err(|_| Status::INVALID_VALUE))
    }
}

/// A `cublasComputeType_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compute(pub(crate) u32);

impl Compute {
    const HALF: [u32; 2] = [64, 65];
    const SINGLE: [u32; 5] = [68, 69, 74, 75, 77];
    const DOUBLE: [u32; 2] = [70, 71];

    /// What `alpha` and `beta` are.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for integers and what is newer.
    pub(crate) fn scale(self) -> Outcome<Element> {
        [(&Self::HALF[..], Element::F16), (&Self::SINGLE, Element::F32), (&Self::DOUBLE, Element::F64)]
            .into_iter()
            .find_map(|(codes, scale)| codes.contains(&self.0).then_some(scale))
            .ok_or(Status::NOT_SUPPORTED)
    }

    /// To what it rounds inputs of f32.
    pub(crate) fn rounding(self) -> Rounding {
        match self.0 {
            74 => Rounding::F16,
            75 => Rounding::Bf16,
            77 => Rounding::Tf32,
            _ => Rounding::None,
        }
    }

    /// Whether cuBLAS multiplies these: inputs of one kind, and a result of the same or f32.
    pub(crate) fn takes(self, inputs: [Element; 2], output: Element) -> bool {
        let [a, b] = inputs;
        a == b
            && match self.scale() {
                Ok(Element::F32) => a != Element::F64 && (output == a || output == Element::F32),
                Ok(scale) => scale == a && scale == output,
                Err(_) => false,
            }
    }
}

/// A generator of numbers, which are not cuRAND's: only their distribution is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Generator {
    pub(crate) stream: Handle,
    pub(crate) seed: u64,
    /// How many were drawn.
    pub(crate) offset: u64,
}

impl Generator {
    /// 64 bits (splitmix64).
    pub(crate) fn bits(&mut self) -> u64 {
        self.offset += 1;
        let mut bits = self.seed.wrapping_add(self.offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// Above 0 and at most 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Of a normal distribution (Box and Muller's way).
    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_distribution_and_follow_from_the_seed() {
        let mut generator = Generator { seed: 7, ..Generator::default() };
        let draws: Vec<f64> = (0..10_000).map(|_| generator.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e4;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        let mut again = Generator { seed: 7, ..Generator::default() };
        assert_eq!(again.normal(), draws[0]);
        assert!((0..1000).all(|_| (f64::MIN_POSITIVE..=1.0).contains(&again.uniform())));
    }

    #[test]
    fn only_products_that_cublas_has() {
        let single = Compute(68);
        assert!(
            single.takes([Element::Bf16; 2], Element::Bf16) && single.takes([Element::Bf16; 2], Element::F32)
        );
        assert!(!single.takes([Element::Bf16, Element::F16], Element::F32));
        assert!(
            !single.takes([Element::F32; 2], Element::Bf16)
                && !Compute(72).takes([Element::F32; 2], Element::F32)
        );
        assert!(
            Compute(64).takes([Element::F16; 2], Element::F16)
                && !Compute(64).takes([Element::F16; 2], Element::F32)
        );
    }
}
