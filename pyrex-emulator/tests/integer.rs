//! Integers and bits against Rust's own.

mod support;

use support::{Bench, combinations, compute, integers};

/// Holds an instruction of `sources` with `%a`, `%b`, `%c` to `wanted`, on numbers at all edges.
#[track_caller]
fn is(instruction: &str, sources: &[&str], result: &str, wanted: impl Fn(&[u64]) -> u64) {
    let bits = |ty: &str| ty[1..].parse().unwrap_or(32);
    let widest = sources.iter().map(|ty| bits(ty)).max().expect("there is a source");
    let mut cases = combinations(&integers(widest), sources.len());
    for case in &mut cases {
        for (number, ty) in case.iter_mut().zip(sources) {
            *number &= u64::MAX >> (64 - bits(ty));
        }
    }
    let found = compute(instruction, sources, result, &cases);
    let mask = if result == "pred" { 1 } else { u64::MAX >> (64 - bits(result)) };
    for (case, found) in cases.iter().zip(found) {
        assert_eq!(found, wanted(case) & mask, "{instruction} of {case:x?}");
    }
}

#[test]
fn sums_and_products() {
    is("add.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| x[0].wrapping_add(x[1]));
    is("add.s64 %d, %a, %b;", &["u64"; 2], "u64", |x| x[0].wrapping_add(x[1]));
    is("add.s16 %d, %a, %b;", &["u16"; 2], "u16", |x| x[0].wrapping_add(x[1]));
    is("sub.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| x[0].wrapping_sub(x[1]));
    is("add.sat.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| (x[0] as i32).saturating_add(x[1] as i32) as u64);
    is("sub.sat.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| (x[0] as i32).saturating_sub(x[1] as i32) as u64);
    is("mul.lo.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| x[0].wrapping_mul(x[1]));
    is("mul.lo.s64 %d, %a, %b;", &["u64"; 2], "u64", |x| x[0].wrapping_mul(x[1]));
    is("mul.hi.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| (x[0] * x[1]) >> 32);
    is("mul.hi.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| {
        ((i64::from(x[0] as i32) * i64::from(x[1] as i32)) >> 32) as u64
    });
    is("mul.hi.u64 %d, %a, %b;", &["u64"; 2], "u64", |x| {
        ((u128::from(x[0]) * u128::from(x[1])) >> 64) as u64
    });
    is("mul.hi.s64 %d, %a, %b;", &["u64"; 2], "u64", |x| {
        ((i128::from(x[0] as i64) * i128::from(x[1] as i64)) >> 64) as u64
    });
    is("mul.wide.u16 %d, %a, %b;", &["u16"; 2], "u32", |x| x[0] * x[1]);
    is("mul.wide.s16 %d, %a, %b;", &["u16"; 2], "u32", |x| {
        (i64::from(x[0] as i16) * i64::from(x[1] as i16)) as u64
    });
    is("mul.wide.u32 %d, %a, %b;", &["u32"; 2], "u64", |x| x[0] * x[1]);
    is("mul.wide.s32 %d, %a, %b;", &["u32"; 2], "u64", |x| {
        (i64::from(x[0] as i32) * i64::from(x[1] as i32)) as u64
    });
    is("mul24.lo.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| (x[0] & 0xff_ffff) * (x[1] & 0xff_ffff));
    is("mul24.hi.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| {
        let low = |x: u64| i64::from((x as i32) << 8 >> 8);
        ((low(x[0]) * low(x[1])) >> 16) as u64
    });
    is("mad.lo.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| x[0].wrapping_mul(x[1]).wrapping_add(x[2]));
    is("mad.hi.u32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| ((x[0] * x[1]) >> 32).wrapping_add(x[2]));
    is("mad.wide.u32 %d, %a, %b, %c;", &["u32", "u32", "u64"], "u64", |x| (x[0] * x[1]).wrapping_add(x[2]));
    is("mad.wide.s32 %d, %a, %b, %c;", &["u32", "u32", "u64"], "u64", |x| {
        (i64::from(x[0] as i32) * i64::from(x[1] as i32)).wrapping_add(x[2] as i64) as u64
    });
    is("sad.u32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| x[0].abs_diff(x[1]).wrapping_add(x[2]));
    is("sad.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        u64::from((x[0] as i32).abs_diff(x[1] as i32)).wrapping_add(x[2])
    });
}

#[test]
fn quotients() {
    let unless_zero = |b: u64, of: &dyn Fn() -> u64, zero: u64| if b == 0 { zero } else { of() };
    is("div.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| unless_zero(x[1], &|| x[0] / x[1], !0));
    is("rem.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| unless_zero(x[1], &|| x[0] % x[1], x[0]));
    is("div.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| {
        unless_zero(x[1], &|| (x[0] as i32).wrapping_div(x[1] as i32) as u64, !0)
    });
    is("rem.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| {
        unless_zero(x[1], &|| (x[0] as i32).wrapping_rem(x[1] as i32) as u64, x[0])
    });
    is("div.u64 %d, %a, %b;", &["u64"; 2], "u64", |x| unless_zero(x[1], &|| x[0] / x[1], !0));
    is("rem.s64 %d, %a, %b;", &["u64"; 2], "u64", |x| {
        unless_zero(x[1], &|| (x[0] as i64).wrapping_rem(x[1] as i64) as u64, x[0])
    });
    is("div.u16 %d, %a, %b;", &["u16"; 2], "u16", |x| unless_zero(x[1], &|| x[0] / x[1], !0));
}

#[test]
fn smaller_and_bigger_ones() {
    is("min.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| x[0].min(x[1]));
    is("max.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| (x[0] as i32).max(x[1] as i32) as u64);
    is("min.s64 %d, %a, %b;", &["u64"; 2], "u64", |x| (x[0] as i64).min(x[1] as i64) as u64);
    is("max.u16 %d, %a, %b;", &["u16"; 2], "u16", |x| x[0].max(x[1]));
    is("min.s16 %d, %a, %b;", &["u16"; 2], "u16", |x| (x[0] as i16).min(x[1] as i16) as u64);
    is("abs.s32 %d, %a;", &["u32"], "u32", |x| (x[0] as i32).wrapping_abs() as u64);
    is("neg.s64 %d, %a;", &["u64"], "u64", |x| x[0].wrapping_neg());
}

#[test]
fn bits_by_bits() {
    is("and.b32 %d, %a, %b;", &["u32"; 2], "u32", |x| x[0] & x[1]);
    is("or.b64 %d, %a, %b;", &["u64"; 2], "u64", |x| x[0] | x[1]);
    is("xor.b16 %d, %a, %b;", &["u16"; 2], "u16", |x| x[0] ^ x[1]);
    is("not.b32 %d, %a;", &["u32"], "u32", |x| !x[0]);
    is("cnot.b32 %d, %a;", &["u32"], "u32", |x| u64::from(x[0] == 0));
    is("shl.b32 %d, %a, %b;", &["u32"; 2], "u32", |x| if x[1] > 31 { 0 } else { x[0] << x[1] });
    is("shl.b64 %d, %a, %b;", &["u64", "u32"], "u64", |x| if x[1] > 63 { 0 } else { x[0] << x[1] });
    is("shl.b16 %d, %a, %b;", &["u16", "u32"], "u16", |x| if x[1] > 15 { 0 } else { x[0] << x[1] });
    is("shr.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| if x[1] > 31 { 0 } else { x[0] >> x[1] });
    is("shr.s32 %d, %a, %b;", &["u32"; 2], "u32", |x| (i64::from(x[0] as i32) >> x[1].min(31)) as u64);
    is("shr.s64 %d, %a, %b;", &["u64", "u32"], "u64", |x| ((x[0] as i64) >> x[1].min(63)) as u64);
    is("shr.u16 %d, %a, %b;", &["u16", "u32"], "u16", |x| if x[1] > 15 { 0 } else { x[0] >> x[1] });
    is("shf.l.wrap.b32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| ((x[1] << 32 | x[0]) << (x[2] & 31)) >> 32);
    is("shf.r.wrap.b32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| (x[1] << 32 | x[0]) >> (x[2] & 31));
    is("shf.l.clamp.b32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        ((x[1] << 32 | x[0]) << x[2].min(32)) >> 32
    });
    is("shf.r.clamp.b32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| (x[1] << 32 | x[0]) >> x[2].min(32));
    // f(a, b, c) is bit 4a + 2b + c of the table.
    for table in [0x96, 0xe8, 0xca, 0x01, 0x80, 0x6a, 0xf8] {
        is(&format!("lop3.b32 %d, %a, %b, %c, {table};"), &["u32"; 3], "u32", |x| {
            (0..32).fold(0, |all, bit| {
                let row = (x[0] >> bit & 1) << 2 | (x[1] >> bit & 1) << 1 | x[2] >> bit & 1;
                all | (table >> row & 1) << bit
            })
        });
    }
}

#[test]
fn fields_of_bits() {
    is("popc.b32 %d, %a;", &["u32"], "u32", |x| u64::from(x[0].count_ones()));
    is("popc.b64 %d, %a;", &["u64"], "u32", |x| u64::from(x[0].count_ones()));
    is("clz.b32 %d, %a;", &["u32"], "u32", |x| u64::from((x[0] as u32).leading_zeros()));
    is("clz.b64 %d, %a;", &["u64"], "u32", |x| u64::from(x[0].leading_zeros()));
    is("brev.b32 %d, %a;", &["u32"], "u32", |x| u64::from((x[0] as u32).reverse_bits()));
    is("brev.b64 %d, %a;", &["u64"], "u64", |x| x[0].reverse_bits());
    is("bfind.u32 %d, %a;", &["u32"], "u32", |x| u64::from(x[0].checked_ilog2().unwrap_or(u32::MAX)));
    is("bfind.s32 %d, %a;", &["u32"], "u32", |x| {
        let bits = if (x[0] as i32) < 0 { !x[0] as u32 } else { x[0] as u32 };
        u64::from(bits.checked_ilog2().unwrap_or(u32::MAX))
    });
    is("bfind.shiftamt.u64 %d, %a;", &["u64"], "u32", |x| {
        u64::from(x[0].checked_ilog2().map_or(u32::MAX, |at| 63 - at))
    });
    let field = |x: &[u64], width: u64, signed: bool| {
        let (at, len) = (x[1] & 0xff, x[2] & 0xff);
        // As the PTX ISA's pseudocode: beyond the number there is its sign, or that of the field's last bit.
        let bit = |number: u64, at: u64| number >> at & 1;
        let sign = if !signed || len == 0 { 0 } else { bit(x[0], (at + len - 1).min(width - 1)) };
        (0..width)
            .fold(0, |all, i| all | if i < len && at + i < width { bit(x[0], at + i) } else { sign } << i)
    };
    is("bfe.u32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| field(x, 32, false));
    is("bfe.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| field(x, 32, true));
    is("bfe.u64 %d, %a, %b, %c;", &["u64", "u32", "u32"], "u64", |x| field(x, 64, false));
    is("bfe.s64 %d, %a, %b, %c;", &["u64", "u32", "u32"], "u64", |x| field(x, 64, true));
    for (at, len) in [(0u64, 8u64), (5, 3), (31, 4), (40, 2), (0, 32), (7, 0), (0, 300)] {
        is(&format!("bfi.b32 %d, %a, %b, {at}, {len};"), &["u32"; 2], "u32", |x| {
            (0..32).fold(x[1], |all, bit| {
                let within = bit >= at && bit - at < (len & 0xff);
                if within { all & !(1 << bit) | (x[0] >> (bit - at) & 1) << bit } else { all }
            })
        });
    }
}

#[test]
fn bytes_of_words() {
    let byte = |x: &[u64], at: u64| (x[1] << 32 | x[0]) >> (8 * (at & 7)) & 0xff;
    is("prmt.b32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..4).fold(0, |all, at| {
            let selector = x[2] >> (4 * at) & 0xf;
            let byte = byte(x, selector);
            let sign = if byte & 0x80 == 0 { 0 } else { 0xff };
            all | if selector & 8 == 0 { byte } else { sign } << (8 * at)
        })
    });
    is("prmt.b32.f4e %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..4).fold(0, |all, at| all | byte(x, (x[2] & 3) + at) << (8 * at))
    });
    is("prmt.b32.rc8 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..4).fold(0, |all, at| all | byte(x, x[2] & 3) << (8 * at))
    });
    let signed = |x: u64, at: u64| i64::from((x >> (8 * at)) as i8);
    let unsigned = |x: u64, at: u64| i64::from((x >> (8 * at)) as u8);
    is("dp4a.s32.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..4).map(|at| signed(x[0], at) * signed(x[1], at)).sum::<i64>().wrapping_add(x[2] as i64) as u64
    });
    is("dp4a.u32.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..4).map(|at| unsigned(x[0], at) * signed(x[1], at)).sum::<i64>().wrapping_add(x[2] as i64) as u64
    });
    is("dp2a.hi.s32.u32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| {
        (0..2)
            .map(|at| i64::from((x[0] >> (16 * at)) as i16) * unsigned(x[1], at + 2))
            .sum::<i64>()
            .wrapping_add(x[2] as i64) as u64
    });
}

#[test]
fn carries() {
    is("{ add.cc.u32 %r1, %a, %a; addc.u32 %d, %b, 0; }", &["u32"; 2], "u32", |x| x[1] + (x[0] >> 31));
    is("{ sub.cc.u32 %r1, %a, %b; subc.u32 %d, %a, %b; }", &["u32"; 2], "u32", |x| {
        x[0].wrapping_sub(x[1]).wrapping_sub(u64::from(x[0] < x[1]))
    });
    is("{ mad.lo.cc.u32 %r1, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0; }", &["u32"; 3], "u32", |x| {
        (x[0] * x[1] + x[2]) >> 32
    });
    is("{ add.cc.u64 %rd1, %a, %b; addc.u64 %d, 0, 0; }", &["u64"; 2], "u64", |x| {
        u64::from(x[0].checked_add(x[1]).is_none())
    });
}

#[test]
fn comparisons_and_choices() {
    is("setp.lt.u32 %d, %a, %b;", &["u32"; 2], "pred", |x| u64::from(x[0] < x[1]));
    is("setp.lt.s32 %d, %a, %b;", &["u32"; 2], "pred", |x| u64::from((x[0] as i32) < x[1] as i32));
    is("setp.ge.s64 %d, %a, %b;", &["u64"; 2], "pred", |x| u64::from(x[0] as i64 >= x[1] as i64));
    is("setp.ne.s16 %d, %a, %b;", &["u16"; 2], "pred", |x| u64::from(x[0] != x[1]));
    is("setp.ls.u64 %d, %a, %b;", &["u64"; 2], "pred", |x| u64::from(x[0] <= x[1]));
    is("{ setp.eq.u32 %q0, %c, 0; setp.gt.and.u32 %d, %a, %b, !%q0; }", &["u32"; 3], "pred", |x| {
        u64::from(x[0] > x[1] && x[2] != 0)
    });
    // The second predicate is that of the opposite comparison.
    is("{ setp.eq.u32 %q0, %c, 0; setp.gt.or.u32 %q1|%d, %a, %b, %q0; }", &["u32"; 3], "pred", |x| {
        u64::from(x[0] <= x[1] || x[2] == 0)
    });
    is(
        "{ setp.lt.u32 %q0, %a, %b; setp.lt.u32 %q1, %b, %c; xor.pred %q2, %q0, %q1; not.pred %d, %q2; }",
        &["u32"; 3],
        "pred",
        |x| u64::from((x[0] < x[1]) == (x[1] < x[2])),
    );
    is("{ setp.lt.u32 %q0, %a, %b; selp.b32 %d, %a, %c, %q0; }", &["u32"; 3], "u32", |x| {
        if x[0] < x[1] { x[0] } else { x[2] }
    });
    is(
        "set.lt.u32.s32 %d, %a, %b;",
        &["u32"; 2],
        "u32",
        |x| if (x[0] as i32) < x[1] as i32 { !0 } else { 0 },
    );
    is("set.ge.f32.u32 %d, %a, %b;", &["u32"; 2], "u32", |x| if x[0] >= x[1] { 0x3f80_0000 } else { 0 });
    is("slct.s32.s32 %d, %a, %b, %c;", &["u32"; 3], "u32", |x| if x[2] as i32 >= 0 { x[0] } else { x[1] });
}

#[test]
fn integers_of_other_widths() {
    is("cvt.u32.u64 %d, %a;", &["u64"], "u32", |x| x[0]);
    is("cvt.s64.s32 %d, %a;", &["u32"], "u64", |x| x[0] as i32 as u64);
    is("cvt.u64.u32 %d, %a;", &["u32"], "u64", |x| x[0]);
    is("cvt.s32.s16 %d, %a;", &["u16"], "u32", |x| x[0] as i16 as u64);
    is("cvt.s32.s8 %d, %a;", &["u32"], "u32", |x| x[0] as i8 as u64);
    is("cvt.u16.u8 %d, %a;", &["u16"], "u16", |x| x[0] & 0xff);
    // A narrow result in a wider register keeps its sign.
    is("cvt.s8.s32 %d, %a;", &["u32"], "u32", |x| x[0] as i8 as u64);
    is("cvt.sat.s8.s32 %d, %a;", &["u32"], "u32", |x| (x[0] as i32).clamp(-128, 127) as u64);
    is("cvt.sat.u8.s32 %d, %a;", &["u32"], "u32", |x| (x[0] as i32).clamp(0, 255) as u64);
    is("cvt.sat.s32.u64 %d, %a;", &["u64"], "u32", |x| x[0].min(0x7fff_ffff));
}

#[test]
fn parts_are_packed_and_unpacked() {
    is("{ .reg .b16 l, h; mov.b32 {l, h}, %a; mov.b32 %d, {h, l}; }", &["u32"], "u32", |x| {
        u64::from((x[0] as u32).rotate_left(16))
    });
    is("mov.b64 %d, {%a, %b};", &["u32"; 2], "u64", |x| x[0] | x[1] << 32);
    is("{ mov.b64 {_, %d}, %a; }", &["u64"], "u32", |x| x[0] >> 32);
    is("mov.b32 %d, {0, %a};", &["u16"], "u32", |x| x[0] << 16);
}

#[test]
fn branches_by_an_index_go_each_its_own_way() {
    let body = "L: .branchtargets A, B, C;\nrem.u32 %r0, %r199, 3;\nbrx.idx %r0, L;\nA: mov.u32 %r1, 10;\nbra.uni END;\n\
                B: mov.u32 %r1, 20;\nbra.uni END;\nC: mov.u32 %r1, 30;\nEND: add.s64 %rd0, %p0, %rd99;\nst.global.u32 [%rd0], %r1;";
    let found = Bench::new().words(70, body, &[]);
    assert!(found.iter().enumerate().all(|(thread, word)| *word == [10, 20, 30][thread % 3]), "{found:?}");
}

#[test]
fn lanes_that_part_come_together_again() {
    // Each lane counts down from its number; then all are there for the ballot.
    let body = "mov.u32 %r0, %r199;\nmov.u32 %r1, 0;\nLOOP:\nsetp.eq.u32 %q0, %r0, 0;\n@%q0 bra OUT;\nadd.u32 %r1, %r1, %r0;\n\
                sub.u32 %r0, %r0, 1;\nbra LOOP;\nOUT:\nvote.sync.ballot.b32 %r2, %q0, -1;\nadd.u32 %r1, %r1, %r2;\nadd.s64 %rd0, %p0, %rd99;\nst.global.u32 [%rd0], %r1;";
    let found = Bench::new().words(32, body, &[]);
    let wanted: Vec<u32> = (0..32).map(|lane: u32| (lane * (lane + 1) / 2).wrapping_sub(1)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn functions_stand_where_they_are_called() {
    let function = ".func (.param .b32 result) twice(.param .b32 x, .param .align 8 .b8 pair[16])\n{\n.reg .b32 %r<4>;\n.reg .b64 %rd<2>;\n\
        ld.param.u32 %r0, [x];\nld.param.u32 %r1, [pair+8];\nsetp_free:\nadd.u32 %r2, %r0, %r1;\nst.param.b32 [result], %r2;\nret;\n}\n";
    let call = "{\n.param .b32 x;\n.param .align 8 .b8 y[16];\n.param .b32 z;\nst.param.b32 [x], %r199;\nst.param.b32 [y+8], 100;\n\
        call.uni (z), twice, (x, y);\nld.param.b32 %r5, [z];\n}\n";
    // Lanes that do not call keep what they have.
    let body = format!(
        "mov.u32 %r5, 7;\nsetp.lt.u32 %q0, %r199, 16;\n@!%q0 bra AFTER;\n{call}AFTER:\n{}\nadd.s64 %rd0, %p0, %rd99;\nst.global.u32 [%rd0], %r5;",
        call.replace("call.uni", "@%q0 call").replace("100", "200")
    );
    let bench = Bench::new();
    let out = bench.device.allocate(128);
    let ptx = support::kernel(1, &body).replace(".visible", &format!("{function}.visible"));
    let found = bench.launch(&ptx, 1, 32, &[out]);
    // `z` of lanes 16 and up is what nobody wrote; all others went through the function.
    found.unwrap_or_else(|fault| panic!("{fault}"));
    let found = bench.download(out, 32);
    assert_eq!(found[..16], (0..16).map(|lane| lane + 200).collect::<Vec<u32>>());
}
