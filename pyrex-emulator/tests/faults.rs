//! Every kind of fault is found, and what is right beside it passes.

mod support;

use pyrex_emulator::{Device, LaunchShape, Module};
use support::{Bench, fault, kernel, passes};

/// `bad` must fail with a message that has all of `wanted`, and `good` must pass: both with a block of `block` threads and a
/// buffer of `words` words.
#[track_caller]
fn finds(block: u32, words: usize, bad: &str, wanted: &[&str], good: &str) {
    let message = fault(1, block, bad, words);
    for wanted in wanted {
        assert!(message.contains(wanted), "{message}, expected {wanted}");
    }
    passes(1, block, good, words);
}

#[test]
fn global_memory_ends_where_it_was_allocated() {
    let body = |offset: i64| format!("add.s64 %rd0, %p0, %rd99;\nld.global.u32 %r0, [%rd0+{offset}];");
    finds(
        32,
        32,
        &body(4),
        &["kernel k", "PTX line 18", "block 0", "thread 31", "not allocated", "the nearest is the 128 bytes"],
        &body(0),
    );
    assert!(fault(1, 32, &body(-4), 32).contains("thread 0 [0, 0, 0]"));
    let null = "mov.u64 %rd0, 0;\nst.global.u32 [%rd0], %r199;";
    assert!(fault(1, 1, null, 1).contains("4 bytes at 0x0 are not allocated"));
}

#[test]
fn accesses_lie_at_multiples_of_their_size() {
    let body = |offset: u32| format!("ld.global.v2.u32 {{%r0, %r1}}, [%p0+{offset}];");
    finds(1, 4, &body(4), &["not at a multiple of 8"], &body(8));
    let shared = |offset: u32| {
        format!(".shared .align 16 .b8 s[64];\nmov.u32 %r0, s;\nst.shared.u64 [%r0+{offset}], 5;")
    };
    finds(1, 1, &shared(12), &["0xc is not at a multiple of 8"], &shared(16));
}

#[test]
fn what_nobody_wrote_is_not_read() {
    let bench = Bench::new();
    let buffer = bench.device.allocate(8);
    let body = "ld.global.u16 %rs0, [%p0+2];";
    bench.device.write(buffer, &[1, 2]).expect("it is allocated");
    let found = bench.launch(&kernel(1, body), 1, 1, &[buffer]).expect_err("bytes 2 and 3 are missing");
    assert!(found.message.contains("nobody wrote byte 2 of the 8 bytes"), "{found}");
    bench.device.write(buffer + 2, &[3]).expect("it is allocated");
    let found = bench.launch(&kernel(1, body), 1, 1, &[buffer]).expect_err("byte 3 is missing");
    assert!(found.message.contains("nobody wrote byte 3"), "{found}");
    bench.device.write(buffer + 3, &[4]).expect("it is allocated");
    bench.launch(&kernel(1, body), 1, 1, &[buffer]).expect("all is there");
    assert!(bench.device.read(buffer, &mut [0; 8]).is_err());
}

#[test]
fn what_was_freed_is_named() {
    let bench = Bench::new();
    let buffer = bench.upload(&[1]);
    let ptx = kernel(1, "ld.global.u32 %r0, [%p0];");
    bench.launch(&ptx, 1, 1, &[buffer]).expect("it is there");
    bench.device.free(buffer).expect("it is there");
    let found = bench.launch(&ptx, 1, 1, &[buffer]).expect_err("it was freed");
    assert!(found.message.contains("which were freed"), "{found}");
    assert!(bench.device.free(buffer).is_err());
}

#[test]
fn constants_are_not_written() {
    let ptx = |to: &str| {
        format!(
            ".const .align 4 .u32 c[2] = {{1, 2}};\n.global .align 4 .u32 g[2];\n{}",
            kernel(1, &format!("mov.u64 %rd0, {to};\nld.u32 %r0, [%rd0+4];\nst.global.u32 [%rd0], 3;"))
        )
    };
    let bench = Bench::new();
    let buffer = bench.upload(&[0]);
    let found = bench.launch(&ptx("c"), 1, 1, &[buffer]).expect_err("it is constant");
    assert!(found.message.contains("constants"), "{found}");
    bench.launch(&ptx("g"), 1, 1, &[buffer]).expect("it is not");
}

