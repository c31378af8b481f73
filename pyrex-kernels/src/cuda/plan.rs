//! How cuBLASLt is to multiply matrices of a shape.

use super::blas::WORKSPACE_BYTES;
use crate::gemm::GemmArguments;
use cudarc::cublas::sys::cublasOperation_t;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Description, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasLtReductionScheme_t,
    cudaDataType,
};
use cudarc::driver::CudaStream;
use std::ffi::c_void;

/// What is multiplied, and into what. Sums are in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Types {
    Bf16,
    Bf16IntoF32,
    F32,
}

impl Types {
    /// Of `a` and `b`, and of `c`.
    fn data(self) -> (cudaDataType, cudaDataType) {
        match self {
            Self::Bf16 => (cudaDataType::CUDA_R_16BF, cudaDataType::CUDA_R_16BF),
            Self::Bf16IntoF32 => (cudaDataType::CUDA_R_16BF, cudaDataType::CUDA_R_32F),
            Self::F32 => (cudaDataType::CUDA_R_32F, cudaDataType::CUDA_R_32F),
        }
    }
}

/// All that an algorithm may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    gemm: GemmArguments,
    types: Types,
    /// Of the addresses of `a`, `b` and `c`, in bytes.
    alignments: [u32; 3],
}

impl Shape {
    pub(super) fn new(gemm: GemmArguments, types: Types, operands: [u64; 3]) -> Self {
        // Algorithms make no difference above 256 bytes.
        let alignments = operands.map(|address| 1 << address.trailing_zeros().min(8));
        Self { gemm, types, alignments }
    }
}

/// An algorithm, and the descriptors that it was chosen for.
#[derive(Debug)]
pub(super) struct Plan {
    operation: Operation,
    a: Layout,
    b: Layout,
    c: Layout,
    algorithm: cublasLtMatmulAlgo_t,
}

// SAFETY: descriptors are memory that any thread may read and free.
unsafe impl Send for Plan {}

impl Plan {
    /// Asks the library for the algorithm that it thinks fastest.
    pub(super) fn new(handle: cublasLtHandle_t, shape: &Shape) -> Result<Self, CublasError> {
        let GemmArguments { m, n, k, lda, ldb, ldc, transa, transb } = shape.gemm;
        let (data, out_data) = shape.types.data();
        let stored = |trans: bool, rows: usize, cols: usize| if trans { (cols, rows) } else { (rows, cols) };
        let operation = Operation::new(transa, transb)?;
        let a = Layout::new(data, stored(transa, m, k), lda)?;
        let b = Layout::new(data, stored(transb, k, n), ldb)?;
        let c = Layout::new(out_data, (m, n), ldc)?;
        let wishes = Wishes::new(shape.alignments)?;
        // SAFETY: all descriptors live.
        let found =
            unsafe { result::get_matmul_algo_heuristic(handle, operation.0, a.0, b.0, c.0, c.0, wishes.0)? };
        Ok(Self { operation, a, b, c, algorithm: found.algo })
    }

    /// `c = op(a) · op(b) + beta · c`, with the addresses of all three as `operands` and `WORKSPACE_BYTES` at `workspace`.
    pub(super) fn run(
        &self,
        handle: cublasLtHandle_t,
        operands: [u64; 3],
        beta: f32,
        workspace: u64,
        stream: &CudaStream,
    ) -> Result<(), CublasError> {
        let alpha = 1.0_f32;
        let [a, b, c] = operands.map(|address| address as *mut c_void);
        // SAFETY: the descriptors live, and were held to the lengths of the buffers that the operands are the addresses of; the
        // factors are read before the call returns.
        unsafe {
            result::matmul(
                handle,
                self.operation.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a,
                self.a.0,
                b,
                self.b.0,
                c,
                self.c.0,
                c,
                self.c.0,
                &raw const self.algorithm,
                workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            )
        }
    }
}

/// What is done: two matrices are multiplied, transposed or not.
#[derive(Debug)]
struct Operation(cublasLtMatmulDesc_t);

impl Operation {
    fn new(transa: bool, transb: bool) -> Result<Self, CublasError> {
        // f32 alone: the library may not round to TF32 what it is given in f32.
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let operation = Self(result::create_matmul_desc(compute, cudaDataType::CUDA_R_32F)?);
        let attributes = [
            (Description::CUBLASLT_MATMUL_DESC_TRANSA, transa),
            (Description::CUBLASLT_MATMUL_DESC_TRANSB, transb),
        ];
        for (attribute, trans) in attributes {
            let value = if trans { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N };
            // SAFETY: the attribute is one such number.
            unsafe {
                result::set_matmul_desc_attribute(
                    operation.0,
                    attribute,
                    (&raw const value).cast(),
                    size_of_val(&value),
                )?;
            }
        }
        Ok(operation)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: it is used no more.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// How a matrix lies in memory.
#[derive(Debug)]
struct Layout(cublasLtMatrixLayout_t);

impl Layout {
    fn new(data: cudaDataType, (rows, cols): (usize, usize), stride: usize) -> Result<Self, CublasError> {
        result::create_matrix_layout(data, rows as u64, cols as u64, stride as i64).map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it is used no more.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm must keep to.
#[derive(Debug)]
struct Wishes(cublasLtMatmulPreference_t);

impl Wishes {
    fn new(alignments: [u32; 3]) -> Result<Self, CublasError> {
        let wishes = Self(result::create_matmul_pref()?);
        let [a, b, c] = alignments;
        // Where sums are made in pieces, these are added in f32 and in a fixed order.
        let reduction = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES)?;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction)?;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a)?;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b)?;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c)?;
        wishes.set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c)?;
        Ok(wishes)
    }

    fn set<T: Copy>(&self, attribute: Preference, value: T) -> Result<(), CublasError> {
        // SAFETY: the library compares the size with that of the attribute, and copies the value.
        unsafe {
            result::set_matmul_pref_attribute(self.0, attribute, (&raw const value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Wishes {
    fn drop(&mut self) {
        // SAFETY: it is used no more.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
