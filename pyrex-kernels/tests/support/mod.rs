//! What the kernels' tests share: the emulator as a queue, numbers, and how far two results lie apart.

#![allow(dead_code, reason = "each test uses its own half")]

use half::{bf16, f16};
use pyrex_emulator::{Device, LaunchShape, Report};
use pyrex_kernels::products::Clip;
use pyrex_kernels::{Argument, Buffer, Element, Error, Launch, Queue, Result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

/// The emulator as a queue: a launch has run when it returns.
#[derive(Default)]
pub(crate) struct Emulated {
    device: Device,
    /// What a block may have of shared memory; all that there is in the largest if not given.
    max_shared_bytes: Option<u32>,
    modules: RefCell<HashMap<&'static str, Arc<pyrex_emulator::Module>>>,
    last: Cell<Report>,
    reports: RefCell<HashMap<String, Report>>,
}

impl Queue for Emulated {
    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        assert!(launch.shared_bytes() <= self.max_shared_bytes(), "{}", launch.kernel());
        let fault = |fault: pyrex_emulator::Fault| Error::Driver(fault.message);
        let name = launch.module().name;
        let known = self.modules.borrow().get(name).cloned();
        let module = match known {
            Some(module) => module,
            None => {
                let module = Arc::new(pyrex_emulator::Module::parse(launch.module().ptx).map_err(fault)?);
                self.modules.borrow_mut().insert(name, Arc::clone(&module));
                module
            }
        };
        let shape =
            LaunchShape { grid: launch.grid(), block: launch.block(), shared_bytes: launch.shared_bytes() };
        let parameters: Vec<_> =
            launch.arguments().iter().map(|argument| Argument::to_bytes(*argument)).collect();
        self.last.set(self.device.launch(&module, launch.kernel(), shape, &parameters).map_err(fault)?);
        self.reports.borrow_mut().insert(launch.kernel().to_owned(), self.last.get());
        Ok(())
    }

    fn multiprocessors(&self) -> u32 {
        132
    }

    fn max_shared_bytes(&self) -> u32 {
        self.max_shared_bytes.unwrap_or(227 << 10)
    }
}

impl Emulated {
    /// A device whose blocks and warps run in another order for each `seed`.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self { device: Device::with_seed(seed), ..Self::default() }
    }

    /// A device on whose blocks no more shared memory is spent.
    pub(crate) fn with_shared_bytes(max_shared_bytes: u32) -> Self {
        Self { max_shared_bytes: Some(max_shared_bytes), ..Self::default() }
    }

    /// What the last launch did.
    pub(crate) fn report(&self) -> Report {
        self.last.get()
    }

    /// What the last launch of `kernel` did.
    pub(crate) fn report_of(&self, kernel: &str) -> Report {
        *self.reports.borrow().get(kernel).expect("launched")
    }

    /// `values` rounded to `element`, on the device.
    pub(crate) fn upload(&self, element: Element, values: &[f32]) -> Buffer<'_> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| to_bytes(element, *value)).collect();
        self.upload_bytes(element, &bytes)
    }

    /// Ids, on the device.
    pub(crate) fn upload_u32(&self, values: &[u32]) -> Buffer<'_> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.upload_bytes(Element::U32, &bytes)
    }

    fn upload_bytes(&self, element: Element, bytes: &[u8]) -> Buffer<'_> {
        let buffer = self.unwritten(element, bytes.len() / element.size());
        self.device.write(buffer.address(), bytes).expect("just allocated");
        buffer
    }

    /// Writes `values`, rounded, to where `buffer` is.
    pub(crate) fn fill(&self, buffer: Buffer<'_>, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| to_bytes(buffer.element(), *value)).collect();
        self.device.write(buffer.address(), &bytes).expect("inside what is allocated");
    }

    /// Room for `len` elements that nobody has written: reading one before a kernel wrote it is a fault.
    pub(crate) fn unwritten(&self, element: Element, len: usize) -> Buffer<'_> {
        let address = self.device.allocate(len * element.size());
        // SAFETY: the emulator frees nothing before it is dropped, and launches have run when they return.
        unsafe { Buffer::new(address, len, element) }
    }

    /// As `upload`, `shift` elements behind where an allocation begins.
    pub(crate) fn upload_at(&self, shift: usize, element: Element, values: &[f32]) -> Buffer<'_> {
        let buffer = self.upload(element, &[vec![0.0; shift], values.to_vec()].concat());
        buffer.slice(shift, values.len()).expect("just so long")
    }

    /// As `unwritten`, `shift` elements behind where an allocation begins.
    pub(crate) fn unwritten_at(&self, shift: usize, element: Element, len: usize) -> Buffer<'_> {
        self.unwritten(element, shift + len).slice(shift, len).expect("just so long")
    }

    /// `len` elements of `buffer` from `first` on.
    pub(crate) fn part<'a>(&'a self, buffer: Buffer<'a>, first: usize, len: usize) -> Buffer<'a> {
        assert!(first + len <= buffer.len(), "{first} + {len} of {}", buffer.len());
        let address = buffer.address() + (first * buffer.element().size()) as u64;
        // SAFETY: it lies in a buffer of this emulator.
        unsafe { Buffer::new(address, len, buffer.element()) }
    }

    /// Whether all of `buffer` was written.
    pub(crate) fn is_written(&self, buffer: Buffer<'_>) -> bool {
        let mut bytes = vec![0; buffer.len() * buffer.element().size()];
        self.device.read(buffer.address(), &mut bytes).is_ok()
    }

    /// What lies in `buffer`, widened.
    pub(crate) fn download(&self, buffer: Buffer<'_>) -> Vec<f32> {
        let size = buffer.element().size();
        let mut bytes = vec![0; buffer.len() * size];
        self.device.read(buffer.address(), &mut bytes).expect("all of it was written");
        bytes.chunks_exact(size).map(|bytes| from_bytes(buffer.element(), bytes)).collect()
    }

    /// What lies in `buffer`, as ids.
    pub(crate) fn download_u32(&self, buffer: Buffer<'_>) -> Vec<u32> {
        let mut bytes = vec![0; buffer.len() * 4];
        self.device.read(buffer.address(), &mut bytes).expect("all of it was written");
        bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four"))).collect()
    }
}

