//! Floats of all widths: rounded once, as the PTX ISA says, and approximate functions within their bounds.

mod support;

use half::{bf16, f16};
use support::{combinations, compute, floats, noise};

fn bits(values: &[f32]) -> Vec<u64> {
    values.iter().map(|value| u64::from(value.to_bits())).collect()
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// All edges, and what lies between.
fn numbers() -> Vec<u64> {
    let mut values = floats();
    values.extend(noise(40, 5));
    values.extend(noise(10, 6).iter().map(|x| x * 1e-3));
    bits(&values)
}

/// Holds an instruction of f32 to `wanted`, bit by bit; NaN may have any payload.
#[track_caller]
fn is(instruction: &str, count: usize, wanted: impl Fn(&[f32]) -> f32) {
    let cases = combinations(&numbers(), count);
    let found = compute(instruction, &["f32"; 3][..count], "f32", &cases);
    for (case, found) in cases.iter().zip(found) {
        let given: Vec<f32> = case.iter().map(|bits| f(*bits)).collect();
        let (found, wanted) = (f(found), wanted(&given));
        let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
        assert!(same, "{instruction} of {given:?}: {found:e}, expected {wanted:e}");
    }
}

/// The exact `a · b + c` as a fraction of `2^-300`, so that rounding can be done by comparison: i128 is too narrow for f32's
/// whole range, so only numbers near 1 are given to it.
fn exact(a: f32, b: f32, c: f32) -> i128 {
    let scaled = |x: f32, shift: i32| (f64::from(x) * 2f64.powi(shift)) as i128;
    scaled(a, 30) * scaled(b, 30) + (scaled(c, 30) << 30)
}

#[test]
fn f32_is_rounded_to_nearest() {
    is("add.f32 %d, %a, %b;", 2, |x| x[0] + x[1]);
    is("add.rn.f32 %d, %a, %b;", 2, |x| x[0] + x[1]);
    is("sub.f32 %d, %a, %b;", 2, |x| x[0] - x[1]);
    is("mul.f32 %d, %a, %b;", 2, |x| x[0] * x[1]);
    is("div.rn.f32 %d, %a, %b;", 2, |x| x[0] / x[1]);
    is("sqrt.rn.f32 %d, %a;", 1, |x| x[0].sqrt());
    is("rcp.rn.f32 %d, %a;", 1, |x| 1.0 / x[0]);
    is("neg.f32 %d, %a;", 1, |x| -x[0]);
    is("abs.f32 %d, %a;", 1, |x| x[0].abs());
    is("copysign.f32 %d, %a, %b;", 2, |x| x[1].copysign(x[0]));
}

#[test]
fn fma_is_fused() {
    is("fma.rn.f32 %d, %a, %b, %c;", 3, |x| x[0].mul_add(x[1], x[2]));
    // (1 + 2^-12)² − (1 + 2^-11) is 2^-24; rounded twice it would be 0.
    let cases = vec![bits(&[1.0 + 2f32.powi(-12), 1.0 + 2f32.powi(-12), -1.0 - 2f32.powi(-11)])];
    let found = compute("fma.rn.f32 %d, %a, %b, %c;", &["f32"; 3], "f32", &cases);
    assert_eq!(f(found[0]), 2f32.powi(-24));
}

#[test]
fn directed_rounding_is_towards_its_side() {
    let near_one: Vec<f32> =
        noise(12, 9).into_iter().map(|x| (x * 2f32.powi(20)).round() * 2f32.powi(-20)).collect();
    let cases = combinations(&bits(&near_one), 3);
    for (rounding, below, above) in [("rm", true, false), ("rp", false, true)] {
        let found = compute(&format!("fma.{rounding}.f32 %d, %a, %b, %c;"), &["f32"; 3], "f32", &cases);
        for (case, found) in cases.iter().zip(found) {
            let (found, exact) = (f(found), exact(f(case[0]), f(case[1]), f(case[2])));
            let as_exact = |x: f32| (f64::from(x) * 2f64.powi(60)) as i128;
            assert!(
                !below || as_exact(found) <= exact && exact < as_exact(found.next_up()),
                "{rounding} {case:x?}"
            );
            assert!(
                !above || as_exact(found) >= exact && exact > as_exact(found.next_down()),
                "{rounding} {case:x?}"
            );
        }
    }
    let cases = combinations(&bits(&near_one), 2);
    let zero = compute("add.rz.f32 %d, %a, %b;", &["f32"; 2], "f32", &cases);
    for (case, found) in cases.iter().zip(zero) {
        let exact = f64::from(f(case[0])) + f64::from(f(case[1]));
        assert!(
            f64::from(f(found)).abs() <= exact.abs() && f64::from(f(found).abs().next_up()) > exact.abs(),
            "{case:x?}"
        );
    }
    let quotient =
        compute("div.rp.f32 %d, %a, %b;", &["f32"; 2], "f32", &[bits(&[1.0, 3.0]), bits(&[6.0, 3.0])]);
    assert_eq!(
        quotient.iter().map(|bits| f(*bits)).collect::<Vec<_>>(),
        [(1.0f32 / 3.0).max(0.333_333_34), 2.0]
    );
}

#[test]
fn subnormals_are_flushed_if_that_is_asked_for() {
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    is("add.ftz.f32 %d, %a, %b;", 2, |x| flush(flush(x[0]) + flush(x[1])));
    is("mul.ftz.f32 %d, %a, %b;", 2, |x| flush(flush(x[0]) * flush(x[1])));
    is("fma.rn.ftz.f32 %d, %a, %b, %c;", 3, |x| flush(flush(x[0]).mul_add(flush(x[1]), flush(x[2]))));
    let sat = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    is("add.sat.f32 %d, %a, %b;", 2, |x| sat(x[0] + x[1]) + 0.0);
}

#[test]
fn the_smaller_and_the_bigger_one_are_not_nan() {
    let smaller = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    };
    is("min.f32 %d, %a, %b;", 2, |x| smaller(x[0], x[1]));
    is("max.f32 %d, %a, %b;", 2, |x| -smaller(-x[0], -x[1]));
    is("min.NaN.f32 %d, %a, %b;", 2, |x| {
        if x[0].is_nan() || x[1].is_nan() { f32::NAN } else { smaller(x[0], x[1]) }
    });
}