#[test]
fn shared_memory_ends_where_it_was_declared() {
    let body = |offset: u32| {
        format!(
            ".shared .align 4 .b8 s[128];\nmov.u32 %r0, s;\nmad.lo.u32 %r0, %r199, 4, %r0;\nst.shared.u32 [%r0+{offset}], 1;"
        )
    };
    finds(32, 1, &body(16), &["thread 28", "of shared memory, expected less than"], &body(0));
}

#[test]
fn shared_memory_is_written_before_it_is_read() {
    let body = |offset: u32| {
        format!(".shared .align 4 .b8 s[128];\nst.shared.u32 [s], 1;\nld.shared.u32 %r0, [s+{offset}];")
    };
    finds(1, 1, &body(4), &["nobody wrote byte 0x4 of shared memory"], &body(0));
}

/// All words are there; thread `i` writes word `i`, what is between happens, and it reads or writes word `(i + step) % 64`.
fn neighbours(step: u32, between: &str, then: &str) -> String {
    format!(
        ".shared .align 4 .b8 s[256];\nmov.u32 %r0, s;\nmad.lo.u32 %r1, %r199, 4, %r0;\nst.shared.u32 [%r1], 0;\n\
         bar.sync 0;\nst.shared.u32 [%r1], %r199;\n{between}\nadd.u32 %r2, %r199, {step};\nand.b32 %r2, %r2, 63;\n\
         mad.lo.u32 %r2, %r2, 4, %r0;\n{then}"
    )
}

#[test]
fn a_read_of_what_another_warp_wrote_needs_a_barrier() {
    let read = "ld.shared.u32 %r3, [%r2];";
    let wanted = ["with no barrier between"];
    finds(64, 1, &neighbours(32, "", read), &wanted, &neighbours(32, "bar.sync 0;", read));
    assert!(fault(1, 64, &neighbours(32, "bar.warp.sync -1;", read), 1).contains("no barrier between"));
}

#[test]
fn a_read_of_what_another_lane_wrote_needs_a_barrier() {
    let read = "ld.shared.u32 %r3, [%r2];";
    for good in ["bar.sync 0;", "bar.warp.sync -1;"] {
        // All lanes stay within their warp.
        let lanes = |between: &str| neighbours(1, between, read).replace(", 63;", ", 31;");
        finds(32, 1, &lanes(""), &["has written it"], &lanes(good));
    }
    // Only half of the lanes met: those that look beyond are not in order.
    let halves = "and.b32 %r9, %r199, 16;\nmov.u32 %r8, 0xffff;\nshl.b32 %r8, %r8, %r9;\nbar.warp.sync %r8;";
    let step = |step: u32| format!("xor.b32 %r2, %r199, {step};\nmad.lo.u32 %r2, %r2, 4, %r0;\n{read}");
    let body = |far: u32| neighbours(0, halves, &step(far));
    finds(32, 1, &body(16), &["has written it"], &body(8));
    // Shuffles make no order.
    let shuffle = "shfl.sync.bfly.b32 %r9, %r199, 1, 31, -1;";
    assert!(fault(1, 32, &neighbours(0, shuffle, &step(1)), 1).contains("has written it"));
}