/// `value` as `element` holds it, and back: what a kernel sees of it.
pub(crate) fn round(element: Element, value: f32) -> f32 {
    from_bytes(element, &to_bytes(element, value))
}

pub(crate) fn to_bytes(element: Element, value: f32) -> Vec<u8> {
    match element {
        Element::F32 => value.to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Element::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Element::U32 => (value as u32).to_le_bytes().to_vec(),
        Element::U8 => vec![value as u8],
    }
}

pub(crate) fn from_bytes(element: Element, bytes: &[u8]) -> f32 {
    match element {
        Element::F32 => f32::from_le_bytes(bytes.try_into().expect("four")),
        Element::Bf16 => bf16::from_le_bytes(bytes.try_into().expect("two")).to_f32(),
        Element::F16 => f16::from_le_bytes(bytes.try_into().expect("two")).to_f32(),
        Element::U32 => u32::from_le_bytes(bytes.try_into().expect("four")) as f32,
        Element::U8 => f32::from(bytes[0]),
    }
}

/// Numbers of about `−2..2` that follow from `seed`, already rounded to `element`.
pub(crate) fn noise(element: Element, len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 4.0
    };
    (0..len).map(|_| round(element, next())).collect()
}

/// `values` as `element` holds them.
pub(crate) fn rounded(element: Element, values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| f64::from(round(element, *value as f32))).collect()
}

/// `clamp(clamp(x) · Wᵀ)` in f64, of `[T, C]` and `[N, C]` with these three sizes.
pub(crate) fn product(
    x: &[f32],
    weight: &[f32],
    (rows, cols, out_cols): (usize, usize, usize),
    clip: &Clip,
) -> Vec<f64> {
    let (input, output) = (clip.input, clip.output);
    let sum = |row: usize, out_col: usize| -> f64 {
        let pairs = x[row * cols..][..cols].iter().zip(&weight[out_col * cols..][..cols]);
        pairs.map(|(x, weight)| f64::from(x.clamp(input.0, input.1)) * f64::from(*weight)).sum()
    };
    let outs = (0..rows).flat_map(|row| (0..out_cols).map(move |out_col| (row, out_col)));
    outs.map(|(row, out_col)| sum(row, out_col).clamp(output.0.into(), output.1.into())).collect()
}

/// `‖got − wanted‖ / ‖wanted‖`; NaN if either has one.
pub(crate) fn relative_l2(got: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let error: f64 = got.iter().zip(wanted).map(|(got, wanted)| (f64::from(*got) - wanted).powi(2)).sum();
    let norm: f64 = wanted.iter().map(|wanted| wanted.powi(2)).sum();
    (error / norm).sqrt()
}

/// Holds `got` to `wanted` within `bound`, which NaN never is.
#[track_caller]
pub(crate) fn close(what: &str, got: &[f32], wanted: &[f64], bound: f64) {
    let error = relative_l2(got, wanted);
    assert!(error <= bound, "{what}: relative L2 {error:e}, expected at most {bound:e}");
}

/// `r(x · (mean(x²) + eps)^-½ · weight)` of each row, as f64 has it where `element` is f32.
pub(crate) fn rms_norm_formula(
    element: Element,
    x: &[f32],
    weight: Option<&[f32]>,
    eps: f32,
    width: usize,
) -> Vec<f64> {
    let rows = x.chunks_exact(width).flat_map(|row| {
        let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
        let factor = (mean + f64::from(eps)).powf(-0.5);
        let weight = |i| weight.map_or(1.0, |weight: &[f32]| f64::from(weight[i]));
        row.iter().enumerate().map(move |(i, x)| f64::from(*x) * factor * weight(i))
    });
    rows.map(|x| nearest(element, x)).collect()
}

/// `x` rounded to bf16 or f16; as exact as it is for f32, whose roundings a bound allows for.
pub(crate) fn nearest(element: Element, x: f64) -> f64 {
    if element == Element::F32 { x } else { f64::from(round(element, x as f32)) }
}

/// Numbers as the references have them.
pub(crate) fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