#[test]
fn approximate_functions_are_as_far_off_as_a_device_s_may_be() {
    const ULP: f64 = 1.0 / (1 << 23) as f64;
    let near = |instruction: &str, exact: fn(f64) -> f64, (relative, absolute): (f64, f64)| {
        let values: Vec<f32> = noise(200, 3).into_iter().map(|x| x * 10.0).collect();
        let cases: Vec<Vec<u64>> = bits(&values).into_iter().map(|bits| vec![bits]).collect();
        let mut greatest = 0.0f64;
        for (value, found) in values.iter().zip(compute(instruction, &["f32"], "f32", &cases)) {
            let (found, wanted) = (f64::from(f(found)), exact(f64::from(*value)));
            assert_eq!(found.is_nan(), wanted.is_nan(), "{instruction} of {value}");
            if !wanted.is_nan() {
                greatest =
                    greatest.max((found - wanted).abs() / (wanted.abs() * relative + absolute + 1e-40));
            }
        }
        assert!((0.5..=1.0).contains(&greatest), "{instruction}: {greatest} of what is allowed");
    };
    near("ex2.approx.ftz.f32 %d, %a;", f64::exp2, (2.0 * ULP, 0.0));
    near("lg2.approx.ftz.f32 %d, %a;", f64::log2, (ULP, 2.0 * ULP));
    near("rcp.approx.ftz.f32 %d, %a;", |x| 1.0 / x, (ULP, 0.0));
    near("rsqrt.approx.f32 %d, %a;", |x| 1.0 / x.sqrt(), (ULP, 0.0));
    near("sqrt.approx.ftz.f32 %d, %a;", f64::sqrt, (ULP, 0.0));
    near("sin.approx.f32 %d, %a;", f64::sin, (ULP, 4.0 * ULP));
    near("cos.approx.f32 %d, %a;", f64::cos, (ULP, 4.0 * ULP));
    near("tanh.approx.f32 %d, %a;", f64::tanh, (4096.0 * ULP, 0.0));
    for instruction in ["div.approx.f32 %d, %a, %b;", "div.full.f32 %d, %a, %b;"] {
        let cases = [[1.0, 3.0], [-7.5, 1.1], [6.0, 1.5]];
        let found = compute(instruction, &["f32"; 2], "f32", &cases.map(|pair| bits(&pair)));
        for (found, [a, b]) in found.into_iter().map(f).zip(cases) {
            assert!((found - a / b).abs() <= (a / b).abs() * 2.5e-7, "{instruction} of {a}, {b}: {found}");
        }
        assert_eq!(f(compute(instruction, &["f32"; 2], "f32", &[bits(&[6.0, 1.5])])[0]), 4.0);
    }
    let exact = [("rcp", 4.0, 0.25), ("ex2", 0.0, 1.0), ("ex2", -3.0, 0.125), ("sqrt", 9.0, 3.0)];
    for (function, value, wanted) in exact {
        let found =
            compute(&format!("{function}.approx.ftz.f32 %d, %a;"), &["f32"], "f32", &[bits(&[value])]);
        assert_eq!(f(found[0]), wanted, "{function} of {value}");
    }
    let edge = compute(
        "ex2.approx.ftz.f32 %d, %a;",
        &["f32"],
        "f32",
        &[bits(&[f32::NEG_INFINITY]), bits(&[-140.0]), bits(&[200.0])],
    );
    assert_eq!(edge, bits(&[0.0, 0.0, f32::INFINITY]));
}

