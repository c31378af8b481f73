//! `ldmatrix` by the layout that the PTX ISA draws, and `mma` against plain products.

mod support;

use half::{bf16, f16};
use support::{Bench, noise};

/// Row and column of each element that a lane holds, as the PTX ISA's tables say, written out anew.
type Place = fn(lane: usize, index: usize) -> (usize, usize);

/// How a number becomes an element's bits, and back.
type Code = (fn(f32) -> u32, fn(u32) -> f64);

struct Case {
    opcode: &'static str,
    sizes: [usize; 3],
    /// Elements of one register of `A` and `B`.
    packed: usize,
    a: Place,
    b: Place,
    encode: fn(f32) -> u32,
    decode: fn(u32) -> f64,
}

fn group(lane: usize) -> usize {
    lane >> 2
}

fn within(lane: usize) -> usize {
    lane % 4
}

const BF16: Code = (|x| u32::from(bf16::from_f32(x).to_bits()), |bits| bf16::from_bits(bits as u16).to_f64());
const F16: Code = (|x| u32::from(f16::from_f32(x).to_bits()), |bits| f16::from_bits(bits as u16).to_f64());
const TF32: Code = (|x| x.to_bits() & !0x1fff, |bits| f64::from(f32::from_bits(bits)));
const S8: Code = (|x| ((x * 60.0) as i8 as u8).into(), |bits| f64::from(bits as u8 as i8));

