//! A product as BLAS takes it, which knows only matrices whose columns lie one after another.

use crate::products::Product;

/// The numbers of a call `c = op(a) · op(b)` of BLAS: `op(a)` is `[m, k]`, `op(b)` `[k, n]` and `c` `[m, n]`, all with their
/// columns one after another, each `ld` elements from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmArguments {
    /// Rows of `op(a)` and of `c`.
    pub m: usize,
    /// Columns of `op(b)` and of `c`.
    pub n: usize,
    /// Columns of `op(a)`, rows of `op(b)`.
    pub k: usize,
    /// Elements between two columns of `a`, as it lies in memory.
    pub lda: usize,
    /// The same of `b`.
    pub ldb: usize,
    /// The same of `c`.
    pub ldc: usize,
    /// Whether `op(a)` is `aᵀ`.
    pub transa: bool,
    /// Whether `op(b)` is `bᵀ`.
    pub transb: bool,
}

/// How BLAS is to be called for `product`, with its weight as `a`, its `x` as `b` and its `out` as `c`.
///
/// What Pyrex reads as rows one after another, BLAS reads as columns: `x` `[T, C]` is its `[C, T]`, `W` `[N, C]` is its `[C, N]`,
/// `out` `[T, N]` is its `[N, T]`; so `out = x · Wᵀ` is `outᵀ = W · xᵀ`. `xᵀ` is what it finds, `W` what it finds, transposed.
/// A column is as long as our row: `lda = ldb = C`, `ldc = N`.
pub fn gemm_arguments(product: &Product<'_>) -> GemmArguments {
    let Product { rows, cols, out_cols, .. } = *product;
    GemmArguments {
        m: out_cols,
        n: rows,
        k: cols,
        lda: cols,
        ldb: cols,
        ldc: out_cols,
        transa: true,
        transb: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Element};

    /// `c = op(a) · op(b)` as BLAS defines it.
    fn gemm(arguments: &GemmArguments, a: &[f32], b: &[f32], c: &mut [f32]) {
        let GemmArguments { m, n, k, lda, ldb, ldc, transa, transb } = *arguments;
        for (row, col) in (0..m).flat_map(|row| (0..n).map(move |col| (row, col))) {
            let a = |i: usize| if transa { a[row * lda + i] } else { a[i * lda + row] };
            let b = |i: usize| if transb { b[i * ldb + col] } else { b[col * ldb + i] };
            c[col * ldc + row] = (0..k).map(|i| a(i) * b(i)).sum();
        }
    }

    #[test]
    fn blas_makes_our_product_of_what_it_finds() {
        let (rows, cols, out_cols) = (3, 5, 4);
        let x: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let weight: Vec<f32> = (0..out_cols * cols).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
        // SAFETY: nothing is launched.
        let buffer = unsafe { Buffer::new(0, 0, Element::F32) };
        let product = Product { x: buffer, weight: buffer, out: buffer, rows, cols, out_cols, clip: None };
        let mut out = vec![f32::NAN; rows * out_cols];
        gemm(&gemm_arguments(&product), &weight, &x, &mut out);
        for (row, out_col) in (0..rows).flat_map(|row| (0..out_cols).map(move |out_col| (row, out_col))) {
            let wanted: f32 = (0..cols).map(|i| x[row * cols + i] * weight[out_col * cols + i]).sum();
            assert_eq!(out[row * out_cols + out_col], wanted, "row {row}, output {out_col}");
        }
    }
}