#[test]
fn an_approximate_reciprocal_of_f64_has_20_bits() {
    let of = |a: f64| {
        let found = compute("rcp.approx.ftz.f64 %d, %a;", &["f64"], "f64", &[vec![a.to_bits()]]);
        f64::from_bits(found[0])
    };
    assert_eq!(of(4.0), 0.25);
    assert_eq!(of(-0.0), f64::NEG_INFINITY);
    assert!(of(f64::NAN).is_nan());
    for a in [3.0, 1.000_000_000_1, -7e100] {
        let found = of(a);
        assert_eq!(found.to_bits() as u32, 0, "{a}");
        assert!((found * a - 1.0).abs() < 4e-6, "{a}: {found}");
    }
}

#[test]
fn f64_is_as_rust_s() {
    let values: Vec<u64> = noise(20, 1)
        .iter()
        .map(|x| (f64::from(*x) * 1.000_000_1).to_bits())
        .chain([0f64.to_bits(), f64::NAN.to_bits(), f64::INFINITY.to_bits(), (-1e300f64).to_bits()])
        .collect();
    let is = |instruction: &str, count: usize, wanted: fn(&[f64]) -> f64| {
        let cases = combinations(&values, count);
        for (case, found) in cases.iter().zip(compute(instruction, &["f64"; 3][..count], "f64", &cases)) {
            let given: Vec<f64> = case.iter().map(|bits| f64::from_bits(*bits)).collect();
            let (found, wanted) = (f64::from_bits(found), wanted(&given));
            assert!(
                found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(),
                "{instruction} of {given:?}"
            );
        }
    };
    is("add.f64 %d, %a, %b;", 2, |x| x[0] + x[1]);
    is("mul.rn.f64 %d, %a, %b;", 2, |x| x[0] * x[1]);
    is("div.rn.f64 %d, %a, %b;", 2, |x| x[0] / x[1]);
    is("fma.rn.f64 %d, %a, %b, %c;", 3, |x| x[0].mul_add(x[1], x[2]));
    is("sqrt.rn.f64 %d, %a;", 1, |x| x[0].sqrt());
    is("max.f64 %d, %a, %b;", 2, |x| x[0].max(x[1]));
}