#[test]
fn a_write_of_what_another_thread_read_needs_a_barrier() {
    let body = |between: &str| {
        neighbours(
            32,
            "bar.sync 0;",
            &format!("ld.shared.u32 %r3, [%r2];\n{between}\nst.shared.u32 [%r1], 7;"),
        )
    };
    finds(64, 1, &body(""), &["with no barrier between"], &body("bar.sync 0;"));
    // In a loop over tiles the barrier at its end is as needed as the one in its middle.
    let tiles = |last: &str| {
        format!(
            ".shared .align 4 .b8 s[256];\nmov.u32 %r0, s;\nmad.lo.u32 %r1, %r199, 4, %r0;\nxor.b32 %r2, %r199, 32;\n\
             mad.lo.u32 %r2, %r2, 4, %r0;\nmov.u32 %r4, 0;\nLOOP:\nst.shared.u32 [%r1], %r4;\nbar.sync 0;\n\
             ld.shared.u32 %r3, [%r2];\n{last}\nadd.u32 %r4, %r4, 1;\nsetp.lt.u32 %q0, %r4, 3;\n@%q0 bra LOOP;"
        )
    };
    finds(64, 1, &tiles(""), &["with no barrier between"], &tiles("bar.sync 0;"));
}

#[test]
fn two_writes_need_a_barrier() {
    let body = |between: &str| neighbours(32, between, "st.shared.u32 [%r2], 9;");
    finds(64, 1, &body(""), &["written and thread", "has written it"], &body("bar.sync 0;"));
    // In one instruction, the same value does no harm.
    let same = |value: &str| format!(".shared .align 4 .b8 s[4];\nst.shared.u32 [s], {value};");
    finds(32, 1, &same("%r199"), &["has written it"], &same("7"));
}

#[test]
fn atomics_of_shared_memory_need_none_among_themselves() {
    let body = |first: &str, last: &str| {
        format!(
            ".shared .align 4 .b8 s[4];\nsetp.eq.u32 %q0, %r199, 0;\n@%q0 st.shared.u32 [s], 0;\n{first}\n\
             atom.shared.add.u32 %r0, [s], 1;\n{last}\nld.shared.u32 %r1, [s];"
        )
    };
    passes(1, 64, &body("bar.sync 0;", "bar.sync 0;"), 1);
    assert!(fault(1, 64, &body("", "bar.sync 0;"), 1).contains("no barrier between"));
    assert!(fault(1, 64, &body("bar.sync 0;", ""), 1).contains("no barrier between"));
}

#[test]
fn named_barriers_order_those_who_come() {
    // Warp 0 writes; warps 1 and 2 read. Barrier 1 is for warps 0 and 1 alone.
    let body = |reader: u32| {
        format!(
            ".shared .align 4 .b8 s[4];\nshr.u32 %r0, %r199, 5;\nsetp.eq.u32 %q0, %r0, 0;\nsetp.eq.u32 %q1, %r0, {reader};\n\
             setp.le.u32 %q2, %r0, 1;\nsetp.eq.u32 %q3, %r199, 0;\n@%q3 st.shared.u32 [s], 1;\n@!%q2 bra READ;\nbar.sync 1, 64;\nREAD:\n\
             @%q1 ld.shared.u32 %r1, [s];"
        )
    };
    finds(96, 1, &body(2), &["no barrier between"], &body(1));
    // A producer arrives and goes on; who waits knows what it wrote before.
    let arrive = |late: &str, early: &str| {
        format!(
            ".shared .align 4 .b8 s[4];\nshr.u32 %r0, %r199, 5;\nsetp.eq.u32 %q0, %r0, 0;\nsetp.eq.u32 %q3, %r199, 0;\n\
             @!%q0 bra CONSUMER;\n{early}\nbar.arrive 2, 64;\n{late}\nbra END;\nCONSUMER:\nbar.sync 2, 64;\nld.shared.u32 %r1, [s];\nEND:"
        )
    };
    let store = "@%q3 st.shared.u32 [s], 1;";
    passes(1, 64, &arrive("", store), 1);
    let late = arrive(store, "");
    assert!(fault(1, 64, &late, 1).contains("has written it"));
}

