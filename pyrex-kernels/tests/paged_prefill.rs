//! Prefill against its formula, on the PTX that is shipped.

#[path = "support/attention.rs"]
mod attention_case;
mod support;

use attention_case::{Case, bound};
use pyrex_kernels::Element::{self, Bf16, F32};
use pyrex_kernels::attention::{DecodeSizes, Paged, decode_scratch_len, paged_decode, paged_prefill};
use support::{Emulated, close, relative_l2};

/// Dtypes and `(H, K, D)`: on tensor cores and not, and groups that divide a tile and that do not.
const SHAPES: [(Element, (usize, usize, usize)); 9] = [
    (Bf16, (8, 1, 256)),
    (Bf16, (8, 1, 512)),
    (Bf16, (4, 2, 64)),
    (Bf16, (3, 1, 128)),
    (Bf16, (3, 1, 64)),
    (Bf16, (4, 2, 32)),
    (F32, (4, 2, 16)),
    (F32, (3, 1, 64)),
    (F32, (2, 1, 512)),
];

fn prefilled(case: &Case) -> Vec<f32> {
    prefilled_on(&Emulated::default(), case)
}

fn prefilled_on(queue: &Emulated, case: &Case) -> Vec<f32> {
    let paged = case.upload(queue);
    paged_prefill(queue, &paged).expect("it fits");
    queue.download(paged.out)
}

#[track_caller]
fn check(case: &Case) {
    let error = relative_l2(&prefilled(case), &case.wanted());
    assert!(error <= bound(case.element), "{case:?}: {error:e}");
}

#[test]
fn prefill_is_the_formula_for_any_number_of_rows() {
    for (element, shape) in SHAPES {
        check(&Case::new(element, shape).of(&[(1, 1), (15, 15), (33, 33), (64, 17)]));
    }
}

#[test]
fn a_gpu_with_less_shared_memory_serves_the_widest_heads_too() {
    let queue = Emulated::with_shared_bytes(99 << 10);
    for (element, shape) in SHAPES {
        let case = Case::new(element, shape).of(&[(1, 1), (33, 20), (64, 17)]);
        close(&format!("{case:?}"), &prefilled_on(&queue, &case), &case.wanted(), bound(case.element));
    }
}

#[test]
fn a_chunk_sees_what_was_there_before_it() {
    for (element, shape) in SHAPES {
        check(&Case::new(element, shape).of(&[(90, 5), (70, 1), (160, 30)]));
    }
}

#[test]
fn a_window_ends_anywhere_in_a_block_and_nothing_before_it_is_read() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (4, 2, 64)), (F32, (4, 2, 16))] {
        for window in [1, 5, 32, 50] {
            let sequences = [(window, window), (window + 1, 2), (window + 32, 7), (140, 33), (3, 3)];
            check(&Case::new(element, shape).windowed(window).of(&sequences));
        }
    }
}

#[test]
fn blocks_have_any_power_of_two_of_slots() {
    for block_size in [1, 4, 64] {
        for (element, shape) in [(Bf16, (4, 1, 64)), (F32, (4, 2, 8))] {
            check(&Case::new(element, shape).in_blocks_of(block_size).of(&[(33, 33), (100, 20)]));
        }
    }
}

#[test]
fn sequences_without_a_row_are_passed_over_however_many() {
    for (element, shape) in [(Bf16, (8, 1, 64)), (F32, (4, 2, 16))] {
        let mut sequences = vec![(0, 0); 70];
        sequences[3] = (20, 20);
        sequences[33] = (50, 1);
        sequences[69] = (40, 30);
        check(&Case::new(element, shape).of(&sequences));
    }
}

#[test]
fn only_the_sequences_that_are_asked_for_are_served() {
    for (element, shape) in [(Bf16, (8, 1, 64)), (F32, (4, 2, 16))] {
        let queue = Emulated::default();
        let case = Case::new(element, shape).of(&[(30, 7), (40, 20), (90, 3), (50, 9)]);
        let paged = Paged { sequences: 1..3, ..case.upload(&queue) };
        paged_prefill(&queue, &paged).expect("it fits");
        let row_len = case.heads * case.head_dim;
        let served = queue.part(paged.out, 7 * row_len, 23 * row_len);
        close(
            "two of four",
            &queue.download(served),
            &case.wanted()[7 * row_len..30 * row_len],
            bound(element),
        );
        assert!(!queue.is_written(queue.part(paged.out, 6 * row_len, row_len)));
        assert!(!queue.is_written(queue.part(paged.out, 30 * row_len, row_len)));
    }
}