/// Every f16 that is not NaN, as f64, ascending: the table that rounding is looked up in.
fn table(value: fn(u16) -> f64) -> Vec<(f64, u16)> {
    let mut all: Vec<_> = (0..=u16::MAX)
        .map(|bits| (value(bits), bits))
        .filter(|(x, bits)| !x.is_nan() && *bits != 0x8000)
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// The nearest number of a table; of two, the even one. Beyond the biggest, half a step decides about infinity.
fn nearest(table: &[(f64, u16)], x: f64) -> u16 {
    let above = table.partition_point(|(other, _)| *other < x).min(table.len() - 1);
    let (high, low) = (table[above], table[above.saturating_sub(1)]);
    let finite = |(value, bits): (f64, u16), other: f64| {
        // Infinity lies where the next number would be.
        if value.is_infinite() { (2.0 * other - table_before(table, other), bits) } else { (value, bits) }
    };
    let (high, low) = (finite(high, low.0), finite(low, high.0));
    match ((high.0 - x).abs(), (x - low.0).abs()) {
        (up, down) if up < down => high.1,
        (up, down) if up > down => low.1,
        _ if high.1 & 1 == 0 => high.1,
        _ => low.1,
    }
}

fn table_before(table: &[(f64, u16)], x: f64) -> f64 {
    let at = table.partition_point(|(other, _)| *other < x);
    if x > 0.0 { table[at - 1].0 } else { table[at + 1].0 }
}

fn halves(values: fn(f32) -> u16) -> Vec<u64> {
    let mut numbers: Vec<f32> = floats().into_iter().filter(|x| !x.is_nan()).collect();
    numbers.extend(noise(30, 7));
    numbers.iter().map(|x| u64::from(values(*x))).collect()
}

#[test]
fn sixteen_bits_are_rounded_once() {
    for (ty, value, of) in [
        (
            "f16",
            (|bits| f16::from_bits(bits).to_f64()) as fn(u16) -> f64,
            (|x| f16::from_f32(x).to_bits()) as fn(f32) -> u16,
        ),
        ("bf16", |bits| bf16::from_bits(bits).to_f64(), |x| bf16::from_f32(x).to_bits()),
    ] {
        let table = table(value);
        let is = |instruction: &str, count: usize, wanted: fn(&[f64]) -> f64| {
            let cases = combinations(&halves(of), count);
            let found = compute(
                &format!("{instruction}.{ty} %d, {};", ["%a", "%b", "%c"][..count].join(", ")),
                &["b16"; 3][..count],
                "b16",
                &cases,
            );
            for (case, found) in cases.iter().zip(found) {
                let given: Vec<f64> = case.iter().map(|bits| value(*bits as u16)).collect();
                let wanted = wanted(&given);
                if let [a, b, c] = given[..]
                    && (wanted - a * b != c || wanted - c != a * b)
                {
                    continue;
                }
                let (found, nearest) =
                    (found as u16, if wanted.is_finite() { nearest(&table, wanted) } else { 0 });
                let same = match wanted.is_finite() {
                    true => value(found) == value(nearest),
                    false => {
                        value(found).total_cmp(&wanted).is_eq() || wanted.is_nan() && value(found).is_nan()
                    }
                };
                assert!(same, "{instruction}.{ty} of {given:?}: {}, expected {wanted}", value(found));
            }
        };
        // f64 holds these exactly, or the case is left out.
        is("add.rn", 2, |x| x[0] + x[1]);
        is("sub.rn", 2, |x| x[0] - x[1]);
        is("mul.rn", 2, |x| x[0] * x[1]);
        is("fma.rn", 3, |x| x[0] * x[1] + x[2]);
        is("max", 2, |x| x[0].max(x[1]));
        is("neg", 1, |x| -x[0]);
        is("abs", 1, |x| x[0].abs());
        // From f32, a tie and what lies just beside it.
        let ties: Vec<u64> = [1.0f32, 1.5, 100.0, 3.0e-6]
            .iter()
            .flat_map(|x| {
                let step = if ty == "f16" { 0x1000 } else { 0x8000 };
                let middle = (x.to_bits() & !(2 * step - 1)) + step;
                [middle - 1, middle, middle + 1, middle + 2 * step].map(u64::from)
            })
            .collect();
        let cases: Vec<Vec<u64>> = ties.iter().map(|bits| vec![*bits]).collect();
        for (case, found) in
            cases.iter().zip(compute(&format!("cvt.rn.{ty}.f32 %d, %a;"), &["f32"], "b16", &cases))
        {
            assert_eq!(found as u16, nearest(&table, f64::from(f(case[0]))), "{ty} {case:x?}");
        }
    }
}

#[test]
fn two_numbers_of_sixteen_bits_are_each_alone() {
    let pairs: Vec<u64> = noise(40, 4)
        .chunks(2)
        .map(|two| {
            u64::from(bf16::from_f32(two[0]).to_bits()) | u64::from(bf16::from_f32(two[1]).to_bits()) << 16
        })
        .collect();
    let cases = combinations(&pairs, 3);
    let found = compute("fma.rn.bf16x2 %d, %a, %b, %c;", &["b32"; 3], "b32", &cases);
    let half = |bits: u64, high: u32| bits >> (16 * high) & 0xffff;
    for high in [0, 1] {
        let alone: Vec<Vec<u64>> =
            cases.iter().map(|case| case.iter().map(|bits| half(*bits, high)).collect()).collect();
        let alone = compute("fma.rn.bf16 %d, %a, %b, %c;", &["b16"; 3], "b16", &alone);
        for (both, alone) in found.iter().zip(alone) {
            assert_eq!(half(*both, high), alone);
        }
    }
    // The first source goes into the high half.
    let packed = compute("cvt.rn.bf16x2.f32 %d, %a, %b;", &["f32"; 2], "b32", &[bits(&[1.0, 2.0])]);
    assert_eq!(packed[0], 0x3f80_4000);
    let clamped = compute("cvt.rn.relu.f16x2.f32 %d, %a, %b;", &["f32"; 2], "b32", &[bits(&[-1.0, 2.0])]);
    assert_eq!(clamped[0], 0x0000_4000);
    let compared = compute(
        "{ setp.gt.f16x2 %q0|%q1, %a, %b; selp.b32 %r1, 1, 0, %q0; selp.b32 %r2, 2, 0, %q1; or.b32 %d, %r1, %r2; }",
        &["b32"; 2],
        "b32",
        &[vec![0x3c00_4000, 0x3c00_3c00]],
    );
    assert_eq!(compared[0], 1, "2 > 1, but not 1 > 1");
}

#[test]
fn floats_become_integers() {
    let to = |instruction: &str, result: &str, wanted: &dyn Fn(f32) -> u64| {
        let cases = combinations(&numbers(), 1);
        for (case, found) in cases.iter().zip(compute(instruction, &["f32"], result, &cases)) {
            assert_eq!(found, wanted(f(case[0])), "{instruction} of {}", f(case[0]));
        }
    };
    to("cvt.rzi.s32.f32 %d, %a;", "u32", &|x| u64::from(x as i32 as u32));
    to("cvt.rni.s32.f32 %d, %a;", "u32", &|x| u64::from(x.round_ties_even() as i32 as u32));
    to("cvt.rmi.s32.f32 %d, %a;", "u32", &|x| u64::from(x.floor() as i32 as u32));
    to("cvt.rpi.s32.f32 %d, %a;", "u32", &|x| u64::from(x.ceil() as i32 as u32));
    to("cvt.rzi.u32.f32 %d, %a;", "u32", &|x| u64::from(x as u32));
    to("cvt.rzi.u64.f32 %d, %a;", "u64", &|x| x as u64);
    to("cvt.rzi.s64.f32 %d, %a;", "u64", &|x| x as i64 as u64);
    to("cvt.rni.f32.f32 %d, %a;", "f32", &|x| {
        u64::from(if x.is_nan() { x } else { x.round_ties_even() }.to_bits())
    });
    to("cvt.rmi.f32.f32 %d, %a;", "f32", &|x| u64::from(if x.is_nan() { x } else { x.floor() }.to_bits()));
    to("cvt.sat.f32.f32 %d, %a;", "f32", &|x| {
        u64::from(if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }.to_bits())
    });
}

