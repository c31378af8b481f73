//! cuBLASLt: products whose every property is an attribute.

use super::blas::{blas_status, multiply, scale};
use super::{In, Out, always, bound, exports, ready};
use crate::driver::{Driver, Handle, refuse};
use crate::libraries::{Attributes, Compute};
use crate::product::{Element, Matrix, Product};
use crate::status::{Outcome, Status};

/// Attributes of a layout.
mod layout {
    pub(super) const TYPE: u32 = 0;
    pub(super) const ORDER: u32 = 1;
    pub(super) const ROWS: u32 = 2;
    pub(super) const COLUMNS: u32 = 3;
    pub(super) const LEADING: u32 = 4;
    pub(super) const BATCHES: u32 = 5;
    pub(super) const STRIDE: u32 = 6;
}

/// Attributes of a product.
mod product {
    pub(super) const COMPUTE_TYPE: u32 = 0;
    pub(super) const SCALE_TYPE: u32 = 1;
    pub(super) const POINTER_MODE: u32 = 2;
    pub(super) const A_OPERATION: u32 = 3;
    pub(super) const B_OPERATION: u32 = 4;
    pub(super) const C_OPERATION: u32 = 5;
    pub(super) const EPILOGUE: u32 = 7;
}

/// `cublasLtMatmulHeuristicResult_t`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Heuristic {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: u32,
    waves: f32,
    reserved: [i32; 4],
}

/// A matrix as a program gives it: where, and its layout.
struct Operand(u64, Handle);

fn attributes(driver: &Driver, handle: Handle) -> Outcome<&Attributes> {
    driver.libraries.attributes.get(&handle).ok_or(Status::INVALID_HANDLE)
}

fn create(driver: &mut Driver, handle: Out<u64>, values: &[(u32, Vec<u8>)]) -> Outcome {
    let mut attributes = Attributes::default();
    values.iter().for_each(|(number, value)| attributes.set(*number, value.clone()));
    let new = driver.next_handle();
    driver.libraries.attributes.insert(new, attributes);
    handle.put(new)
}

fn destroy(handle: Handle) -> u32 {
    blas_status(always(|driver| {
        driver.libraries.attributes.remove(&handle).map(drop).ok_or(Status::INVALID_HANDLE)
    }))
}

fn set(handle: Handle, number: u32, value: In<u8>, bytes: usize) -> u32 {
    blas_status(ready(|driver| {
        let attributes = driver.libraries.attributes.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?;
        attributes.set(number, value.bytes(bytes)?);
        Ok(())
    }))
}

/// A matrix, and its rows, columns and batches as it lies there.
fn matrix(driver: &Driver, operand: &Operand, operation: u32) -> Outcome<(Matrix, [u64; 2], i32)> {
    let layout = attributes(driver, operand.1)?;
    let word = |number, default: u32| layout.get(number, default.to_le_bytes()).map(u32::from_le_bytes);
    let long = |number| layout.get(number, [0; 8]).map(u64::from_le_bytes);
    if word(layout::ORDER, 0)? != 0 || operation > 2 {
        return Err(Status::NOT_SUPPORTED);
    }
    let element = Element::from_code(word(layout::TYPE, 0)?).ok_or(Status::NOT_SUPPORTED)?;
    let (leading, stride) = (long(layout::LEADING)?.cast_signed(), long(layout::STRIDE)?.cast_signed());
    let matrix = Matrix { address: operand.0, element, leading, stride, transposed: operation != 0 };
    let shape = [long(layout::ROWS)?, long(layout::COLUMNS)?];
    Ok((matrix, shape, word(layout::BATCHES, 1)?.cast_signed()))
}

/// The product that is described, but for its scales.
fn described(
    driver: &Driver,
    handle: Handle,
    operands: [&Operand; 4],
) -> Outcome<(Compute, Element, Product)> {
    let description = attributes(driver, handle)?;
    let word = |number, default: u32| description.get(number, default.to_le_bytes()).map(u32::from_le_bytes);
    let compute = Compute(word(product::COMPUTE_TYPE, 0)?);
    let plain = [(product::POINTER_MODE, 0), (product::C_OPERATION, 0), (product::EPILOGUE, 1)];
    for (number, default) in plain {
        if word(number, default)? != default {
            return refuse(
                Status::NOT_SUPPORTED,
                format_args!("attribute {number} of a product is not its default"),
            );
        }
    }
    let scale = Element::from_code(word(product::SCALE_TYPE, 0)?).ok_or(Status::NOT_SUPPORTED)?;
    if scale != compute.scale()? {
        return refuse(Status::NOT_SUPPORTED, format_args!("{compute:?} has no scales of {scale:?}"));
    }
    let operations = [word(product::A_OPERATION, 0)?, word(product::B_OPERATION, 0)?];
    let (a, a_shape, batches) = matrix(driver, operands[0], operations[0])?;
    let (b, b_shape, b_batches) = matrix(driver, operands[1], operations[1])?;
    let (c, c_shape, c_batches) = matrix(driver, operands[2], 0)?;
    let (d, d_shape, d_batches) = matrix(driver, operands[3], 0)?;
    let taken = |matrix: &Matrix, [rows, columns]: [u64; 2]| {
        if matrix.transposed { [columns, rows] } else { [rows, columns] }
    };
    let ([m, k], [b_rows, n]) = (taken(&a, a_shape), taken(&b, b_shape));
    if b_rows != k
        || c_shape != [m, n]
        || d_shape != [m, n]
        || [b_batches, c_batches, d_batches] != [batches; 3]
    {
        return refuse(
            Status::INVALID_VALUE,
            format_args!("{a_shape:?} and {b_shape:?} do not make {d_shape:?}"),
        );
    }
    let [m, n, k] = [m, n, k].map(|size| size as usize);
    let batches = usize::try_from(batches).map_err(|_| Status::INVALID_VALUE)?;
    let rounding = compute.rounding();
    Ok((compute, scale, Product { m, n, k, batches, alpha: 1.0, beta: 0.0, a, b, c, d, rounding }))
}