#[test]
fn copies_are_read_after_they_were_waited_for() {
    let body = |wait: &str, barrier: &str| {
        format!(
            ".shared .align 16 .b8 s[512];\nmov.u32 %r0, s;\nmad.lo.u32 %r1, %r199, 4, %r0;\nadd.s64 %rd0, %p0, %rd99;\n\
             cp.async.ca.shared.global [%r1], [%rd0], 4;\ncp.async.commit_group;\n{wait}\n{barrier}\nxor.b32 %r2, %r199, 1;\n\
             mad.lo.u32 %r2, %r2, 4, %r0;\nld.shared.u32 %r3, [%r2];"
        )
    };
    let all = "cp.async.wait_group 0;";
    finds(
        32,
        32,
        &body("", "bar.sync 0;"),
        &["is being copied by thread 1, which has not waited"],
        &body(all, "bar.sync 0;"),
    );
    assert!(fault(1, 32, &body("cp.async.wait_group 1;", "bar.sync 0;"), 32).contains("is being copied"));
    assert!(
        fault(1, 32, &body(all, ""), 32).contains("no barrier between"),
        "waiting orders no other thread"
    );
    passes(1, 32, &body("cp.async.wait_all;", "bar.sync 0;"), 32);
}

#[test]
fn a_copy_does_not_overwrite_what_others_still_read() {
    let body = |barrier: &str| {
        neighbours(
            32,
            "bar.sync 0;",
            &format!(
                "ld.shared.u32 %r3, [%r2];\n{barrier}\ncp.async.ca.shared.global [%r1], [%p0], 4;\ncp.async.wait_all;"
            ),
        )
    };
    finds(64, 1, &body(""), &["with no barrier between"], &body("bar.sync 0;"));
}

#[test]
fn a_copy_of_no_bytes_begins_where_one_of_all_might() {
    let body = |offset: u32| {
        format!(
            ".shared .align 16 .b8 s[16];\nmov.u32 %r0, s;\nmov.u32 %r1, 0;\nadd.s64 %rd0, %p0, {offset};\n\
             cp.async.cg.shared.global [%r0], [%rd0], 16, %r1;\ncp.async.wait_all;"
        )
    };
    finds(1, 1, &body(4), &["is not at a multiple of 16"], &body(1600));
}

#[test]
fn blocks_do_not_write_the_same_bytes() {
    let body = |at: &str| {
        format!(
            "mov.u32 %r0, %ctaid.x;\nmul.wide.u32 %rd0, {at}, 4;\nadd.s64 %rd0, %p0, %rd0;\nst.global.u32 [%rd0], %r0;"
        )
    };
    let message = fault(2, 1, &body("0"), 2);
    assert!(message.contains("blocks 0 and 1 both write byte 0"), "{message}");
    passes(2, 1, &body("%r0"), 2);
    passes(2, 1, "red.global.add.u32 [%p0], 1;", 1);
}

/// Each block writes its word, then counts itself at word 8; the last one reads all words.
fn split(fence: &str, count: &str) -> String {
    format!(
        "mov.u32 %r0, %ctaid.x;\nmul.wide.u32 %rd0, %r0, 4;\nadd.s64 %rd0, %p0, %rd0;\nst.global.u32 [%rd0], %r0;\n{fence}\n{count}\n\
         setp.ne.u32 %q0, %r1, 3;\n@%q0 bra END;\nld.global.u32 %r2, [%p0];\nld.global.u32 %r3, [%p0+4];\nEND:"
    )
}

#[test]
fn what_another_block_wrote_is_read_behind_a_fence_and_an_atomic() {
    let count = "atom.global.add.u32 %r1, [%p0+32], 1;";
    passes(4, 1, &split("membar.gl;", count), 9);
    let wanted = "no fence and atomic make it known";
    assert!(fault(4, 1, &split("", count), 9).contains(wanted));
    assert!(fault(4, 1, &split("membar.gl;", "mov.u32 %r1, 3;"), 9).contains(wanted));
    passes(4, 1, &split("", "atom.acq_rel.gpu.global.add.u32 %r1, [%p0+32], 1;"), 9);
}

#[test]
fn what_is_read_as_if_nobody_wrote_it_is_not_written() {
    let body = |load: &str| format!("st.global.u32 [%p0], 1;\n{load} %r0, [%p0];");
    finds(1, 1, &body("ld.global.nc.u32"), &["(.nc), but block 0 did"], &body("ld.global.u32"));
    passes(1, 1, "ld.global.nc.u32 %r0, [%p0];\nst.global.u32 [%p0], 1;", 1);
}