fn cases() -> Vec<Case> {
    let case = |opcode, sizes, packed, a, b, (encode, decode): Code| Case {
        opcode,
        sizes,
        packed,
        a,
        b,
        encode,
        decode,
    };
    let a_16: Place = |lane, i| {
        let row = if i < 2 || (4..6).contains(&i) { group(lane) } else { group(lane) + 8 };
        (row, within(lane) * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
    };
    let b_16: Place = |lane, i| (within(lane) * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, group(lane));
    let a_8: Place =
        |lane, i| (if i < 2 { group(lane) } else { group(lane) + 8 }, within(lane) * 2 + (i & 1));
    let b_8: Place = |lane, i| (within(lane) * 2 + i, group(lane));
    let a_tf32: Place = |lane, i| {
        (
            if i == 0 || i == 2 { group(lane) } else { group(lane) + 8 },
            within(lane) + if i >= 2 { 4 } else { 0 },
        )
    };
    let b_tf32: Place = |lane, i| (within(lane) + if i == 1 { 4 } else { 0 }, group(lane));
    let a_s8: Place = |lane, i| {
        let row = if i < 4 || (8..12).contains(&i) { group(lane) } else { group(lane) + 8 };
        (row, within(lane) * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
    };
    let b_s8: Place = |lane, i| (within(lane) * 4 + (i & 3) + if i >= 4 { 16 } else { 0 }, group(lane));
    vec![
        case("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [16, 8, 16], 2, a_16, b_16, BF16),
        case("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", [16, 8, 16], 2, a_16, b_16, F16),
        case("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", [16, 8, 8], 2, a_8, b_8, BF16),
        case("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", [16, 8, 8], 2, a_8, b_8, F16),
        case("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", [16, 8, 8], 1, a_tf32, b_tf32, TF32),
        case("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", [16, 8, 4], 1, a_tf32, b_tf32, TF32),
        case("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", [16, 8, 32], 4, a_s8, b_s8, S8),
        case("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32", [16, 8, 16], 4, a_s8, b_s8, S8),
    ]
}

fn c_place(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { group(lane) } else { group(lane) + 8 }, within(lane) * 2 + (i & 1))
}

/// A matrix of `rows × cols` as each lane's registers hold it.
fn fragment(matrix: &[u32], cols: usize, packed: usize, place: Place) -> Vec<u32> {
    let per_lane = matrix.len() / 32;
    let bits = 32 / packed;
    let register = |lane: usize, register: usize| {
        (0..packed).fold(0, |all, part| {
            let (row, col) = place(lane, register * packed + part);
            all | matrix[row * cols + col] << (bits * part % 32)
        })
    };
    (0..32)
        .flat_map(|lane| (0..per_lane / packed).map(move |at| register(lane, at)).collect::<Vec<_>>())
        .collect()
}

fn list(prefix: &str, len: usize) -> String {
    (0..len).map(|at| format!("{prefix}{at}")).collect::<Vec<_>>().join(", ")
}

fn load(prefix: &str, len: usize, parameter: usize) -> String {
    let mut text = format!("mad.wide.u32 %rd0, %r199, {}, %p{parameter};\n", 4 * len);
    for at in 0..len {
        text += &format!("ld.global.b32 {prefix}{at}, [%rd0+{}];\n", 4 * at);
    }
    text
}

impl Case {
    /// The bits of `a · b + c`, by rows, from such bits.
    fn multiplied(&self, a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
        let [m, n, k] = self.sizes;
        let (a_len, b_len) = (m * k / 32 / self.packed, k * n / 32 / self.packed);
        let bench = Bench::new();
        let parameters = [
            bench.upload(&fragment(a, k, self.packed, self.a)),
            bench.upload(&fragment(b, n, self.packed, self.b)),
            bench.upload(&fragment(c, n, 1, c_place)),
            bench.device.allocate(4 * m * n),
        ];
        let mut body = load("%r1", a_len, 0) + &load("%r2", b_len, 1) + &load("%r3", 4, 2);
        body += &format!(
            "{} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
            self.opcode,
            list("%r4", 4),
            list("%r1", a_len),
            list("%r2", b_len),
            list("%r3", 4)
        );
        body += "mad.wide.u32 %rd0, %r199, 16, %p3;\nst.global.v4.b32 [%rd0], {%r40, %r41, %r42, %r43};\n";
        bench
            .launch(&support::kernel(4, &body), 1, 32, &parameters)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let found = bench.download(parameters[3], m * n);
        let mut matrix = vec![0; m * n];
        for (lane, at) in (0..32).flat_map(|lane| (0..4).map(move |at| (lane, at))) {
            let (row, col) = c_place(lane, at);
            matrix[row * n + col] = found[lane * 4 + at];
        }
        matrix
    }
}

#[test]
fn products_are_those_of_plain_loops() {
    for case in cases() {
        let [m, n, k] = case.sizes;
        let encode = |values: Vec<f32>| -> Vec<u32> { values.into_iter().map(case.encode).collect() };
        let (a, b) = (encode(noise(m * k, 1)), encode(noise(k * n, 2)));
        let is_integer = case.opcode.ends_with("s32");
        let c: Vec<f32> =
            noise(m * n, 3).into_iter().map(|x| if is_integer { (x * 1000.0).trunc() } else { x }).collect();
        let c_bits: Vec<u32> =
            c.iter().map(|x| if is_integer { *x as i32 as u32 } else { x.to_bits() }).collect();
        let found = case.multiplied(&a, &b, &c_bits);
        for (row, col) in (0..m).flat_map(|row| (0..n).map(move |col| (row, col))) {
            let product = |at: usize| (case.decode)(a[row * k + at]) * (case.decode)(b[at * n + col]);
            let wanted = f64::from(c[row * n + col]) + (0..k).map(product).sum::<f64>();
            let bits = found[row * n + col];
            let found = if is_integer { f64::from(bits as i32) } else { f64::from(f32::from_bits(bits)) };
            // What is cut off the factors' products, none of which is above 4, and off their sums.
            let bound = if is_integer { 0.0 } else { 2e-6 };
            assert!((found - wanted).abs() <= bound, "{}: {found} for {wanted}", case.opcode);
        }
    }
}

#[test]
fn tensor_cores_cut_off_what_is_too_small_beside_a_sum() {
    let cut = |case: &Case, c: f32, product: f32| {
        let [m, n, k] = case.sizes;
        let (a, b) = (vec![(case.encode)(product); m * k], vec![(case.encode)(1.0); k * n]);
        let found = case.multiplied(&a, &b, &vec![c.to_bits(); m * n]);
        assert!(found.iter().all(|one| *one == found[0]), "{}", case.opcode);
        f32::from_bits(found[0])
    };
    let ulp = f32::EPSILON;
    for case in cases().iter().filter(|case| !case.opcode.ends_with("s32")) {
        let (k, name) = (case.sizes[2] as f32, case.opcode);
        assert_eq!(cut(case, 1.0, 0.25), 1.0 + 0.25 * k, "{name}: exact");
        // f16 has no numbers as small: all are larger there.
        let large = if name.contains(".f16.f16.") { 16384.0 } else { 1.0 };
        assert_eq!(cut(case, large, 0.49 * ulp * large), large, "{name}: each is less than half an ulp");
        assert_eq!(cut(case, large, -0.49 * ulp * large), large, "{name}: towards zero, of either sign");
        assert_eq!(
            cut(case, large, 0.75 * ulp * large),
            large * (1.0 + ulp * k / 2.0),
            "{name}: one bit more"
        );
        assert_eq!(cut(case, f32::INFINITY, 1.0), f32::INFINITY, "{name}");
        assert!(cut(case, f32::NAN, 1.0).is_nan() && cut(case, 1.0, f32::NAN).is_nan(), "{name}");
        assert_eq!(cut(case, 0.0, 0.0), 0.0, "{name}");
    }
    let odd = &cases()[0];
    assert_eq!(cut(odd, 1.0 - ulp / 2.0, 0.5 * ulp), 1.0 + 7.0 * ulp, "what f32 cannot hold of a sum");
}

#[test]
fn ldmatrix_gives_rows_or_columns() {
    // Element (matrix, row, col) is 256 · matrix + 16 · row + col; rows lie 48 bytes apart.
    let mut shared = vec![0u16; 32 * 24];
    for row in 0..32 {
        for col in 0..8 {
            shared[row * 24 + col] = (256 * (row / 8) + 16 * (row % 8) + col) as u16;
        }
    }
    let words: Vec<u32> = shared.chunks(2).map(|two| u32::from(two[0]) | u32::from(two[1]) << 16).collect();
    for (num, trans) in [(1, ""), (2, ""), (4, ""), (1, ".trans"), (2, ".trans"), (4, ".trans")] {
        let bench = Bench::new();
        let parameters = [bench.upload(&words), bench.device.allocate(4 * 32 * num)];
        let mut body = String::from(".shared .align 16 .b8 tile[1536];\nmov.u32 %r0, tile;\n");
        for at in 0..12 {
            body += &format!("add.s64 %rd0, %p0, %rd99;\nld.global.u32 %r1, [%rd0+{}];\n", 128 * at);
            body += &format!("mad.lo.u32 %r2, %r199, 4, %r0;\nst.shared.u32 [%r2+{}], %r1;\n", 128 * at);
        }
        body += "bar.sync 0;\nmad.lo.u32 %r2, %r199, 48, %r0;\n";
        body += &format!(
            "ldmatrix.sync.aligned.m8n8.x{num}{trans}.shared.b16 {{{}}}, [%r2];\n",
            list("%r1", num)
        );
        body += &format!("mad.wide.u32 %rd0, %r199, {}, %p1;\n", 4 * num);
        for at in 0..num {
            body += &format!("st.global.u32 [%rd0+{}], %r1{at};\n", 4 * at);
        }
        bench
            .launch(&support::kernel(2, &body), 1, 32, &parameters)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let found = bench.download(parameters[1], 32 * num);
        for lane in 0..32 {
            for matrix in 0..num {
                let at = |first: usize, second: usize| {
                    let (row, col) = if trans.is_empty() { (first, second) } else { (second, first) };
                    (256 * matrix + 16 * row + col) as u32
                };
                let wanted = at(lane / 4, lane % 4 * 2) | at(lane / 4, lane % 4 * 2 + 1) << 16;
                assert_eq!(found[lane * num + matrix], wanted, "x{num}{trans}, lane {lane}, matrix {matrix}");
            }
        }
    }
}

/// `wmma` loads both from shared or global memory, by rows or columns, and stores what it multiplied.
fn wmma(shape: &str, ty: &str, registers: [usize; 3], (a_order, b_order): (&str, &str)) -> String {
    let types = if ty == "f16" { "f32.f32".to_owned() } else { format!("f32.{ty}.{ty}.f32") };
    let [a, b, c] = registers;
    format!(
        "mov.u32 %r0, 40;\nwmma.load.a.sync.aligned.{a_order}.{shape}.global.{ty} {{{}}}, [%p0], %r0;\n\
         wmma.load.b.sync.aligned.{b_order}.{shape}.global.{ty} {{{}}}, [%p1], 40;\n\
         wmma.load.c.sync.aligned.row.{shape}.global.f32 {{{}}}, [%p2], %r0;\n\
         wmma.mma.sync.aligned.{a_order}.{b_order}.{shape}.{types} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n\
         wmma.store.d.sync.aligned.row.{shape}.global.f32 [%p3], {{{}}}, %r0;",
        list("%r1", a),
        list("%r2", b),
        list("%f1", c),
        list("%f2", c),
        list("%r1", a),
        list("%r2", b),
        list("%f1", c),
        list("%f2", c)
    )
}

#[test]
fn wmma_is_the_product_whatever_its_layout() {
    let cases = [
        ("f16", [16, 16, 16], [8, 8, 8], F16),
        ("f16", [32, 8, 16], [8, 8, 8], F16),
        ("f16", [8, 32, 16], [8, 8, 8], F16),
        ("bf16", [16, 16, 16], [4, 4, 8], BF16),
        ("bf16", [32, 8, 16], [8, 2, 8], BF16),
        ("bf16", [8, 32, 16], [2, 8, 8], BF16),
    ];
    for ((ty, [m, n, k], registers, (encode, decode)), orders) in
        cases.into_iter().flat_map(|case| [("row", "col"), ("col", "row")].map(|orders| (case, orders)))
    {
        // Lines of 40 elements, more than any matrix is wide.
        let bench = Bench::new();
        let halves: Vec<Vec<u32>> =
            [1, 2].map(|seed| noise(40 * 32, seed).into_iter().map(encode).collect()).into();
        let pack = |halves: &Vec<u32>| halves.chunks(2).map(|two| two[0] | two[1] << 16).collect::<Vec<_>>();
        let c = noise(40 * 32, 3);
        let out = bench.upload(&[0; 40 * 32]);
        let parameters = [
            bench.upload(&pack(&halves[0])),
            bench.upload(&pack(&halves[1])),
            bench.upload(&c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
            out,
        ];
        let body = wmma(&format!("m{m}n{n}k{k}"), ty, registers, orders);
        bench
            .launch(&support::kernel(4, &body), 1, 32, &parameters)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let found = bench.download(out, 40 * 32);
        let at = |matrix: usize, order: &str, row: usize, col: usize| {
            decode(halves[matrix][if order == "row" { row * 40 + col } else { col * 40 + row }])
        };
        for (row, col) in (0..m).flat_map(|row| (0..n).map(move |col| (row, col))) {
            let products = (0..k).map(|i| at(0, orders.0, row, i) * at(1, orders.1, i, col));
            let wanted = f64::from(c[row * 40 + col]) + products.sum::<f64>();
            let found = f64::from(f32::from_bits(found[row * 40 + col]));
            assert!((found - wanted).abs() <= 1e-5, "{ty} {m}x{n}x{k} {orders:?}: {found} for {wanted}");
        }
    }
}
