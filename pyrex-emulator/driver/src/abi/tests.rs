//! The functions as a program in C calls them. They share the driver of the process, so this is one story.

use super::bound;
use crate::report::Counters;
use crate::status::Status;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{from_ref, null, null_mut};

unsafe extern "C" {
    fn cuInit(flags: u32) -> u32;
    fn cuGetErrorName(status: u32, words: *mut *const c_char) -> u32;
    fn cuDeviceGetCount(count: *mut i32) -> u32;
    fn cuDeviceGetName(name: *mut c_char, room: i32, device: i32) -> u32;
    fn cuDeviceGetAttribute(value: *mut i32, number: u32, device: i32) -> u32;
    fn cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) -> u32;
    fn cuCtxSetCurrent(context: u64) -> u32;
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: u64) -> u32;
    fn cuMemFreeAsync(address: u64, stream: u64) -> u32;
    fn cuMemHostAlloc(address: *mut *mut f32, bytes: usize, flags: u32) -> u32;
    fn cuMemFreeHost(address: *mut f32) -> u32;
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const f32, bytes: usize, stream: u64) -> u32;
    fn cuMemcpyDtoHAsync_v2(to: *mut f32, from: u64, bytes: usize, stream: u64) -> u32;
    fn cuMemcpy2D_v2(copy: *const u64) -> u32;
    fn cuStreamSynchronize(stream: u64) -> u32;
    fn cuModuleLoadData(module: *mut u64, image: *const c_char) -> u32;
    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) -> u32;
    fn cuLaunchKernel(
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        arguments: *const *const c_void,
        extra: *const c_void,
    ) -> u32;
    fn cublasCreate_v2(handle: *mut u64) -> u32;
    fn cublasDestroy_v2(handle: u64) -> u32;
    fn cublasSetStream_v2(handle: u64, stream: u64) -> u32;
    fn cublasSgemm_v2(
        handle: u64,
        a_op: u32,
        b_op: u32,
        m: i32,
        n: i32,
        k: i32,
        alpha: *const f32,
        a: u64,
        lda: i32,
        b: u64,
        ldb: i32,
        beta: *const f32,
        c: u64,
        ldc: i32,
    ) -> u32;
    fn cublasLtCreate(handle: *mut u64) -> u32;
    fn cublasLtDestroy(handle: u64) -> u32;
    fn cublasLtMatrixLayoutCreate(
        layout: *mut u64,
        element: u32,
        rows: u64,
        columns: u64,
        leading: i64,
    ) -> u32;
    fn cublasLtMatrixLayoutSetAttribute(layout: u64, number: u32, value: *const i32, bytes: usize) -> u32;
    fn cublasLtMatmulDescCreate(description: *mut u64, compute: u32, scale: u32) -> u32;
    fn cublasLtMatmulDescSetAttribute(description: u64, number: u32, value: *const u32, bytes: usize) -> u32;
    fn cublasLtMatmul(
        handle: u64,
        description: u64,
        alpha: *const f32,
        a: u64,
        a_layout: u64,
        b: u64,
        b_layout: u64,
        beta: *const f32,
        c: u64,
        c_layout: u64,
        d: u64,
        d_layout: u64,
        algorithm: *const c_void,
        workspace: u64,
        bytes: usize,
        stream: u64,
    ) -> u32;
    fn curandCreateGenerator(generator: *mut u64, kind: u32) -> u32;
    fn curandSetStream(generator: u64, stream: u64) -> u32;
    fn curandGenerateUniform(generator: u64, to: u64, len: usize) -> u32;
    fn pyrex_emulator_counters(counters: *mut Counters, bytes: usize) -> u32;
}

/// The stream of the thread.
const STREAM: u64 = 2;

/// # Safety
/// Nothing: all addresses that are passed here are there.
unsafe fn begin() {
    let (mut count, mut context, mut major) = (0, 0, 0);
    let mut name = [0; 32];
    // SAFETY: as the function says.
    unsafe {
        assert_eq!(cuDeviceGetCount(&mut count), Status::NOT_INITIALIZED.0);
        assert_eq!((cuInit(1), cuInit(0), cuDeviceGetCount(&mut count), count), (1, 0, 0, 1));
        assert_eq!((cuDeviceGetName(name.as_mut_ptr(), 32, 0), cuDeviceGetName(null_mut(), 32, 0)), (0, 1));
        assert_eq!(CStr::from_ptr(name.as_ptr()), c"PTX emulator");
        assert_eq!((cuDeviceGetAttribute(&mut major, 75, 0), major), (0, 9));
        assert_eq!(cuDeviceGetAttribute(&mut major, 75, 1), Status::INVALID_DEVICE.0);
        assert_eq!(cuMemGetInfo_v2(null_mut(), null_mut()), Status::INVALID_CONTEXT.0);
        assert_eq!((cuDevicePrimaryCtxRetain(&mut context, 0), cuCtxSetCurrent(context)), (0, 0));
        assert_eq!(cuMemGetInfo_v2(null_mut(), null_mut()), Status::INVALID_VALUE.0);
    }
    assert_eq!(bound(|_| panic!("of this test: a panic is a status")), Status::UNKNOWN.0);
}

