//! Averages over tiles, to the bit: a soft token's patches are summed in their order.

mod support;

use pyrex_kernels::Element;
use pyrex_kernels::pool::{Pool, average_pool};
use support::{Emulated, noise, round};

struct Case {
    element: Element,
    slots: Vec<u32>,
    num_slots: usize,
    width: usize,
    standardized: bool,
}

impl Case {
    fn x(&self) -> Vec<f32> {
        noise(self.element, self.slots.len() * self.width, 1)
    }

    fn std(&self) -> [Vec<f32>; 2] {
        [2, 3].map(|seed| noise(Element::F32, self.width, seed))
    }

    /// As the CPU does it, one patch after another.
    fn wanted(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.num_slots * self.width];
        let share = 1.0 / 9.0;
        for (row, slot) in self.x().chunks_exact(self.width).zip(&self.slots) {
            let Some(sums) = sums.get_mut(*slot as usize * self.width..) else { continue };
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * share);
        }
        let [bias, factor] = self.std();
        let finish = |(i, sum): (usize, &f32)| {
            let scaled = round(self.element, *sum) * 27.7;
            if self.standardized { (scaled - bias[i % self.width]) * factor[i % self.width] } else { scaled }
        };
        sums.iter().enumerate().map(finish).collect()
    }

    fn run(&self, queue: &Emulated, shift: usize) -> Vec<f32> {
        let out = queue.unwritten_at(shift, Element::F32, self.num_slots * self.width);
        let [bias, factor] = self.std().map(|std| queue.upload_at(shift, Element::F32, &std));
        let pool = Pool {
            x: queue.upload_at(shift, self.element, &self.x()),
            slots: queue.upload_u32(&self.slots),
            num_slots: self.num_slots,
            tile_len: 9,
            scale: 27.7,
            std_bias: self.standardized.then_some(bias),
            std_scale: self.standardized.then_some(factor),
            out,
        };
        average_pool(queue, &pool).expect("it fits");
        queue.download(out)
    }
}

/// Slots of an image of `columns × rows` tiles of 3 × 3 patches.
fn image_slots(columns: u32, rows: u32, first: u32) -> impl Iterator<Item = u32> {
    (0..3 * rows).flat_map(move |y| (0..3 * columns).map(move |x| first + y / 3 * columns + x / 3))
}

#[test]
fn each_soft_token_is_the_average_of_its_tile() {
    for element in [Element::F32, Element::Bf16] {
        for (width, standardized) in [(1, false), (33, true), (64, false), (768, true), (1100, false)] {
            let slots: Vec<u32> = image_slots(4, 3, 0).chain(image_slots(1, 2, 12)).collect();
            let slots = if width > 100 { slots[108..].iter().map(|slot| slot - 12).collect() } else { slots };
            let num_slots = if width > 100 { 2 } else { 14 };
            let case = Case { element, slots, num_slots, width, standardized };
            let got = case.run(&Emulated::default(), 0);
            assert_eq!(got, case.wanted(), "{element:?} {width}");
            assert_eq!(got, case.run(&Emulated::default(), 1), "{element:?} {width}: the same bits anywhere");
        }
    }
}

#[test]
fn any_number_of_patches_in_any_order_and_none() {
    for element in [Element::F32, Element::Bf16] {
        // A soft token with every third of 700 patches, one with the rest, one without any; and patches that go nowhere.
        let slots = (0..700)
            .map(|i| {
                if i % 3 == 0 {
                    2
                } else if i % 50 == 1 {
                    9
                } else {
                    0
                }
            })
            .collect();
        let case = Case { element, slots, num_slots: 3, width: 5, standardized: false };
        let got = case.run(&Emulated::default(), 0);
        assert_eq!(got, case.wanted());
        assert_eq!(got[5..10], [0.0; 5]);
    }
}

#[test]
fn patches_are_read_once() {
    for element in [Element::F32, Element::Bf16] {
        let slots: Vec<u32> = image_slots(4, 2, 0).collect();
        let case = Case { element, slots, num_slots: 8, width: 768, standardized: false };
        let queue = Emulated::default();
        case.run(&queue, 0);
        let (patches, row) = (72, 768 * element.size() as u64 / 32);
        let lists = 8 * patches * 4 / 32;
        let report = queue.report();
        assert_eq!(report.sectors_read, patches * row + lists, "{element:?}");
        assert_eq!(report.sectors_written, 8 * 768 * 4 / 32);
        assert_eq!(report.bank_conflicts, 0);
    }
}

#[test]
fn nothing_is_nothing_and_what_does_not_fit_is_refused() {
    let queue = Emulated::default();
    let (x, out) = (queue.upload(Element::F32, &[0.5; 12]), queue.unwritten(Element::F32, 4));
    let (slots, empty) = (queue.upload_u32(&[0, 1, 0]), queue.unwritten(Element::F32, 0));
    let pool = Pool { x, slots, num_slots: 1, tile_len: 2, scale: 1.0, std_bias: None, std_scale: None, out };
    average_pool(&queue, &pool).expect("it fits");
    let none = Pool { x: empty, slots: queue.upload_u32(&[]), num_slots: 0, out: empty, ..pool };
    average_pool(&queue, &none).expect("no soft tokens");
    let refused = |pool: Pool<'_>, why: &str| {
        let error = average_pool(&queue, &pool).expect_err("it does not fit").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(Pool { tile_len: 0, ..pool }, "tiles of 0");
    refused(Pool { num_slots: 3, ..pool }, "out has 4 elements for 3 soft tokens");
    refused(Pool { num_slots: 2, ..pool }, "x has 12 F32");
    refused(Pool { num_slots: 0, ..pool }, "out has 4 F32");
    refused(Pool { slots: x, ..pool }, "slots has 12 F32");
    refused(Pool { std_bias: Some(out), ..pool }, "one of std_bias and std_scale alone");
    refused(Pool { std_bias: Some(x), std_scale: Some(x), ..pool }, "std_bias has 12 F32");
}