exports! {
    fn cublasLtCreate(handle: Out<u64>) = blas_status(bound(|driver| create(driver, handle, &[])));
    /// Waits for the context.
    fn cublasLtDestroy(handle: u64) = blas_status(always(|driver| {
        driver.spoil_captures("cuBLASLt is closed");
        driver.libraries.attributes.remove(&handle).map(drop).ok_or(Status::INVALID_HANDLE)
    }));
    fn cublasLtMatrixLayoutCreate(layout: Out<u64>, element: u32, rows: u64, columns: u64, leading: i64) =
        blas_status(ready(|driver| {
            let long = |number, value: u64| (number, value.to_le_bytes().to_vec());
            create(driver, layout, &[
                (layout::TYPE, element.to_le_bytes().to_vec()),
                long(layout::ROWS, rows),
                long(layout::COLUMNS, columns),
                long(layout::LEADING, leading.cast_unsigned()),
            ])
        }));
    fn cublasLtMatrixLayoutSetAttribute(layout: u64, number: u32, value: In<u8>, bytes: usize) =
        set(layout, number, value, bytes);
    fn cublasLtMatrixLayoutDestroy(layout: u64) = destroy(layout);
    fn cublasLtMatmulDescCreate(description: Out<u64>, compute: u32, scale: u32) =
        blas_status(ready(|driver| {
            let word = |number, value: u32| (number, value.to_le_bytes().to_vec());
            let values = [word(product::COMPUTE_TYPE, compute), word(product::SCALE_TYPE, scale)];
            create(driver, description, &values)
        }));
    fn cublasLtMatmulDescSetAttribute(description: u64, number: u32, value: In<u8>, bytes: usize) =
        set(description, number, value, bytes);
    fn cublasLtMatmulDescDestroy(description: u64) = destroy(description);
    fn cublasLtMatmulPreferenceCreate(preference: Out<u64>) =
        blas_status(ready(|driver| create(driver, preference, &[])));
    fn cublasLtMatmulPreferenceSetAttribute(preference: u64, number: u32, value: In<u8>, bytes: usize) =
        set(preference, number, value, bytes);
    fn cublasLtMatmulPreferenceDestroy(preference: u64) = destroy(preference);

    /// There is one way to multiply, which needs no workspace; none where 16 bits lie so oddly that a device need not have one.
    fn cublasLtMatmulAlgoGetHeuristic(
        handle: u64, description: u64, a: u64, b: u64, c: u64, d: u64, preference: u64,
        room: i32, results: Out<Heuristic>, count: Out<i32>,
    ) = blas_status(ready(|driver| {
        count.put(0)?;
        attributes(driver, handle)?;
        attributes(driver, preference)?;
        let operands = [a, b, c, d].map(|layout| Operand(0, layout));
        let (_, _, product) = described(driver, description, operands.each_ref())?;
        if room < 1 {
            return Err(Status::INVALID_VALUE);
        }
        if [product.a, product.b].iter().any(|input| input.element.size() == 2 && input.leading % 2 != 0) {
            return Ok(());
        }
        let (algorithm, reserved) = Default::default();
        results.put(Heuristic { algorithm, workspace_bytes: 0, state: 0, waves: 1.0, reserved })?;
        count.put(1)
    }));
    fn cublasLtMatmul(
        handle: u64, description: u64, alpha: In<u8>, a: u64, a_layout: u64, b: u64, b_layout: u64,
        beta: In<u8>, c: u64, c_layout: u64, d: u64, d_layout: u64,
        _algorithm: In<u8>, _workspace: u64, _bytes: usize, stream: u64,
    ) = blas_status(bound(|driver| {
        attributes(driver, handle)?;
        let operands = [(a, a_layout), (b, b_layout), (c, c_layout), (d, d_layout)];
        let operands = operands.map(|(address, layout)| Operand(address, layout));
        let (compute, element, product) = described(driver, description, operands.each_ref())?;
        let (alpha, beta) = (scale(element, alpha)?, scale(element, beta)?);
        multiply(driver, stream, compute, Product { alpha, beta, ..product })
    }));
}
