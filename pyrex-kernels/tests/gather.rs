//! Rows looked up, moved and put together, to the bit where nothing is summed.

mod support;

use pyrex_kernels::gather::{
    Gather, PerLayer, Scatter, copy_blocks, copy_ids, gather_rows, mask_ids, per_layer_inputs, scatter_rows,
    select_rows, write_slots,
};
use pyrex_kernels::norm::Norm;
use pyrex_kernels::{Buffer, Element, Result};
use support::{Emulated, close, nearest, noise, rms_norm_formula, round};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];
const TABLES: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];
const WIDTHS: [usize; 8] = [1, 7, 24, 33, 64, 256, 1536, 2560];

#[track_caller]
fn refused(result: Result<()>, why: &str) {
    let error = result.expect_err("it does not fit").to_string();
    assert!(error.contains(why), "{error}");
}

/// NaN is NaN.
#[track_caller]
fn same(got: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(got.len(), wanted.len());
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!(got == wanted || got.is_nan() && wanted.is_nan(), "{what}: {got} at {i}, expected {wanted}");
    }
}

/// Row `id` of `rows`, NaN if there is none.
fn row(rows: &[f32], id: u32, width: usize) -> Vec<f32> {
    rows.chunks_exact(width).nth(id as usize).map_or(vec![f32::NAN; width], <[f32]>::to_vec)
}

#[test]
fn gathered_rows_are_rounded_twice_and_unknown_ones_are_nan() {
    let ids = [4, 0, 4, 5, u32::MAX, 2];
    for element in ELEMENTS {
        for stored in TABLES {
            for width in WIDTHS {
                for (shift, factor) in [(0, 39.25), (1, 39.25), (0, 1.0)] {
                    let table = noise(stored, 5 * width, 1);
                    let queue = Emulated::default();
                    let out = queue.unwritten_at(shift, element, ids.len() * width);
                    let table_rows = queue.upload_at(shift, stored, &table);
                    let gather =
                        Gather { table: table_rows, ids: queue.upload_u32(&ids), width, factor, out };
                    gather_rows(&queue, &gather).expect("it fits");
                    let scaled = |x: &f32| round(element, round(element, *x) * factor);
                    let wanted: Vec<f32> =
                        ids.iter().flat_map(|id| row(&table, *id, width)).map(|x| scaled(&x)).collect();
                    same(&queue.download(out), &wanted, &format!("{element:?} of {stored:?} {width}"));
                }
            }
        }
    }
}

#[test]
fn a_table_is_read_once_and_only_at_the_rows_asked_for() {
    for (stored, width) in TABLES.into_iter().flat_map(|stored| [(stored, 1536), (stored, 256)]) {
        let queue = Emulated::default();
        // Nobody wrote the other rows: to read one is a fault.
        let table = queue.unwritten(stored, 100 * width);
        let rows = table.slice(40 * width, 8 * width).expect("inside");
        queue.fill(rows, &noise(stored, 8 * width, 1));
        let ids = queue.upload_u32(&[40, 41, 42, 43, 44, 45, 46, 47]);
        let out = queue.unwritten(Element::Bf16, 8 * width);
        gather_rows(&queue, &Gather { table, ids, width, factor: 1.0, out }).expect("it fits");
        let minimum = (8 * width * stored.size()) as u64 / 32;
        let read = queue.report().sectors_read;
        assert!(minimum <= read && read * 100 <= minimum * 105, "{stored:?} {width}: {read} of {minimum}");
        assert_eq!(queue.report().bytes_read, (8 * width * stored.size()) as u64 + id_bytes(width, stored));
    }
}

/// Each thread of a row reads its id.
fn id_bytes(width: usize, stored: Element) -> u64 {
    let threads = (width * stored.size() / 16).div_ceil(2);
    (8 * 4 * if threads <= 32 { threads.next_power_of_two() } else { threads.next_multiple_of(32) }) as u64
}

#[test]
fn selected_rows_are_copies() {
    for element in [Element::F32, Element::Bf16, Element::F16, Element::U32] {
        for width in [1, 3, 8, 33, 256, 1536, 5000] {
            for shift in [0, 1] {
                let queue = Emulated::default();
                let x: Vec<f32> = (0..4 * width).map(|i| (i % 251) as f32).collect();
                let rows = [3, 3, 0, 1];
                let out = queue.unwritten_at(shift, element, 4 * width);
                let source = queue.upload_at(shift, element, &x);
                select_rows(&queue, source, queue.upload_u32(&rows), width, out).expect("it fits");
                let wanted: Vec<f32> = rows.iter().flat_map(|id| row(&x, *id, width)).collect();
                assert_eq!(queue.download(out), wanted, "{element:?} {width}");
            }
        }
    }
}

