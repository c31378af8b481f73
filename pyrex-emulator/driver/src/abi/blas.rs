//! cuBLAS: products of matrices.

use super::{In, Out, always, bound, exports, ready};
use crate::driver::{Driver, Handle, refuse};
use crate::libraries::{Blas, Compute};
use crate::product::{Element, Matrix, Product, Rounding};
use crate::status::{Outcome, Status};
use crate::work::Work;

const VERSION: i32 = 130_000;

/// A status of the driver as cuBLAS and cuBLASLt say it.
pub(super) fn blas_status(status: u32) -> u32 {
    const ALLOC_FAILED: u32 = 3;
    const INVALID_VALUE: u32 = 7;
    const EXECUTION_FAILED: u32 = 13;
    const NOT_SUPPORTED: u32 = 15;
    match Status(status) {
        Status(0) => 0,
        Status::OUT_OF_MEMORY => ALLOC_FAILED,
        Status::INVALID_VALUE | Status::INVALID_HANDLE => INVALID_VALUE,
        Status::NOT_SUPPORTED => NOT_SUPPORTED,
        _ => EXECUTION_FAILED,
    }
}

/// What all of cuBLAS's products take.
struct Call {
    handle: Handle,
    /// How `a` and `b` are taken, as `cublasOperation_t`.
    operations: [u32; 2],
    /// `m`, `n` and `k`.
    sizes: [i32; 3],
    scales: [In<u8>; 2],
    compute: Compute,
    batches: i32,
}

/// An operand: address, element, elements from one column and one batch to the next.
struct Operand(u64, u32, i32, i64);

impl Operand {
    fn matrix(&self, operation: u32) -> Outcome<Matrix> {
        let element = Element::from_code(self.1).ok_or(Status::NOT_SUPPORTED)?;
        let transposed = match operation {
            0 => false,
            // The conjugate of a real number is itself.
            1 | 2 => true,
            _ => return Err(Status::INVALID_VALUE),
        };
        Ok(Matrix { address: self.0, element, leading: i64::from(self.2), stride: self.3, transposed })
    }
}

/// A scale of an operand, from the program's memory.
pub(super) fn scale(element: Element, from: In<u8>) -> Outcome<f64> {
    from.bytes(element.size()).map(|bytes| element.widen(&bytes))
}

/// Refuses what cuBLAS would, and puts the product on a stream.
pub(super) fn multiply(driver: &mut Driver, stream: Handle, compute: Compute, product: Product) -> Outcome {
    let Product { m, n, k, a, b, c, d, .. } = product;
    if !a.fits(m, k) || !b.fits(k, n) || !c.fits(m, n) || !d.fits(m, n) {
        return refuse(Status::INVALID_VALUE, format_args!("columns of a matrix overlap: {product:?}"));
    }
    if !compute.takes([a.element, b.element], d.element) || c.element != d.element {
        return refuse(
            Status::NOT_SUPPORTED,
            format_args!("cuBLAS has no such product: {compute:?}, {product:?}"),
        );
    }
    driver.enqueue(stream, Work::Product(product))
}

fn gemm(driver: &mut Driver, call: &Call, [a, b, c]: [Operand; 3]) -> Outcome {
    const TF32_MATH: u32 = 3;
    let blas = *driver.libraries.blas.get(&call.handle).ok_or(Status::INVALID_HANDLE)?;
    if blas.pointer_mode != 0 {
        return refuse(Status::NOT_SUPPORTED, "scales of a product lie on the device");
    }
    let size = |size: i32| usize::try_from(size).map_err(|_| Status::INVALID_VALUE);
    let element = call.compute.scale()?;
    let c = c.matrix(0)?;
    let mut rounding = call.compute.rounding();
    if rounding == Rounding::None && element == Element::F32 && blas.math_mode & 0xf == TF32_MATH {
        rounding = Rounding::Tf32;
    }
    let product = Product {
        m: size(call.sizes[0])?,
        n: size(call.sizes[1])?,
        k: size(call.sizes[2])?,
        batches: size(call.batches)?,
        alpha: scale(element, call.scales[0])?,
        beta: scale(element, call.scales[1])?,
        a: a.matrix(call.operations[0])?,
        b: b.matrix(call.operations[1])?,
        c,
        d: c,
        rounding,
    };
    multiply(driver, blas.stream, call.compute, product)
}

fn with(handle: Handle, change: impl FnOnce(&mut Blas) -> Outcome) -> u32 {
    blas_status(ready(|driver| change(driver.libraries.blas.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?)))
}