#[test]
fn what_was_written_in_an_earlier_launch_is_in_order() {
    let bench = Bench::new();
    let buffer = bench.upload(&[0; 64]);
    let write = kernel(
        1,
        "mov.u32 %r0, %ctaid.x;\nmul.wide.u32 %rd0, %r0, 4;\nadd.s64 %rd0, %p0, %rd0;\nst.global.u32 [%rd0], %r0;",
    );
    let read = kernel(1, "ld.global.u32 %r0, [%p0+4];\nst.global.u32 [%p0+128], %r0;");
    bench.launch(&write, 4, 1, &[buffer]).expect("each has its word");
    bench.launch(&read, 1, 1, &[buffer]).expect("it was written before");
}

#[test]
fn a_barrier_in_a_branch_is_found() {
    let body = |threads: u32| {
        format!(
            "setp.ge.u32 %q0, %r199, {threads};\n@%q0 bra OUT;\nbar.sync 0;\nbra END;\nOUT:\nbar.sync 0;\nEND:"
        )
    };
    finds(64, 1, &body(32), &["barrier divergence"], &body(0));
    // Within a warp its lanes wait for each other.
    let message = fault(1, 32, &body(7), 1);
    assert!(message.contains("deadlock in block 0"), "{message}");
    assert!(
        message.contains("lanes 0x0000007f of warp 0 wait for other lanes of their warp in PTX line"),
        "{message}"
    );
    // Who has ended is not waited for.
    passes(1, 64, "setp.ge.u32 %q0, %r199, 40;\n@%q0 exit;\nbar.sync 0;", 1);
}

#[test]
fn a_barrier_that_too_few_reach_is_a_deadlock() {
    let body = |count: u32| {
        format!("setp.ge.u32 %q0, %r199, 32;\n@%q0 bra END;\nbar.sync 1, {count};\nEND:\nbar.sync 0;")
    };
    finds(
        64,
        1,
        &body(64),
        &["deadlock", "of warp 0 wait at barrier 1 in PTX line", "of warp 1 wait at barrier 0"],
        &body(32),
    );
    assert!(fault(1, 32, "bar.sync 1, 20;", 1).contains("expected a multiple of 32"));
    assert!(fault(1, 32, "bar.sync 16;", 1).contains("barrier 16"));
}

#[test]
fn lanes_come_to_what_names_them() {
    let body = |members: &str| {
        format!(
            "setp.ge.u32 %q0, %r199, 16;\n@%q0 bra END;\nshfl.sync.bfly.b32 %r0, %r199, 1, 31, {members};\nEND:\nbar.sync 0;"
        )
    };
    finds(
        32,
        1,
        &body("-1"),
        &["deadlock", "lanes 0x0000ffff of warp 0 wait for other lanes"],
        &body("0xffff"),
    );
    assert!(
        fault(1, 32, "bar.warp.sync 0xff;", 1).contains("thread 8 [8, 0, 0]: it is not among the lanes 0xff")
    );
    // A lane that does not take part has nothing to give.
    let take = |from: u32| {
        body("0xffff")
            .replace("shfl.sync.bfly.b32 %r0, %r199, 1", &format!("shfl.sync.idx.b32 %r0, %r199, {from}"))
    };
    finds(32, 1, &take(20), &["it takes from lane 20, which does not take part"], &take(10));
}

#[test]
fn matrices_need_the_whole_warp() {
    let mma = "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f0,%f1,%f2,%f3}, {%r0,%r1}, {%r2}, {%f0,%f1,%f2,%f3};";
    let body =
        |threads: u32| format!("setp.ge.u32 %q0, %r199, {threads};\n@%q0 bra END;\n{mma}\nEND:\nbar.sync 0;");
    finds(32, 1, &body(16), &["deadlock"], &body(32));
}