#[test]
fn a_selected_row_that_is_not_there_is_nan_or_no_id() {
    for element in TABLES {
        let queue = Emulated::default();
        let out = queue.unwritten(element, 8);
        select_rows(&queue, queue.upload(element, &[1.0; 12]), queue.upload_u32(&[3, 2]), 4, out)
            .expect("it fits");
        same(&queue.download(out), &[vec![f32::NAN; 4], vec![1.0; 4]].concat(), "unknown");
    }
    let queue = Emulated::default();
    let out = queue.unwritten(Element::U32, 2);
    select_rows(&queue, queue.upload_u32(&[5, 6]), queue.upload_u32(&[1, 2]), 1, out).expect("it fits");
    assert_eq!(queue.download_u32(out), [6, u32::MAX]);
}

#[test]
fn scattered_rows_go_to_their_place_and_nowhere_else() {
    for element in ELEMENTS {
        for width in WIDTHS {
            for shift in [0, 1] {
                let queue = Emulated::default();
                let (source, target) = (noise(element, 4 * width, 1), noise(element, 5 * width, 2));
                let rows = [4, u32::MAX, 1, 5];
                let place = queue.upload_at(shift, element, &target);
                let source_rows = queue.upload_at(shift, element, &source);
                let scatter =
                    Scatter { source: source_rows, rows: queue.upload_u32(&rows), width, target: place };
                scatter_rows(&queue, &scatter).expect("it fits");
                let from = |place: u32| rows.iter().position(|row| *row == place);
                let wanted: Vec<f32> = (0..5)
                    .flat_map(|at| match from(at) {
                        Some(i) => row(&source, i as u32, width),
                        None => row(&target, at, width),
                    })
                    .collect();
                assert_eq!(queue.download(place), wanted, "{element:?} {width}");
                let pool = queue.upload_at(shift, element, &target);
                write_slots(&queue, pool, queue.upload_u32(&rows), width, source_rows).expect("it fits");
                assert_eq!(queue.download(pool), wanted, "slots");
            }
        }
    }
}

#[test]
fn blocks_are_copied_inside_their_pool() {
    for element in ELEMENTS {
        for block_len in [6, 1024, 8 * 512] {
            for shift in [0, 1] {
                let queue = Emulated::default();
                let pool = noise(element, 6 * block_len, 1);
                let buffer = queue.upload_at(shift, element, &pool);
                let pairs = [0, 3, 2, 5, 0, 4, 1, u32::MAX, u32::MAX, u32::MAX];
                copy_blocks(&queue, buffer, queue.upload_u32(&pairs), block_len).expect("it fits");
                let wanted: Vec<f32> =
                    [0, 1, 2, 0, 0, 2].iter().flat_map(|block| row(&pool, *block, block_len)).collect();
                assert_eq!(queue.download(buffer), wanted, "{element:?} {block_len}");
                copy_blocks(&queue, buffer, queue.upload_u32(&[]), block_len).expect("no pairs");
            }
        }
    }
}

#[test]
fn rows_are_moved_with_as_few_sectors_as_they_have() {
    let queue = Emulated::default();
    let (source, width) = (queue.upload(Element::Bf16, &[0.5; 8 * 1536]), 1536);
    let out = queue.unwritten(Element::Bf16, 4 * width);
    select_rows(&queue, source, queue.upload_u32(&[7, 0, 5, 2]), width, out).expect("it fits");
    let (sectors, report) = (4 * 1536 * 2 / 32, queue.report());
    assert_eq!(report.sectors_written, sectors);
    assert!(report.sectors_read * 100 <= sectors * 105, "{report:?}");
    copy_blocks(&queue, source, queue.upload_u32(&[0, 1]), 4 * width).expect("it fits");
    assert_eq!(queue.report().sectors_written, sectors);
    assert!(
        queue.report().sectors_read * 100 <= sectors * 106,
        "both of a pair are read: {:?}",
        queue.report()
    );
}

