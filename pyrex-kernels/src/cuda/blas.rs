//! Products of many rows by cuBLASLt.

use super::captures::between_captures;
use super::memory::Scratch;
use super::plan::{Plan, Shape, Types};
use super::{Stream, failed};
use crate::buffer::{Buffer, Element};
use crate::elementwise::clamp;
use crate::error::{Error, Result};
use crate::gemm::gemm_arguments;
use crate::products::{Clip, MAX_FEW_ROWS, Product, check, few_rows, is_bf16, many_rows, split_f32};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{cublasLtHandle_t, cublasStatus_t};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// What cuBLASLt may use for itself, as NVIDIA advises for Hopper. It never grows, so that calls can be captured.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// cuBLASLt on a stream. The algorithm for a shape is chosen when it is first met, and kept: the same product has the same bits.
#[derive(Debug)]
pub struct Blas {
    queue: Stream,
    handle: cublasLtHandle_t,
    workspace: Scratch,
    /// None where the library knows no algorithm.
    plans: Mutex<HashMap<Shape, Option<Plan>>>,
}

// SAFETY: the handle may be used by any thread, and the rest is.
unsafe impl Send for Blas {}
// SAFETY: as above; the library locks what is behind its handle.
unsafe impl Sync for Blas {}

impl Blas {
    /// cuBLASLt on `queue`'s stream, with 32 MiB of the device for itself.
    ///
    /// # Errors
    /// `OutOfMemory` if there are none; `Driver` if the library cannot be set up.
    pub fn new(queue: &Stream) -> Result<Self> {
        let workspace = Scratch::new(queue.stream(), WORKSPACE_BYTES)?;
        let handle = result::create_handle().map_err(|error| refused("cuBLASLt", error))?;
        Ok(Self { queue: queue.clone(), handle, workspace, plans: Mutex::default() })
    }

    /// `product` of any number of rows and any dtypes, each where it is fastest: up to [`MAX_FEW_ROWS`] rows by [`few_rows`],
    /// more by cuBLASLt, and what that does not know, or could not clamp exactly, by [`many_rows`].
    ///
    /// Sums are in f32. f32 with bf16 is three products on tensor cores, one for each part of `x`, which lose nothing of it; f32
    /// with f32 is one in f32, not TF32. Tensor cores add less exactly than f32 does: sums of 3072 were some 3e-6 off in a model of
    /// them, against 1e-6.
    ///
    /// # Errors
    /// `Arguments` if buffers and sizes do not fit, `OutOfMemory`, `Driver`.
    pub fn product(&self, product: &Product<'_>) -> Result<()> {
        check(product)?;
        if product.rows <= MAX_FEW_ROWS {
            return few_rows(&self.queue, product);
        }
        let clip = product.clip.unwrap_or(Clip::NONE);
        let is_done = match (product.x.element(), product.weight.element()) {
            _ if product.cols == 0 || product.out_cols == 0 => false,
            (Element::F32, Element::Bf16) => self.in_parts(product, &clip)?,
            (Element::F32, Element::F32) => self.clamped(product, &clip, Types::F32)?,
            (Element::Bf16, Element::Bf16) if is_bf16(clip.input.0) && is_bf16(clip.input.1) => {
                self.clamped(product, &clip, Types::Bf16)?
            }
            _ => false,
        };
        if !is_done {
            return many_rows(&self.queue, product);
        }
        if clip.output != Clip::NONE.output {
            clamp(&self.queue, product.out, clip.output.0, clip.output.1, product.out)?;
        }
        Ok(())
    }

    /// The product of f32 with bf16, if the library knows how. The small parts come first, so that they are not lost against a
    /// large sum.
    fn in_parts(&self, product: &Product<'_>, clip: &Clip) -> Result<bool> {
        let len = product.x.len();
        let scratch = Scratch::new(self.queue.stream(), 3 * len * Element::Bf16.size())?;
        let parts = scratch.buffer(0, 3 * len, Element::Bf16);
        split_f32(&self.queue, product.x, Some(clip.input), parts)?;
        for (part, beta) in [(2, 0.0), (1, 1.0), (0, 1.0)] {
            let x = scratch.buffer(part * len * Element::Bf16.size(), len, Element::Bf16);
            if !self.multiply(product, x, Types::Bf16IntoF32, beta)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The product of what the input's bounds leave of `x`, if the library knows how.
    fn clamped(&self, product: &Product<'_>, clip: &Clip, types: Types) -> Result<bool> {
        let x = product.x;
        if clip.input == Clip::NONE.input {
            return self.multiply(product, x, types, 0.0);
        }
        let scratch = Scratch::new(self.queue.stream(), x.len() * x.element().size())?;
        let clamped = scratch.buffer(0, x.len(), x.element());
        clamp(&self.queue, x, clip.input.0, clip.input.1, clamped)?;
        self.multiply(product, clamped, types, 0.0)
    }

    /// `out = x · Wᵀ + beta · out`, if the library knows how; nothing is done if not.
    fn multiply(&self, product: &Product<'_>, x: Buffer<'_>, types: Types, beta: f32) -> Result<bool> {
        let context = self.queue.stream().context();
        context.bind_to_thread().map_err(|error| failed("cuBLASLt", error))?;
        let operands = [product.weight.address(), x.address(), product.out.address()];
        let shape = Shape::new(gemm_arguments(product), types, operands);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |error| refused(&format!("{shape:?}"), error);
        let plan = match plans.entry(shape) {
            Entry::Occupied(plan) => plan.into_mut(),
            Entry::Vacant(place) => place.insert(match Plan::new(self.handle, &shape) {
                Err(CublasError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => None,
                plan => Some(plan.map_err(refused)?),
            }),
        };
        let Some(plan) = plan else { return Ok(false) };
        plan.run(self.handle, operands, beta, self.workspace.address(), self.queue.stream())
            .map_err(refused)?;
        Ok(true)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.plans.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        let context = self.queue.stream().context();
        context.record_err(context.bind_to_thread());
        // SAFETY: the handle is used no more. The library waits for the context, and cannot say anything that could be acted upon.
        let _ = between_captures(|| unsafe { result::destroy_handle(self.handle) });
    }
}

/// What cuBLASLt said while `what` was done.
fn refused(what: &str, error: CublasError) -> Error {
    match error.0 {
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Error::OutOfMemory(format!("{what}: {error}")),
        _ => Error::Driver(format!("{what}: {error}")),
    }
}
