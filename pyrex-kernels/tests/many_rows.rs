//! Products of many rows against their formula in f64.

mod support;

use pyrex_kernels::Element::{self, Bf16, F16, F32};
use pyrex_kernels::products::{Clip, Product, many_rows};
use support::{Emulated, close, noise, product, round, rounded};

/// Sums of f32, in three parts or one; a bf16 is the rounded sum but where that lies just between two.
fn bound(element: Element) -> f64 {
    if element == F32 { 1e-6 } else { 3e-4 }
}

/// What is multiplied, `[T, C]` times `[N, C]`, and how far it lies from the formula.
#[track_caller]
fn check(elements: (Element, Element), shape: (usize, usize, usize), clip: Option<Clip>) -> Emulated {
    let (rows, cols, out_cols) = shape;
    let queue = Emulated::default();
    let (x, weight) = (noise(elements.0, rows * cols, 1), noise(elements.1, out_cols * cols, 2));
    let out = queue.unwritten(elements.0, rows * out_cols);
    let (x_buffer, weight_buffer) = (queue.upload(elements.0, &x), queue.upload(elements.1, &weight));
    let fits = Product { x: x_buffer, weight: weight_buffer, out, rows, cols, out_cols, clip };
    many_rows(&queue, &fits).expect("it fits");
    let wanted = rounded(elements.0, &product(&x, &weight, shape, &clip.unwrap_or(Clip::NONE)));
    close(&format!("{elements:?} {shape:?}"), &queue.download(out), &wanted, bound(elements.0));
    queue
}

#[test]
fn many_rows_is_the_product() {
    for x in [F32, Bf16] {
        for weight in [F32, Bf16, F16] {
            for shape in [(1, 8, 1), (9, 40, 70), (65, 100, 66), (64, 7, 33)] {
                check((x, weight), shape, None);
            }
        }
    }
}

#[test]
fn tensor_cores_take_ragged_shapes() {
    for x in [F32, Bf16] {
        for shape in [(130, 8, 131), (128, 160, 128), (33, 264, 200), (257, 72, 64)] {
            check((x, Bf16), shape, None);
        }
    }
}

#[test]
fn a_clipped_product_clamps_what_comes_in_and_out() {
    let exact = Clip { input: (-1.0, 0.5), output: (-3.0, 3.0) };
    // bf16 cannot hold these bounds, so that tensor cores could not multiply what they leave.
    let inexact = Clip { input: (-1.1, 0.1), output: (f32::NEG_INFINITY, 3.3) };
    // 0 is out of these bounds, and must not come in where rows or columns end.
    let without_zero = Clip { input: (0.25, 0.5), output: (f32::NEG_INFINITY, f32::INFINITY) };
    for elements in [(F32, Bf16), (Bf16, Bf16), (F32, F32), (Bf16, F16)] {
        for clip in [exact, inexact, without_zero] {
            for shape in [(9, 40, 20), (9, 33, 20)] {
                check(elements, shape, Some(clip));
            }
        }
    }
}

#[test]
fn f32_is_not_rounded_on_its_way_to_tensor_cores() {
    let queue = Emulated::default();
    let x: Vec<f32> = (0..16).map(|i| 1.0 + (0x2a_55aa + i) as f32 / (1 << 23) as f32).collect();
    let out = queue.unwritten(F32, 2);
    let fits = Product {
        x: queue.upload(F32, &x),
        weight: queue.upload(Bf16, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        out,
        rows: 2,
        cols: 8,
        out_cols: 1,
        clip: None,
    };
    many_rows(&queue, &fits).expect("it fits");
    assert_eq!(queue.download(out), [x[0], x[8]]);
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let (rows, cols, out_cols) = (140, 72, 9);
    for x_element in [F32, Bf16] {
        let queue = Emulated::default();
        let x = noise(x_element, rows * cols, 1);
        let weight = queue.upload(Bf16, &noise(Bf16, out_cols * cols, 2));
        let of_rows = |first: usize, rows: usize| {
            let out = queue.unwritten(x_element, rows * out_cols);
            let x = queue.upload(x_element, &x[first * cols..(first + rows) * cols]);
            let product = Product { x, weight, out, rows, cols, out_cols, clip: None };
            many_rows(&queue, &product).expect("it fits");
            queue.download(out)
        };
        let all = of_rows(0, rows);
        for row in [0, 63, 129, 139] {
            assert_eq!(of_rows(row, 1), all[row * out_cols..][..out_cols], "{x_element:?}: row {row}");
        }
    }
}

#[test]
fn shared_memory_has_no_bank_conflicts_and_global_memory_is_read_in_whole_sectors() {
    for (x, cols_of_block) in [(Bf16, 128), (F32, 64)] {
        let (rows, cols, out_cols) = (256, 96, 128);
        let report = check((x, Bf16), (rows, cols, out_cols), None).report();
        assert_eq!(report.bank_conflicts, 0, "{x:?}");
        let x_bytes = rows * cols * x.size() * (out_cols / cols_of_block);
        let weight_bytes = out_cols * cols * Bf16.size() * (rows / 128);
        assert_eq!(report.bytes_read, (x_bytes + weight_bytes) as u64, "{x:?}");
        assert_eq!(report.sectors_read * 32, report.bytes_read, "{x:?}");
    }
}

#[test]
fn nothing_is_made_of_nothing() {
    let queue = Emulated::default();
    let (empty, out) = (queue.upload(Bf16, &[]), queue.unwritten(Bf16, 6));
    let clip = Some(Clip { output: (1.0, 2.0), ..Clip::NONE });
    let product = Product { x: empty, weight: empty, out, rows: 3, cols: 0, out_cols: 2, clip };
    many_rows(&queue, &product).expect("no columns");
    assert_eq!(queue.download(out), [1.0; 6]);
    let weight = queue.upload(Bf16, &[1.0; 8]);
    let product = Product { x: empty, weight, out: empty, rows: 0, cols: 8, out_cols: 1, clip: None };
    many_rows(&queue, &product).expect("no rows");
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let x = queue.upload(F32, &[0.0; 16]);
    let product = Product { x, weight: x, out: x, rows: 2, cols: 8, out_cols: 2, clip: None };
    let error = many_rows(&queue, &product).expect_err("out is too long");
    assert!(error.to_string().contains("out has 16 F32"), "{error}");
}

#[test]
fn support_rounds_as_the_kernels_do() {
    assert_eq!(rounded(Bf16, &[1.0 + 1.0 / 256.0]), [f64::from(round(Bf16, 1.0 + 1.0 / 256.0))]);
}
