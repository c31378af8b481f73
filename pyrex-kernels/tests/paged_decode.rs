//! Decode against its formula, on the PTX that is shipped.

#[path = "support/attention.rs"]
mod attention_case;
mod support;

use attention_case::{Case, Noting, bits, bound};
use pyrex_kernels::Element::{self, Bf16, F32, U32};
use pyrex_kernels::attention::{DecodeSizes, Paged, decode_scratch_len, paged_decode};
use pyrex_kernels::{Buffer, Queue};
use support::{Emulated, close};

/// Dtypes and `(H, K, D)`: on tensor cores and not, and groups of 1, 2, 3, 4, 8 and more than a block takes.
const SHAPES: [(Element, (usize, usize, usize)); 11] = [
    (Bf16, (8, 1, 256)),
    (Bf16, (8, 1, 512)),
    (Bf16, (4, 2, 64)),
    (Bf16, (2, 2, 128)),
    (Bf16, (12, 1, 64)),
    (Bf16, (4, 2, 32)),
    (Bf16, (3, 1, 24)),
    (F32, (4, 1, 16)),
    (F32, (8, 1, 64)),
    (F32, (20, 2, 24)),
    (F32, (2, 1, 512)),
];

fn scratch_len(queue: &dyn Queue, paged: &Paged<'_>) -> usize {
    let sizes = DecodeSizes {
        sequences: paged.sequences.len(),
        table_len: paged.block_tables.len() / (paged.query_start.len() - 1),
        block_size: paged.block_size,
        window: paged.window,
        heads: paged.heads,
        kv_heads: paged.kv_heads,
        head_dim: paged.head_dim,
    };
    decode_scratch_len(queue, &sizes)
}

fn scratch<'a>(queue: &'a Emulated, paged: &Paged<'_>) -> Buffer<'a> {
    queue.unwritten(F32, scratch_len(queue, paged))
}

/// What decode makes of a case on a device with so many multiprocessors; its scratch serves twice.
fn decoded_on(case: &Case, memory: &Emulated, multiprocessors: u32) -> Vec<f32> {
    let queue = Noting::new(memory, multiprocessors);
    let paged = case.upload(memory);
    let scratch = memory.unwritten(F32, scratch_len(&queue, &paged));
    paged_decode(&queue, &paged, scratch).expect("it fits");
    let first = memory.download(paged.out);
    let again = memory.unwritten(case.element, paged.out.len());
    paged_decode(&queue, &Paged { out: again, ..paged }, scratch).expect("it fits");
    assert_eq!(bits(&first), bits(&memory.download(again)), "the second launch of {case:?}");
    first
}

fn decoded(case: &Case) -> Vec<f32> {
    decoded_on(case, &Emulated::default(), 132)
}

#[track_caller]
fn check(case: &Case) {
    close(&format!("{case:?}"), &decoded(case), &case.wanted(), bound(case.element));
}

#[test]
fn decode_is_the_formula_at_the_edges_of_tiles_and_parts() {
    for (element, shape) in SHAPES {
        check(&Case::new(element, shape).of(&[
            (1, 1),
            (15, 1),
            (16, 1),
            (17, 1),
            (64, 1),
            (65, 1),
            (145, 1),
        ]));
    }
}

#[test]
fn a_gpu_with_less_shared_memory_serves_the_widest_heads_too() {
    for (element, shape) in SHAPES {
        let case = Case::new(element, shape).of(&[(1, 1), (100, 1), (300, 1)]);
        let decoded = decoded_on(&case, &Emulated::with_shared_bytes(99 << 10), 132);
        close(&format!("{case:?}"), &decoded, &case.wanted(), bound(case.element));
    }
}

#[test]
fn a_window_ends_anywhere_in_a_block_and_nothing_before_it_is_read() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (4, 2, 64)), (F32, (4, 2, 16))] {
        for window in [1, 5, 16, 80] {
            let lens = [window - 1, window, window + 1, window + 15, window + 16, 150];
            let sequences: Vec<_> = lens.iter().filter(|len| **len > 0).map(|len| (*len, 1)).collect();
            check(&Case::new(element, shape).windowed(window).of(&sequences));
        }
    }
}

