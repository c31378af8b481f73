//! The CPU kernels: written once over a vector type, run on AVX-512, AVX2 or plain code as the machine has them.
//!
//! [`Level`] picks the path at run time and tests force each one. `dot` serves few rows, `tile` many, `attend` attention, `math` holds
//! the transcendental functions, `float` the 16-bit formats, `distance` what tells two vectors apart; `peak` measures what
//! arithmetic there is. Nothing here knows tensors.

pub mod attend;
pub mod distance;
pub mod dot;
pub mod float;
pub mod math;
pub mod peak;
pub mod tile;
pub mod weight;

use pulp::WithSimd;

/// Which instructions the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The widest vectors this machine has: AVX-512, AVX2, NEON or none.
    Widest,
    /// AVX2 and FMA.
    Avx2,
    /// No vectors that the compiler does not find by itself.
    Portable,
}

impl Level {
    /// Every path this machine can run, the fastest first.
    pub fn all() -> Vec<Self> {
        let mut levels = vec![Self::Widest];
        if has_avx2() {
            levels.push(Self::Avx2);
        }
        levels.push(Self::Portable);
        levels
    }

    /// Runs `op` with the vectors of this level, or with the next lower ones the machine has.
    #[inline]
    pub fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Self::Widest => pulp::Arch::new().dispatch(op),
            Self::Avx2 => run_avx2(op),
            Self::Portable => op.with_simd(pulp::Scalar::new()),
        }
    }

    /// Vector registers.
    pub fn registers(self) -> usize {
        self.run(Shape).0
    }

    /// Floats in one vector.
    pub fn lanes(self) -> usize {
        self.run(Shape).1
    }
}

/// How many vector registers there are, and how many floats lie in one.
struct Shape;

impl WithSimd for Shape {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> (usize, usize) {
        (S::REGISTER_COUNT, S::F32_LANES)
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_avx2() -> bool {
    pulp::x86::V3::try_new().is_some()
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn has_avx2() -> bool {
    false
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn run_avx2<Op: WithSimd>(op: Op) -> Op::Output {
    match pulp::x86::V3::try_new() {
        Some(simd) => pulp::Simd::vectorize(simd, op),
        None => op.with_simd(pulp::Scalar::new()),
    }
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn run_avx2<Op: WithSimd>(op: Op) -> Op::Output {
    op.with_simd(pulp::Scalar::new())
}

/// Floats that begin at a cache line, so that no vector load straddles two.
#[derive(Clone, Debug, Default)]
pub struct AlignedBuffer {
    lines: Vec<CacheLine>,
    len: usize,
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

impl AlignedBuffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![CacheLine([0.0; 16]); len.div_ceil(16)], len }
    }

    /// Adds zeros until at least `len` floats are there.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(len.div_ceil(16), CacheLine([0.0; 16]));
            self.len = len;
        }
    }

    /// The floats.
    pub fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The floats, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
