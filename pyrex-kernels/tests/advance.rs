//! The step from sampled ids to the next inputs against the rules in words.

mod support;

use pyrex_kernels::advance::{Advance, CacheGroup, advance};
use pyrex_kernels::{Buffer, Element};
use support::{Emulated, noise};

const NONE: u32 = u32::MAX;

fn numbers(len: usize, seed: u64, below: u32) -> Vec<u32> {
    noise(Element::F32, len, seed).iter().map(|x| ((x + 2.0) / 4.0 * below as f32) as u32 % below).collect()
}

#[test]
fn the_chosen_ids_become_the_input_of_the_next_step() {
    for (rows, block_size, table_lens) in
        [(1, 16, vec![1]), (3, 1, vec![5, 2]), (8, 16, vec![4, 7]), (129, 5, vec![9, 1]), (300, 32, vec![])]
    {
        let queue = Emulated::default();
        let up = |values: &[u32]| queue.upload_u32(values);
        let mut ids = numbers(rows, 1, 262_144);
        ids.iter_mut().step_by(5).skip(1).for_each(|id| *id = NONE);
        let active = numbers(rows, 2, 3);
        let (input_ids, positions, drawn) =
            (numbers(rows, 3, 1000), numbers(rows, 4, 9 * block_size), numbers(rows, 5, 50));
        let tables: Vec<Vec<u32>> =
            table_lens.iter().map(|len| numbers(rows * len, *len as u64, 100_000)).collect();
        let uploaded: Vec<Buffer<'_>> = tables.iter().map(|table| up(table)).collect();
        let slots: Vec<Buffer<'_>> = tables.iter().map(|_| queue.unwritten(Element::U32, rows)).collect();
        let groups: Vec<CacheGroup<'_>> = uploaded
            .iter()
            .zip(&slots)
            .map(|(&block_tables, &slot_mapping)| CacheGroup { block_tables, slot_mapping })
            .collect();
        let step = Advance {
            ids: up(&ids),
            active: up(&active),
            input_ids: up(&input_ids),
            positions: up(&positions),
            drawn_positions: Some(up(&drawn)),
            groups: &groups,
            block_size: block_size as usize,
        };
        advance(&queue, &step).expect("it fits");

        let goes_on: Vec<bool> = (0..rows).map(|row| active[row] != 0 && ids[row] != NONE).collect();
        let either = |new: &dyn Fn(usize) -> u32, old: &[u32]| -> Vec<u32> {
            (0..rows).map(|row| if goes_on[row] { new(row) } else { old[row] }).collect()
        };
        assert_eq!(queue.download_u32(step.input_ids), either(&|row| ids[row], &input_ids));
        assert_eq!(queue.download_u32(step.positions), either(&|row| positions[row] + 1, &positions));
        let drawn_positions = step.drawn_positions.expect("wanted");
        assert_eq!(queue.download_u32(drawn_positions), either(&|row| positions[row] + 2, &drawn));
        for ((table, len), slots) in tables.iter().zip(&table_lens).zip(slots) {
            let slot = |row: usize| {
                let (block, offset) = ((positions[row] + 1) / block_size, (positions[row] + 1) % block_size);
                let known = (block as usize) < *len;
                if known { table[row * len + block as usize] * block_size + offset } else { NONE }
            };
            assert_eq!(queue.download_u32(slots), either(&slot, &vec![NONE; rows]));
        }
    }
}

#[test]
fn a_slot_that_is_no_number_is_none() {
    let queue = Emulated::default();
    let slot_mapping = queue.unwritten(Element::U32, 3);
    // The last number is what stands for none; beyond it there is nothing.
    let block_tables = queue.upload_u32(&[(u32::MAX - 16) / 16, u32::MAX / 16, u32::MAX]);
    let groups = [CacheGroup { block_tables, slot_mapping }];
    let step = Advance {
        ids: queue.upload_u32(&[1; 3]),
        active: queue.upload_u32(&[1; 3]),
        input_ids: queue.upload_u32(&[0; 3]),
        positions: queue.upload_u32(&[14; 3]),
        drawn_positions: None,
        groups: &groups,
        block_size: 16,
    };
    advance(&queue, &step).expect("it fits");
    assert_eq!(queue.download_u32(slot_mapping), [u32::MAX - 16, NONE, NONE]);
    assert_eq!(queue.download_u32(step.positions), [15; 3]);
}

#[test]
fn what_does_not_fit_is_not_launched() {
    let queue = Emulated::default();
    let u32s = |len| queue.unwritten(Element::U32, len);
    let group = CacheGroup { block_tables: u32s(8), slot_mapping: u32s(4) };
    let step = Advance {
        ids: u32s(4),
        active: u32s(4),
        input_ids: u32s(4),
        positions: u32s(4),
        drawn_positions: None,
        groups: &[],
        block_size: 16,
    };
    for (wrong, needle) in [
        (Advance { active: u32s(3), ..step }, "active has 3"),
        (Advance { positions: queue.unwritten(Element::F32, 4), ..step }, "positions has 4 F32"),
        (Advance { drawn_positions: Some(u32s(5)), ..step }, "drawn_positions has 5"),
        (Advance { groups: &[group; 3], ..step }, "3 groups"),
        (Advance { block_size: 0, ..step }, "blocks of 0"),
        (Advance { groups: &[CacheGroup { block_tables: u32s(9), ..group }], ..step }, "block_tables has 9"),
        (Advance { groups: &[CacheGroup { slot_mapping: u32s(5), ..group }], ..step }, "slot_mapping has 5"),
    ] {
        let error = advance(&queue, &wrong).expect_err(needle);
        assert!(error.to_string().contains(needle), "{error}");
    }
}