#[test]
fn blocks_have_any_power_of_two_of_slots() {
    for block_size in [1, 4, 8, 32, 64] {
        for (element, shape) in [(Bf16, (4, 1, 128)), (F32, (4, 2, 8))] {
            let case = Case::new(element, shape).in_blocks_of(block_size);
            check(&case.clone().of(&[(1, 1), (33, 1), (70, 1)]));
            check(&case.windowed(37).of(&[(36, 1), (60, 1)]));
        }
    }
}

#[test]
fn each_part_may_have_many_tiles_and_each_warp_several() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (8, 1, 512)), (Bf16, (4, 4, 64)), (F32, (4, 2, 16))]
    {
        for multiprocessors in [1, 3, 8] {
            let case = Case::new(element, shape).of(&[(400, 1), (70, 1)]);
            let decoded = decoded_on(&case, &Emulated::default(), multiprocessors);
            close(&format!("{case:?}"), &decoded, &case.wanted(), bound(element));
        }
    }
}

#[test]
fn many_parts_are_merged() {
    for (element, shape) in [(Bf16, (8, 1, 64)), (Bf16, (2, 1, 256)), (F32, (3, 1, 8))] {
        let case = Case::new(element, shape).of(&[(17 * 64 + 1, 1), (50, 1), (0, 0), (1200, 1)]);
        check(&case);
    }
}

#[test]
fn sequences_without_a_row_write_nothing() {
    for (element, shape) in [(Bf16, (8, 1, 64)), (F32, (4, 2, 16))] {
        check(&Case::new(element, shape).of(&[(0, 0), (20, 1), (90, 0), (0, 0), (130, 1), (7, 0)]));
    }
}