#[test]
fn placeholders_become_padding() {
    let ids: Vec<u32> = (0..300).map(|i| i % 11).chain([u32::MAX]).collect();
    for placeholders in [vec![], vec![3], vec![0, 10, 5], vec![1, 2, 3, u32::MAX]] {
        let queue = Emulated::default();
        let (buffer, out) = (queue.upload_u32(&ids), queue.unwritten(Element::U32, 301));
        mask_ids(&queue, buffer, &placeholders, 77, out).expect("it fits");
        let wanted: Vec<u32> =
            ids.iter().map(|id| if placeholders.contains(id) { 77 } else { *id }).collect();
        assert_eq!(queue.download_u32(out), wanted);
        mask_ids(&queue, buffer, &placeholders, 77, buffer).expect("in place");
        assert_eq!(queue.download_u32(buffer), wanted);
    }
    let queue = Emulated::default();
    let buffer = queue.upload_u32(&[0]);
    refused(mask_ids(&queue, buffer, &[1; 5], 0, buffer), "5 placeholders, expected at most 4");
}

const EPS: f32 = 1e-6;

/// Tokens, the layers they are asked for of `num_layers`, and the width of an input.
#[derive(Clone, Copy, Debug)]
struct Layers {
    num_layers: usize,
    first: usize,
    count: usize,
    width: usize,
}

const IDS: [u32; 3] = [2, 0, 3];
const VOCAB: usize = 4;
const FACTOR: f32 = 16.0;
const PROJECTION_SCALE: f32 = 0.025515518;

impl Layers {
    fn numbers(&self, element: Element, stored: Element) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        (
            noise(element, IDS.len() * self.count * self.width, 1)
                .iter()
                .map(|x| round(element, 40.0 * x))
                .collect(),
            noise(stored, VOCAB * self.num_layers * self.width, 2),
            noise(Element::F32, self.width, 3),
        )
    }

    fn run(
        &self,
        queue: &Emulated,
        shift: usize,
        element: Element,
        stored: Element,
        ids: &[u32],
    ) -> Vec<f32> {
        let (context, table, weight) = self.numbers(element, stored);
        let out = queue.unwritten_at(shift, element, context.len());
        let inputs = PerLayer {
            context: queue.upload_at(shift, element, &context),
            ids: queue.upload_u32(ids),
            table: queue.upload_at(shift, stored, &table),
            num_layers: self.num_layers,
            first_layer: self.first,
            layers: self.count,
            width: self.width,
            factor: FACTOR,
            projection_scale: PROJECTION_SCALE,
            norm: Norm { weight: Some(queue.upload_at(shift, Element::F32, &weight)), eps: EPS },
            out,
        };
        per_layer_inputs(queue, &inputs).expect("it fits");
        queue.download(out)
    }

    fn wanted(&self, element: Element, stored: Element) -> Vec<f64> {
        let (context, table, weight) = self.numbers(element, stored);
        let scaled: Vec<f32> = context.iter().map(|x| round(element, x * PROJECTION_SCALE)).collect();
        let normed = rms_norm_formula(element, &scaled, Some(&weight), EPS, self.width);
        let sum = |(i, normed): (usize, &f64)| {
            let (row, at) = (i / self.width, i % self.width);
            let (token, layer) = (row / self.count, self.first + row % self.count);
            let table_row = IDS[token] as usize * self.num_layers + layer;
            let by_token = round(element, round(element, table[table_row * self.width + at]) * FACTOR);
            let sum = nearest(element, normed + f64::from(by_token));
            nearest(element, sum * f64::from(std::f32::consts::FRAC_1_SQRT_2))
        };
        normed.iter().enumerate().map(sum).collect()
    }
}

#[test]
fn per_layer_inputs_are_what_the_parts_make() {
    let cases =
        [(5, 0, 5, 256), (5, 3, 2, 256), (3, 1, 1, 33), (2, 0, 2, 64), (35, 15, 20, 8), (2, 1, 1, 1028)];
    for (num_layers, first, count, width) in cases {
        let layers = Layers { num_layers, first, count, width };
        for (element, bound) in [(Element::F32, 3e-7), (Element::Bf16, 2e-4)] {
            for stored in TABLES {
                let got = layers.run(&Emulated::default(), 0, element, stored, &IDS);
                close(
                    &format!("{element:?} {stored:?} {layers:?}"),
                    &got,
                    &layers.wanted(element, stored),
                    bound,
                );
                let elsewhere = layers.run(&Emulated::default(), 1, element, stored, &IDS);
                assert_eq!(got, elsewhere, "{layers:?}: the same bits anywhere");
            }
        }
    }
}

