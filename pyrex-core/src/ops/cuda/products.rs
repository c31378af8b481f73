//! Products with weights: few rows by kernels that read the weights once, more by cuBLASLt.

use super::rows::column_block;
use super::{Lane, view};
use crate::error::Result;
use crate::ops::Matrix;
use crate::ops::activation::gelu_mul;
use crate::ops::matmul::Clip;
use candle_core::Tensor;
use pyrex_kernels::products::{self, Gated, MAX_FEW_ROWS, Product};

/// As [`matmul`](crate::ops::matmul::matmul), between bounds.
pub(crate) fn matmul(lane: &Lane, x: &Tensor, weight: &Matrix, clip: &Clip) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    let x = x.contiguous()?;
    let out = lane.unwritten((rows, weight.rows()), x.dtype())?;
    let (x_view, out_view) = (view(&x)?, view(&out)?);
    weight.with_buffer(|weight_buffer, placement| {
        let product = Product {
            x: x_view.buffer(),
            weight: weight_buffer,
            out: out_view.buffer(),
            rows,
            cols,
            out_cols: weight.rows(),
            clip: bounds(clip),
        };
        match placement.blas() {
            _ if rows <= MAX_FEW_ROWS => products::few_rows(lane, &product)?,
            Some(blas) => blas.product(&product)?,
            None => products::many_rows(lane, &product)?,
        }
        Ok(())
    })?;
    drop((x_view, out_view));
    Ok(out)
}

/// As [`gated_matmul`](crate::ops::matmul::gated_matmul).
pub(crate) fn gated_matmul(
    lane: &Lane,
    x: &Tensor,
    gate: (&Matrix, &Clip),
    up: (&Matrix, &Clip),
) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    if rows > MAX_FEW_ROWS {
        return gelu_mul(&matmul(lane, x, gate.0, gate.1)?, &matmul(lane, x, up.0, up.1)?);
    }
    let x = x.contiguous()?;
    let out = lane.unwritten((rows, gate.0.rows()), x.dtype())?;
    let clips =
        (*gate.1 != Clip::NONE || *up.1 != Clip::NONE).then(|| (kernel_clip(gate.1), kernel_clip(up.1)));
    let (x_view, out_view) = (view(&x)?, view(&out)?);
    gate.0.with_buffer(|gate_buffer, _| {
        up.0.with_buffer(|up_buffer, _| {
            let gated = Gated {
                x: x_view.buffer(),
                gate: gate_buffer,
                up: up_buffer,
                out: out_view.buffer(),
                rows,
                cols,
                out_cols: gate.0.rows(),
                clips,
            };
            Ok(products::few_rows_gated(lane, &gated)?)
        })
    })?;
    drop((x_view, out_view));
    Ok(out)
}

/// As [`matmul_gelu_mul`](crate::ops::matmul::matmul_gelu_mul).
pub(crate) fn matmul_gelu_mul(lane: &Lane, x: &Tensor, weight: &Matrix, up: &Tensor) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    if rows > MAX_FEW_ROWS {
        return gelu_mul(&matmul(lane, x, weight, &Clip::NONE)?, up);
    }
    let x = x.contiguous()?;
    let out = lane.unwritten((rows, weight.rows()), x.dtype())?;
    let (x_view, out_view, (up_view, up_stride)) = (view(&x)?, view(&out)?, column_block(up)?);
    weight.with_buffer(|weight_buffer, _| {
        let product = Product {
            x: x_view.buffer(),
            weight: weight_buffer,
            out: out_view.buffer(),
            rows,
            cols,
            out_cols: weight.rows(),
            clip: None,
        };
        Ok(products::few_rows_gelu_mul(lane, &product, up_view.buffer(), up_stride)?)
    })?;
    drop((x_view, out_view));
    Ok(out)
}

/// As [`matmul_pair`](crate::ops::matmul::matmul_pair).
pub(crate) fn matmul_pair(
    lane: &Lane,
    x: &Tensor,
    first: &Matrix,
    second: &Matrix,
) -> Result<(Tensor, Tensor)> {
    let rows = x.dim(0)?;
    if rows > MAX_FEW_ROWS {
        return Ok((matmul(lane, x, first, &Clip::NONE)?, matmul(lane, x, second, &Clip::NONE)?));
    }
    let x = x.contiguous()?;
    let outs =
        (lane.unwritten((rows, first.rows()), x.dtype())?, lane.unwritten((rows, second.rows()), x.dtype())?);
    let views = (view(&outs.0)?, view(&outs.1)?);
    first.with_buffer(|first_buffer, _| {
        second.with_buffer(|second_buffer, _| {
            let both = [
                (first_buffer, views.0.buffer(), first.rows()),
                (second_buffer, views.1.buffer(), second.rows()),
            ];
            Ok(products::few_rows_several(lane, view(&x)?.buffer(), &both)?)
        })
    })?;
    drop(views);
    Ok(outs)
}

fn bounds(clip: &Clip) -> Option<products::Clip> {
    (*clip != Clip::NONE).then(|| kernel_clip(clip))
}

fn kernel_clip(clip: &Clip) -> products::Clip {
    products::Clip { input: clip.input, output: clip.output }
}