#[test]
fn prefill_and_decode_agree() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (8, 1, 512)), (F32, (4, 2, 16))] {
        let queue = Emulated::default();
        let paged = Case::new(element, shape).of(&[(100, 1), (33, 1), (5, 1)]).upload(&queue);
        paged_prefill(&queue, &paged).expect("it fits");
        let prefilled: Vec<f64> = queue.download(paged.out).into_iter().map(f64::from).collect();
        let sizes = DecodeSizes {
            sequences: 3,
            table_len: paged.block_tables.len() / 3,
            block_size: paged.block_size,
            window: None,
            heads: paged.heads,
            kv_heads: paged.kv_heads,
            head_dim: paged.head_dim,
        };
        let again = Paged { out: queue.unwritten(element, paged.out.len()), ..paged };
        let scratch = queue.unwritten(F32, decode_scratch_len(&queue, &sizes));
        paged_decode(&queue, &again, scratch).expect("it fits");
        // Both are rounded from sums that are equal but for 1e-5; few of them to the next number.
        let bound = if element == F32 { 1e-6 } else { 5e-4 };
        close("decode against prefill", &queue.download(again.out), &prefilled, bound);
    }
}

#[test]
fn bits_do_not_depend_on_the_order_of_blocks_and_warps() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (8, 1, 512)), (F32, (4, 2, 16))] {
        let case = Case::new(element, shape).of(&[(70, 20), (33, 33)]);
        let expected = prefilled(&case);
        for seed in 1..4 {
            let queue = Emulated::with_seed(seed);
            let paged = case.upload(&queue);
            paged_prefill(&queue, &paged).expect("it fits");
            assert_eq!(queue.download(paged.out), expected, "seed {seed} of {case:?}");
        }
    }
}

#[test]
fn scores_may_be_large() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (F32, (4, 2, 16))] {
        for scale in [40.0, -40.0, 0.0, 1e-3] {
            let case = Case::new(element, shape).scaled(scale).of(&[(60, 40), (3, 3)]);
            let bound = if element == F32 && scale.abs() > 1.0 { 2e-3 } else { bound(element) };
            close(&format!("{case:?}"), &prefilled(&case), &case.wanted(), bound);
        }
    }
}

#[test]
fn keys_are_read_once_for_each_tile_of_rows() {
    for (head_dim, tokens) in [(256, 16), (512, 8)] {
        let queue = Emulated::default();
        let case = Case::new(Bf16, (8, 1, head_dim)).of(&[(128, tokens)]);
        let paged = case.upload(&queue);
        paged_prefill(&queue, &paged).expect("it fits");
        let report = queue.report();
        let (row_bytes, rows) = (head_dim as u64 * 2, 8 * tokens as u64);
        let least = 128 * row_bytes * 2 + rows * row_bytes;
        // Queries are read four bytes a thread, so each sector twice; each thread looks up where its keys are.
        let beside = rows * row_bytes + 128 * row_bytes * 2 / 32 + 10_000;
        assert!(report.sectors_read * 32 <= least + beside, "{report:?} for {least} bytes");
        assert!(report.bank_conflicts < 16, "{report:?}");
        assert_eq!(report.bytes_written, rows * row_bytes);
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let paged = Case::new(Bf16, (4, 2, 64)).of(&[(20, 3)]).upload(&queue);
    let error = paged_prefill(&queue, &Paged { head_dim: 72, ..paged.clone() }).expect_err("too wide");
    assert!(error.to_string().contains("q has"), "{error}");
    let error = paged_prefill(&queue, &Paged { sequences: 1..9, ..paged }).expect_err("there is one");
    assert!(error.to_string().contains("sequences 1..9 are asked for, of 1"), "{error}");
}