#[test]
fn integers_become_floats() {
    let from = |instruction: &str, source: &str, wanted: &dyn Fn(u64) -> f32| {
        let cases = combinations(&support::integers(if source == "u64" { 64 } else { 32 }), 1);
        for (case, found) in cases.iter().zip(compute(instruction, &[source], "f32", &cases)) {
            assert_eq!(f(found), wanted(case[0]), "{instruction} of {case:x?}");
        }
    };
    from("cvt.rn.f32.s32 %d, %a;", "u32", &|x| x as i32 as f32);
    from("cvt.rn.f32.u32 %d, %a;", "u32", &|x| x as u32 as f32);
    from("cvt.rn.f32.s64 %d, %a;", "u64", &|x| x as i64 as f32);
    from("cvt.rn.f32.u64 %d, %a;", "u64", &|x| x as f32);
    let below = |x: f64| if f64::from(x as f32) > x { (x as f32).next_down() } else { x as f32 };
    from("cvt.rm.f32.s32 %d, %a;", "u32", &|x| below(f64::from(x as i32)));
    from("cvt.rz.f32.u32 %d, %a;", "u32", &|x| below(f64::from(x as u32)));
}

#[test]
fn floats_become_narrower_and_wider() {
    let cases = combinations(&numbers(), 1);
    for (case, found) in cases.iter().zip(compute("cvt.f64.f32 %d, %a;", &["f32"], "f64", &cases)) {
        let (found, wanted) = (f64::from_bits(found), f64::from(f(case[0])));
        assert!(found == wanted || found.is_nan() && wanted.is_nan());
    }
    let thirds = vec![vec![(1.0f64 / 3.0).to_bits()], vec![1e300f64.to_bits()], vec![(-1e-300f64).to_bits()]];
    let round = |mode: &str| {
        compute(&format!("cvt.{mode}.f32.f64 %d, %a;"), &["f64"], "f32", &thirds)
            .iter()
            .map(|bits| f(*bits))
            .collect::<Vec<_>>()
    };
    assert_eq!(round("rn"), [1.0 / 3.0, f32::INFINITY, -0.0]);
    assert_eq!(round("rz"), [0.333_333_3, f32::MAX, -0.0]);
    assert_eq!(round("rm"), [0.333_333_3, f32::MAX, -f32::from_bits(1)]);
    // 1 + 2^-8 is the middle between two numbers of bf16; what lies above it must not be lost on the way.
    let above = vec![vec![(1.0 + 2f64.powi(-8) + 2f64.powi(-45)).to_bits()]];
    assert_eq!(compute("cvt.rn.bf16.f64 %d, %a;", &["f64"], "b16", &above)[0], 0x3f81);
    assert_eq!(compute("cvt.rz.bf16.f32 %d, %a;", &["f32"], "b16", &[bits(&[1.999])])[0], 0x3fff);
    assert_eq!(
        compute("cvt.rna.tf32.f32 %d, %a;", &["f32"], "b32", &[bits(&[1.0 + 2f32.powi(-11)])])[0],
        u64::from((1.0 + 2f32.powi(-10)).to_bits())
    );
}