/// What `[2, 1] · [1, 2]` of f32 is, with the numbers that lie at `memory`; the second operand is a row that is taken as it lies.
///
/// # Safety
/// Nothing: all addresses that are passed here are there.
unsafe fn multiply_by_attributes(memory: u64, out: u64) {
    let (mut lt, mut column, mut square, mut description) = (0, 0, 0, 0);
    let (one, zero, transposed, activated) = (1.0, 0.0, 1u32, 32u32);
    // SAFETY: as the function says.
    unsafe {
        assert_eq!(cublasLtCreate(&mut lt), 0);
        assert_eq!(cublasLtMatrixLayoutCreate(&mut column, 0, 2, 1, 2), 0);
        assert_eq!(cublasLtMatrixLayoutCreate(&mut square, 0, 2, 2, 2), 0);
        assert_eq!(cublasLtMatmulDescCreate(&mut description, 68, 0), 0);
        let multiply = || {
            let (null, stream) = (null(), STREAM);
            cublasLtMatmul(
                lt,
                description,
                &one,
                memory,
                column,
                memory,
                column,
                &zero,
                out,
                square,
                out,
                square,
                null,
                0,
                0,
                stream,
            )
        };
        assert_eq!(multiply(), 7, "columns of two do not fit columns of two");
        assert_eq!(cublasLtMatmulDescSetAttribute(description, 4, &transposed, 4), 0);
        assert_eq!(multiply(), 0);
        assert_eq!(cublasLtMatmulDescSetAttribute(description, 7, &activated, 4), 0);
        assert_eq!(multiply(), 15, "there is no GELU");
        assert_eq!(cublasLtMatrixLayoutSetAttribute(square, 5, &2, 4), 0);
        assert_eq!((multiply(), cublasLtDestroy(lt), multiply()), (15, 0, 7));
    }
}

#[test]
fn a_program_in_c() {
    let (mut memory, mut out_of_products, mut module, mut function) = (0, 0, 0, 0);
    let (mut blas, mut random) = (0, 0);
    let mut pinned: *mut f32 = null_mut();
    let mut counters = Counters::default();
    // SAFETY: all addresses that are passed here are there, and of the size that is said.
    unsafe {
        begin();
        assert_eq!(cuMemAllocAsync(&mut memory, 16, STREAM), 0);
        assert_eq!(cuMemAllocAsync(&mut out_of_products, 16, STREAM), 0);
        let numbers = [3f32, 2.0];
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, numbers.as_ptr(), 8, STREAM), 0);

        let ptx = concat!(include_str!("../tests/multiply.ptx"), "\0");
        assert_eq!(cuModuleLoadData(&mut module, c"\x7fELF".as_ptr()), Status::NO_BINARY_FOR_GPU.0);
        assert_eq!(cuModuleLoadData(&mut module, ptx.as_ptr().cast()), 0);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"multiplies".as_ptr()), Status::NOT_FOUND.0);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"multiply".as_ptr()), 0);
        let (a, b, out, len) = (memory, memory + 4, memory + 8, 1u32);
        let arguments =
            [from_ref(&a).cast(), from_ref(&b).cast(), from_ref(&out).cast(), from_ref(&len).cast()];
        let arguments = arguments.as_ptr();
        assert_eq!(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, STREAM, arguments, null()), 0);

        assert_eq!((cublasCreate_v2(&mut blas), cublasSetStream_v2(blas, STREAM)), (0, 0));
        let (one, zero) = (1.0, 0.0);
        assert_eq!(
            cublasSgemm_v2(blas, 0, 0, 1, 1, 1, &one, memory, 1, memory + 8, 1, &zero, memory + 12, 1),
            0
        );
        assert_eq!(
            cublasSgemm_v2(blas, 0, 0, 2, 1, 1, &one, memory, 1, memory + 8, 1, &zero, memory + 12, 1),
            7
        );
        assert_eq!((cublasDestroy_v2(blas), cublasDestroy_v2(blas)), (0, 7));

        assert_eq!(cuMemHostAlloc(&mut pinned, 16, 0), 0);
        assert_eq!((cuMemcpyDtoHAsync_v2(pinned, memory, 16, STREAM), cuStreamSynchronize(STREAM)), (0, 0));
        let got = std::slice::from_raw_parts(pinned, 4);
        assert_eq!(got, [3.0, 2.0, 6.0, 18.0]);

        // Two rows of one number, which lie two apart on the device.
        let mut rows = [0f32; 2];
        let to = [0, 0, 1, rows.as_mut_ptr().expose_provenance() as u64, 0, 0, 4];
        let from = [4, 0, 2, 0, memory, 0, 8];
        let copy: Vec<u64> = [&from[..], &to[..], &[4, 2]].concat();
        assert_eq!(cuMemcpy2D_v2(copy.as_ptr()), 0);
        assert_eq!(rows, [got[1], got[3]]);

        multiply_by_attributes(memory, out_of_products);
        let mut products = [0f32; 4];
        assert_eq!(cuMemcpyDtoHAsync_v2(products.as_mut_ptr(), out_of_products, 16, STREAM), 0);
        assert_eq!(products, [9.0, 6.0, 6.0, 4.0]);
        assert_eq!(cuMemFreeAsync(out_of_products, STREAM), 0);

        assert_eq!((curandCreateGenerator(&mut random, 100), curandSetStream(random, STREAM)), (0, 0));
        assert_eq!(curandGenerateUniform(random, memory, 4), 0);
        assert_eq!((cuMemFreeHost(pinned), cuMemFreeHost(pinned)), (0, 1));
        assert_eq!((cuMemFreeAsync(memory, STREAM), cuMemFreeAsync(memory, STREAM)), (0, 1));

        assert_eq!(pyrex_emulator_counters(&mut counters, size_of::<Counters>()), 0);
        assert_eq!((counters.launches, counters.products, counters.live_allocations), (1, 2, 0));
        assert_eq!((counters.synchronizations, counters.pageable_copies), (3, 3));
        assert_eq!((counters.bytes_to_device, counters.bytes_to_host), (8, 40));
        let mut name = null();
        assert_eq!((cuGetErrorName(700, &mut name), cuGetErrorName(12_345, &mut name)), (0, 1));
        assert_eq!(CStr::from_ptr(name), c"CUDA_ERROR_ILLEGAL_ADDRESS");
    }
}