#[test]
fn only_the_sequences_that_are_asked_for_are_served() {
    for (element, shape) in [(Bf16, (8, 1, 64)), (F32, (4, 2, 16))] {
        let queue = Emulated::default();
        let case = Case::new(element, shape).of(&[(30, 1), (40, 1), (90, 1), (200, 3)]);
        let paged = Paged { sequences: 1..3, ..case.upload(&queue) };
        paged_decode(&queue, &paged, scratch(&queue, &paged)).expect("it fits");
        let row_len = case.heads * case.head_dim;
        let served = queue.part(paged.out, row_len, 2 * row_len);
        close("two of four", &queue.download(served), &case.wanted()[row_len..3 * row_len], bound(element));
        assert!(!queue.is_written(queue.part(paged.out, 0, row_len)));
        assert!(!queue.is_written(queue.part(paged.out, 3 * row_len, row_len)));
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (Bf16, (8, 2, 64)), (F32, (4, 2, 16))] {
        for window in [None, Some(100)] {
            let mut case = Case::new(element, shape).of(&[(17, 1), (300, 1), (64, 1), (129, 1)]);
            case.window = window;
            let together = decoded(&case);
            for index in 0..case.sequences.len() {
                // With longer tables there is room for more parts.
                for spare_blocks in [0, 100] {
                    let alone = decoded(&case.alone(index, spare_blocks));
                    let row = &together[index * alone.len()..(index + 1) * alone.len()];
                    assert_eq!(bits(&alone), bits(row), "{index} of {case:?}, {spare_blocks} blocks more");
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_order_of_blocks_and_warps() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (F32, (4, 2, 16))] {
        let case = Case::new(element, shape).of(&[(300, 1), (64, 1), (129, 1)]);
        let expected = decoded(&case);
        for seed in 1..6 {
            let queue = Emulated::with_seed(seed);
            let paged = case.upload(&queue);
            paged_decode(&queue, &paged, scratch(&queue, &paged)).expect("it fits");
            assert_eq!(bits(&queue.download(paged.out)), bits(&expected), "seed {seed} of {case:?}");
        }
    }
}

#[test]
fn scores_may_be_large() {
    for (element, shape) in [(Bf16, (8, 1, 256)), (F32, (4, 2, 16))] {
        for scale in [40.0, -40.0, 0.0, 1e-3] {
            let case = Case::new(element, shape).scaled(scale).of(&[(100, 1), (3, 1)]);
            // A score of 1e4 is off by 1e-3 in f32 already, and so is its weight.
            let bound = if element == F32 && scale.abs() > 1.0 { 2e-3 } else { bound(element) };
            close(&format!("{case:?}"), &decoded(&case), &case.wanted(), bound);
        }
    }
}

#[test]
fn keys_and_values_are_read_once_for_all_heads_of_a_group() {
    for head_dim in [64, 256, 512] {
        let queue = Emulated::default();
        let case = Case::new(Bf16, (8, 1, head_dim)).of(&[(640, 1)]);
        let paged = case.upload(&queue);
        let noting = Noting::new(&queue, 132);
        paged_decode(&noting, &paged, scratch(&queue, &paged)).expect("it fits");
        let [parts, merge] = noting.reports()[..] else { panic!("decode is two kernels") };
        let (keys, query) = (case.bytes_seen(), 8 * head_dim as u64 * 2);
        // Beside keys and values, each of 10 parts reads the queries and the table, and leaves its sums in f32.
        assert!(parts.sectors_read * 32 <= keys + 10 * (query + 1024), "{parts:?} for {keys} bytes");
        assert_eq!(parts.bytes_written, 10 * (2 * query + 64) + 8);
        // Of each 128 columns of each head, 8 warps look at all maxima and denominators.
        let warps = 8 * (head_dim as u64).div_ceil(128) * 8;
        assert!(merge.sectors_read * 32 <= 10 * 2 * query + warps * 1024, "{merge:?}");
        assert_eq!((merge.bytes_written, parts.bank_conflicts, merge.bank_conflicts), (query, 0, 0));
    }
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let paged = Case::new(Bf16, (4, 2, 64)).of(&[(20, 1), (30, 1)]).upload(&queue);
    let scratch = scratch(&queue, &paged);
    let shorter = queue.upload(F32, &[0.0; 12]);
    let cases: Vec<(&str, Paged<'_>)> = vec![
        ("q has 12 F32", Paged { q: shorter, ..paged.clone() }),
        ("out has 12 F32", Paged { out: shorter, ..paged.clone() }),
        ("values has 12 F32", Paged { values: shorter, ..paged.clone() }),
        ("q has 512 Bf16", Paged { positions: queue.part(paged.positions, 0, 1), ..paged.clone() }),
        ("q has U32", Paged { q: paged.positions, ..paged.clone() }),
        ("groups of a size", Paged { heads: 3, ..paged.clone() }),
        ("groups of a size", Paged { kv_heads: 0, ..paged.clone() }),
        ("a multiple of 8", Paged { head_dim: 60, ..paged.clone() }),
        ("a multiple of 8", Paged { head_dim: 1024, ..paged.clone() }),
        ("sequences 0..3", Paged { sequences: 0..3, ..paged.clone() }),
        ("blocks of 12", Paged { block_size: 12, ..paged.clone() }),
        ("a window of Some(0)", Paged { window: Some(0), ..paged.clone() }),
        ("a scale of NaN", Paged { scale: f32::NAN, ..paged.clone() }),
    ];
    for (expected, wrong) in cases {
        let error = paged_decode(&queue, &wrong, scratch).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let error = paged_decode(&queue, &paged, queue.part(scratch, 0, 100)).expect_err("too short").to_string();
    assert!(error.contains("scratch has 100 numbers, expected at least"), "{error}");
    let ids = queue.unwritten(U32, scratch.len());
    let error = paged_decode(&queue, &paged, ids).expect_err("numbers are wanted").to_string();
    assert!(error.contains("scratch has") && error.contains("U32"), "{error}");
    assert!(!queue.is_written(queue.part(paged.out, 0, 1)));
}