#[test]
fn traps_and_asserts_are_faults() {
    let body = |at: u32| format!("setp.eq.u32 %q0, %r199, {at};\n@%q0 trap;");
    finds(32, 1, &body(5), &["thread 5", "a trap"], &body(32));
    let ptx = |at: u32| {
        format!(
            ".extern .func __assertfail(.param .b64 a);\n{}",
            kernel(
                0,
                &format!(
                    "setp.ne.u32 %q0, %r199, {at};\n@%q0 bra END;\n{{\n.param .b64 x;\nst.param.b64 [x], 0;\ncall.uni __assertfail, (x);\n}}\nEND:"
                )
            )
        )
    };
    let found = Bench::new().launch(&ptx(3), 1, 32, &[]).expect_err("thread 3 asserts");
    assert!(found.message.contains("thread 3") && found.message.contains("__assertfail"), "{found}");
    Bench::new().launch(&ptx(32), 1, 32, &[]).expect("nobody asserts");
}

#[test]
fn what_never_ends_is_stopped() {
    let module =
        Module::parse(&kernel(0, "LOOP:\nsetp.eq.u32 %q0, %r199, 0;\n@%q0 bra LOOP;")).expect("it is PTX");
    let shape = |block| LaunchShape { grid: [1; 3], block: [block, 1, 1], shared_bytes: 0 };
    let device = Device::default().with_max_steps(100_000);
    let found = device.launch(&module, "k", shape(1), &[]).expect_err("it loops for ever");
    assert!(found.message.contains("more than 100000 instructions; block 0 does not end"), "{found}");
}

#[test]
fn a_launch_is_held_to_what_a_device_can_do() {
    let ptx = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u32 a, .param .align 8 .b8 b[16])\n.maxntid 128, 1, 1\n{\n\
               .reg .b32 %r<4>;\n.shared .align 4 .b8 s[1024];\nld.param.u32 %r0, [a];\nst.shared.u32 [s], %r0;\nret;\n}";
    let module = Module::parse(ptx).expect("it is PTX");
    let device = Device::default();
    let launch = |grid: [u32; 3], block: [u32; 3], shared_bytes, parameters: &[Vec<u8>]| {
        device
            .launch(&module, "k", LaunchShape { grid, block, shared_bytes }, parameters)
            .map_err(|fault| fault.message)
    };
    let good = [vec![0; 4], vec![0; 16]];
    launch([2, 2, 2], [1, 1, 1], 231_000, &good).expect("all fits");
    let fails = |grid, block, shared, parameters: &[Vec<u8>], wanted: &str| {
        let message = launch(grid, block, shared, parameters).expect_err("it must fail");
        assert!(message.contains(wanted), "{message}");
    };
    fails([1; 3], [129, 1, 1], 0, &good, "expected 1 to 128");
    fails([1; 3], [0, 1, 1], 0, &good, "blocks of [0, 1, 1] threads");
    fails([1, 65536, 1], [1; 3], 0, &good, "a grid of [1, 65536, 1] blocks");
    fails([1; 3], [1; 3], 232_000, &good, "expected at most 232448");
    fails([1; 3], [1; 3], 0, &good[..1], "parameters of [4] bytes, expected [4, 16]");
    fails([1; 3], [1; 3], 0, &[vec![0; 4], vec![0; 12]], "parameters of [4, 12] bytes");
    let missing =
        device.launch(&module, "no", LaunchShape { grid: [1; 3], block: [1; 3], shared_bytes: 0 }, &[]);
    assert!(missing.expect_err("there is none").message.contains("no such kernel"));
}

#[test]
fn what_is_not_known_is_said_when_it_is_launched() {
    let bench = Bench::new();
    let found =
        bench.launch(&kernel(0, "frobnicate.u32 %r0, %r1;"), 1, 1, &[]).expect_err("there is no such thing");
    assert!(found.message.contains("kernel k: PTX line 15: frobnicate.u32"), "{found}");
    let found = bench.launch(&kernel(0, "bra NOWHERE;"), 1, 1, &[]).expect_err("there is no such label");
    assert!(found.message.contains("no label NOWHERE"), "{found}");
    assert!(bench.launch(&kernel(0, "add.u32 %r0, %x, 1;"), 1, 1, &[]).is_err());
}