#[test]
fn floats_are_compared_as_ieee_says() {
    let cases = combinations(&numbers(), 2);
    let is = |comparison: &str, wanted: fn(f32, f32) -> bool| {
        let found = compute(&format!("setp.{comparison}.f32 %d, %a, %b;"), &["f32"; 2], "pred", &cases);
        for (case, found) in cases.iter().zip(found) {
            assert_eq!(
                found == 1,
                wanted(f(case[0]), f(case[1])),
                "{comparison} {} {}",
                f(case[0]),
                f(case[1])
            );
        }
    };
    is("lt", |a, b| a < b);
    is("eq", |a, b| a == b);
    is("ne", |a, b| a.partial_cmp(&b).is_some_and(|order| order.is_ne()));
    is("neu", |a, b| a != b);
    is("geu", |a, b| a.partial_cmp(&b).is_none_or(|order| order.is_ge()));
    is("num", |a, b| !a.is_nan() && !b.is_nan());
    is("nan", |a, b| a.is_nan() || b.is_nan());
    let kinds = compute(
        "testp.subnormal.f32 %d, %a;",
        &["f32"],
        "pred",
        &[bits(&[1e-40]), bits(&[1.0]), bits(&[0.0])],
    );
    assert_eq!(kinds, [1, 0, 0]);
}