#[test]
fn per_layer_inputs_of_an_unknown_id_are_nan_and_of_no_other() {
    let layers = Layers { num_layers: 3, first: 1, count: 2, width: 64 };
    for element in ELEMENTS {
        let known = layers.run(&Emulated::default(), 0, element, Element::Bf16, &IDS);
        let got = layers.run(&Emulated::default(), 0, element, Element::Bf16, &[2, 4, u32::MAX]);
        assert_eq!(got[..128], known[..128]);
        assert!(got[128..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn per_layer_inputs_read_context_and_table_once() {
    let layers = Layers { num_layers: 8, first: 0, count: 8, width: 256 };
    for element in ELEMENTS {
        let queue = Emulated::default();
        layers.run(&queue, 0, element, Element::Bf16, &IDS);
        let (rows, context) = (24, 256 * element.size() as u64 / 32);
        let (table, weight) = (256 * 2 / 32, 256 * 4 / 32);
        let minimum = rows * (context + table + weight);
        let report = queue.report();
        assert!(report.sectors_read * 100 <= minimum * 105, "{element:?}: {report:?}, at least {minimum}");
        assert_eq!(report.sectors_written, rows * context);
    }
}

#[test]
fn nothing_is_nothing_and_what_does_not_fit_is_refused() {
    let queue = Emulated::default();
    let floats = |len| queue.upload(Element::F32, &vec![0.5; len]);
    let (table, ids, out) = (floats(12), queue.upload_u32(&[0, 1]), floats(8));
    let (empty, none) = (floats(0), queue.upload_u32(&[]));
    let gather = Gather { table, ids, width: 4, factor: 1.0, out };
    gather_rows(&queue, &gather).expect("it fits");
    gather_rows(&queue, &Gather { ids: none, out: empty, ..gather }).expect("no ids");
    gather_rows(&queue, &Gather { table: empty, ..gather }).expect("no rows: all are unknown");
    assert!(queue.download(out).iter().all(|x| x.is_nan()));
    refused(gather_rows(&queue, &Gather { width: 5, ..gather }), "table has 12 elements in rows of 5");
    refused(gather_rows(&queue, &Gather { ids: table, ..gather }), "ids has 12 F32");
    refused(gather_rows(&queue, &Gather { table: ids, ..gather }), "table has U32");
    refused(gather_rows(&queue, &Gather { out: table, ..gather }), "out has 12 F32");

    let scatter = Scatter { source: out, rows: ids, width: 4, target: table };
    scatter_rows(&queue, &Scatter { source: empty, rows: none, ..scatter }).expect("no rows");
    refused(scatter_rows(&queue, &Scatter { source: empty, ..scatter }), "source has 0 F32");
    refused(scatter_rows(&queue, &Scatter { target: floats(13), ..scatter }), "target has 13 elements");
    refused(select_rows(&queue, table, ids, 4, empty), "out has 0 F32");
    let bytes = queue.unwritten(Element::U8, 0);
    refused(select_rows(&queue, bytes, ids, 0, bytes), "source has U8");
    refused(copy_blocks(&queue, table, queue.upload_u32(&[0, 1, 2]), 4), "pairs has 3 elements");
    refused(copy_blocks(&queue, table, ids, 5), "source has 12 elements in rows of 5");

    let norm = Norm { weight: None, eps: EPS };
    let inputs = PerLayer {
        context: floats(16),
        ids,
        table,
        num_layers: 3,
        first_layer: 1,
        layers: 2,
        width: 4,
        factor: 1.0,
        projection_scale: 1.0,
        norm,
        out: floats(16),
    };
    per_layer_inputs(&queue, &inputs).expect("it fits");
    let run = |inputs: PerLayer<'_>| per_layer_inputs(&queue, &inputs);
    refused(run(PerLayer { first_layer: 2, ..inputs }), "2 layers from 2 on of 3");
    refused(run(PerLayer { layers: 0, ..inputs }), "0 layers");
    refused(run(PerLayer { context: out, ..inputs }), "context has 8 F32");
    refused(run(PerLayer { out, ..inputs }), "out has 8 F32");
    refused(run(PerLayer { norm: Norm { weight: Some(out), ..norm }, ..inputs }), "norm.weight has 8 F32");
    let unknown: Buffer<'_> = queue.unwritten(Element::U8, 12);
    refused(run(PerLayer { table: unknown, ..inputs }), "table has U8");
}

#[test]
fn ids_are_copied_by_pairs() {
    let queue = Emulated::default();
    let source = queue.upload_u32(&[10, 11, 12]);
    let target = queue.upload_u32(&[0, 1, 2, 3]);
    let pairs = queue.upload_u32(&[2, 0, 0, 3, 9, 1, 1, 9]);
    copy_ids(&queue, source, pairs, target).expect("it fits");
    assert_eq!(
        queue.download_u32(target),
        [12, u32::MAX, 2, 10],
        "a source that is not there is told, a target is not"
    );
    let odd = queue.upload_u32(&[0, 1, 2]);
    assert!(copy_ids(&queue, source, odd, target).is_err());
}