exports! {
    fn cublasCreate_v2(handle: Out<u64>) = blas_status(bound(|driver| {
        driver.refuse_while_capturing("a handle of cuBLAS is made")?;
        let new = driver.next_handle();
        driver.libraries.blas.insert(new, Blas::default());
        handle.put(new)
    }));
    /// Waits for the context.
    fn cublasDestroy_v2(handle: u64) = blas_status(always(|driver| {
        driver.spoil_captures("cuBLAS is closed");
        driver.libraries.blas.remove(&handle).map(drop).ok_or(Status::INVALID_HANDLE)
    }));
    fn cublasGetVersion_v2(_handle: u64, version: Out<i32>) = blas_status(always(|_| version.put(VERSION)));
    fn cublasSetStream_v2(handle: u64, stream: u64) = with(handle, |blas| {
        blas.stream = stream;
        Ok(())
    });
    fn cublasGetStream_v2(handle: u64, stream: Out<u64>) = with(handle, |blas| stream.put(blas.stream));
    fn cublasSetMathMode(handle: u64, mode: u32) = with(handle, |blas| {
        blas.math_mode = mode;
        Ok(())
    });
    fn cublasGetMathMode(handle: u64, mode: Out<u32>) = with(handle, |blas| mode.put(blas.math_mode));
    fn cublasSetPointerMode_v2(handle: u64, mode: u32) = with(handle, |blas| {
        blas.pointer_mode = mode;
        Ok(())
    });
    fn cublasGetPointerMode_v2(handle: u64, mode: Out<u32>) =
        with(handle, |blas| mode.put(blas.pointer_mode));
    /// The emulator needs no workspace, but it must be the device's.
    fn cublasSetWorkspace_v2(handle: u64, workspace: u64, bytes: usize) = blas_status(ready(|driver| {
        driver.libraries.blas.get(&handle).ok_or(Status::INVALID_HANDLE)?;
        let ends = [workspace, workspace + (bytes as u64).saturating_sub(1)];
        match bytes == 0 || ends.into_iter().all(|end| driver.memory.is_device(end)) {
            true => Ok(()),
            false => refuse(Status::INVALID_VALUE, "the workspace of cuBLAS is not the device's"),
        }
    }));

    fn cublasGemmEx(
        handle: u64, a_op: u32, b_op: u32, m: i32, n: i32, k: i32, alpha: In<u8>,
        a: u64, a_type: u32, lda: i32, b: u64, b_type: u32, ldb: i32, beta: In<u8>,
        c: u64, c_type: u32, ldc: i32, compute: u32, _algorithm: i32,
    ) = blas_status(bound(|driver| {
        let (operations, sizes, scales, compute) = ([a_op, b_op], [m, n, k], [alpha, beta], Compute(compute));
        let call = Call { handle, operations, sizes, scales, compute, batches: 1 };
        let (a, b) = (Operand(a, a_type, lda, 0), Operand(b, b_type, ldb, 0));
        gemm(driver, &call, [a, b, Operand(c, c_type, ldc, 0)])
    }));
    fn cublasGemmStridedBatchedEx(
        handle: u64, a_op: u32, b_op: u32, m: i32, n: i32, k: i32, alpha: In<u8>,
        a: u64, a_type: u32, lda: i32, a_stride: i64, b: u64, b_type: u32, ldb: i32, b_stride: i64,
        beta: In<u8>, c: u64, c_type: u32, ldc: i32, c_stride: i64,
        batches: i32, compute: u32, _algorithm: i32,
    ) = blas_status(bound(|driver| {
        let (operations, sizes, scales, compute) = ([a_op, b_op], [m, n, k], [alpha, beta], Compute(compute));
        let call = Call { handle, operations, sizes, scales, compute, batches };
        let (a, b) = (Operand(a, a_type, lda, a_stride), Operand(b, b_type, ldb, b_stride));
        gemm(driver, &call, [a, b, Operand(c, c_type, ldc, c_stride)])
    }));
}

/// The products that are named after what they multiply.
macro_rules! named {
    ($($name:ident, $batched:ident: $element:literal, $compute:literal;)*) => {
        exports! {
            $(fn $name(
                handle: u64, a_op: u32, b_op: u32, m: i32, n: i32, k: i32, alpha: In<u8>,
                a: u64, lda: i32, b: u64, ldb: i32, beta: In<u8>, c: u64, ldc: i32,
            ) = cublasGemmEx(
                handle, a_op, b_op, m, n, k, alpha, a, $element, lda, b, $element, ldb,
                beta, c, $element, ldc, $compute, -1,
            );
            fn $batched(
                handle: u64, a_op: u32, b_op: u32, m: i32, n: i32, k: i32, alpha: In<u8>,
                a: u64, lda: i32, a_stride: i64, b: u64, ldb: i32, b_stride: i64,
                beta: In<u8>, c: u64, ldc: i32, c_stride: i64, batches: i32,
            ) = cublasGemmStridedBatchedEx(
                handle, a_op, b_op, m, n, k, alpha, a, $element, lda, a_stride, b, $element, ldb, b_stride,
                beta, c, $element, ldc, c_stride, batches, $compute, -1,
            );)*
        }
    };
}

named! {
    cublasHgemm, cublasHgemmStridedBatched: 2, 64;
    cublasSgemm_v2, cublasSgemmStridedBatched: 0, 68;
    cublasDgemm_v2, cublasDgemmStridedBatched: 1, 70;
}
