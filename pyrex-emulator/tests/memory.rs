//! Loads, stores and atomics in all spaces, copies, variables of modules, and what a launch reports.

mod support;

use pyrex_emulator::{Device, LaunchShape, Module};
use support::{Bench, kernel};

const STORE: &str = "add.s64 %rd90, %p0, %rd99;\nst.global.u32 [%rd90], %r1;";

fn shape(grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> LaunchShape {
    LaunchShape { grid, block, shared_bytes }
}

#[test]
fn narrow_numbers_are_widened() {
    let bench = Bench::new();
    let input = bench.upload(&[0x8081_fffe, 0x1234_5678]);
    let body = |load: &str| format!("{load}\nst.global.u32 [%p1], %r1;");
    let found = |load: &str| {
        let out = bench.device.allocate(4);
        bench.launch(&kernel(2, &body(load)), 1, 1, &[input, out]).unwrap_or_else(|fault| panic!("{fault}"));
        bench.download(out, 1)[0]
    };
    assert_eq!(found("ld.global.u8 %r1, [%p0+3];"), 0x80);
    assert_eq!(found("ld.global.s8 %r1, [%p0+3];"), 0xffff_ff80);
    assert_eq!(found("ld.global.s16 %r1, [%p0];"), 0xffff_fffe);
    assert_eq!(found("ld.global.s8 %rs1, [%p0+2];\ncvt.u32.u16 %r1, %rs1;"), 0xff81);
    assert_eq!(found("ld.global.nc.v2.u32 {_, %r1}, [%p0];"), 0x1234_5678);
    assert_eq!(found("ld.global.v4.u8 {%rs1, %rs2, %rs3, %rs4}, [%p0];\ncvt.u32.u16 %r1, %rs2;"), 0xff);
    assert_eq!(found("ld.volatile.global.u32 %r1, [%p0+4];"), 0x1234_5678);
    assert_eq!(found("ld.global.L1::no_allocate.L2::128B.u32 %r1, [%p0+4];"), 0x1234_5678);
    // Only the low bits are stored.
    let stored = "mov.u32 %r1, 0x11223344;\nst.global.u8 [%p1], %r1;\nst.global.u8 [%p1+1], 7;\nst.global.u16 [%p1+2], %r1;\nld.global.u32 %r1, [%p1];";
    assert_eq!(found(stored), 0x3344_0744);
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = ".shared .align 4 .b8 s[128];\n.local .align 8 .b8 l[16];\nmov.u64 %rd1, s;\ncvta.shared.u64 %rd2, %rd1;\nadd.s64 %rd2, %rd2, %rd99;\n\
                st.u32 [%rd2], %r199;\nmov.u64 %rd3, l;\ncvta.local.u64 %rd4, %rd3;\nst.u32 [%rd4+4], %r199;\nst.local.u32 [l+8], 1000;\n\
                ld.u32 %r2, [%rd4+4];\nld.u32 %r3, [%rd4+8];\ncvta.to.shared.u64 %rd5, %rd2;\nld.shared.u32 %r4, [%rd5];\n\
                add.u32 %r1, %r2, %r3;\nadd.u32 %r1, %r1, %r4;\ncvta.global.u64 %rd6, %p0;\nadd.s64 %rd90, %rd6, %rd99;\nst.u32 [%rd90], %r1;\n\
                // Half of the lanes here, half there.\n\
                and.b32 %r5, %r199, 1;\nsetp.eq.u32 %q0, %r5, 0;\nselp.b64 %rd7, %rd2, %rd90, %q0;\nld.u32 %r6, [%rd7];\nst.u32 [%rd90], %r6;";
    let found = Bench::new().words(32, body, &[]);
    let wanted: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { lane } else { 2 * lane + 1000 }).collect();
    assert_eq!(found, wanted);
}

#[test]
fn variables_begin_with_what_they_were_given() {
    let ptx = format!(
        ".version 9.0\n.global .align 4 .b8 text[5] = {{104, 105, 0, 0, 7}};\n.const .align 4 .f32 third = 0f3EAAAAAB;\n\
         .global .align 8 .u64 place = table+4;\n.global .align 4 .u32 table[3] = {{1, -2, 0x30}};\n.global .align 4 .u32 zeros[2];\n\
         .extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 fixed[20];\n{}",
        kernel(1, "ld.global.u8 %r0, [text+1];\nld.const.f32 %f0, [third];\nld.global.u64 %rd0, [place];\nld.u32 %r1, [%rd0];\n\
                   ld.global.u32 %r2, [zeros+4];\nst.shared.u32 [fixed+16], 5;\nmov.u32 %r3, dynamic;\nst.shared.u32 [%r3], 9;\n\
                   ld.shared.u32 %r4, [fixed+16];\nmov.u32 %r6, %dynamic_smem_size;\n\
                   st.global.v4.b32 [%p0], {%r0, %f0, %r1, %r2};\nst.global.v4.b32 [%p0+16], {%r3, %r4, %r6, 0};")
    )
    .replacen(".version 9.0\n.target sm_80\n.address_size 64\n.visible", ".target sm_80\n.address_size 64\n.visible", 1);
    let bench = Bench::new();
    let out = bench.device.allocate(32);
    let module = Module::parse(&ptx).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(module.shared_bytes("k"), Ok(20));
    let parameters = [out.to_le_bytes().to_vec()];
    bench
        .device
        .launch(&module, "k", shape([1; 3], [1; 3], 64), &parameters)
        .unwrap_or_else(|fault| panic!("{fault}"));
    // Dynamic shared memory begins behind the 20 bytes, at a multiple of 16.
    assert_eq!(bench.download(out, 8), [105, 0x3eaa_aaab, -2i32 as u32, 0, 32, 5, 64, 0]);
    let (address, bytes) =
        bench.device.variable(&module, "table").expect("it is laid out").expect("there is one");
    assert_eq!((bench.download(address, 3), bytes), (vec![1, -2i32 as u32, 0x30], 12));
    assert_eq!(bench.device.variable(&module, "none"), Ok(None));
    assert_eq!(
        module.kernels().iter().map(|kernel| kernel.parameter_sizes.clone()).collect::<Vec<_>>(),
        [vec![8]]
    );
    // What a kernel writes there stays for the next one.
    bench.device.write(address, &9u32.to_le_bytes()).expect("it is there");
    bench.device.launch(&module, "k", shape([1; 3], [1; 3], 64), &parameters).expect("it ran before");
    assert_eq!(bench.download(address, 1), [9]);
}

#[test]
fn parameters_lie_at_multiples_of_their_size() {
    let ptx = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u8 a, .param .f32 b, .param .align 8 .b8 c[24], .param .u64 out)\n{\n\
        .reg .b32 %r<9>;\n.reg .b64 %rd<9>;\nld.param.s8 %r0, [a];\nld.param.u32 %r1, [b];\nld.param.u32 %r2, [c+20];\nmov.b64 %rd1, c;\n\
        ld.param.u32 %r3, [%rd1+8];\nld.param.u64 %rd0, [out];\nst.global.v4.b32 [%rd0], {%r0, %r1, %r2, %r3};\nret;\n}";
    let bench = Bench::new();
    let out = bench.device.allocate(16);
    let parameters = [vec![0xff], vec![1, 0, 0, 0], (0..24).collect(), out.to_le_bytes().to_vec()];
    let module = Module::parse(ptx).expect("it is PTX");
    bench
        .device
        .launch(&module, "k", shape([1; 3], [1; 3], 0), &parameters)
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(bench.download(out, 4), [0xffff_ffff, 1, 0x1716_1514, 0x0b0a_0908]);
}

#[test]
fn threads_know_where_they_are() {
    let ptx = kernel(
        1,
        "mov.u32 %r0, %ctaid.y;\nmov.u32 %r1, %nctaid.x;\nmad.lo.u32 %r0, %r0, %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.y;\n\
        mad.lo.u32 %r4, %r3, %r2, %tid.x;\nmov.u32 %r5, %ntid.y;\nmul.lo.u32 %r5, %r5, %r2;\nmad.lo.u32 %r6, %r0, %r5, %r4;\n\
        mul.wide.u32 %rd0, %r6, 16;\nadd.s64 %rd0, %p0, %rd0;\nmov.u32 %r7, %laneid;\nmov.u32 %r8, %warpid;\nmov.u32 %r9, %lanemask_lt;\n\
        st.global.v4.u32 [%rd0], {%r4, %r7, %r8, %r9};",
    );
    let bench = Bench::new();
    let out = bench.device.allocate(16 * 6 * 40);
    let module = Module::parse(&ptx).expect("it is PTX");
    bench
        .device
        .launch(&module, "k", shape([2, 3, 1], [8, 5, 1], 0), &[out.to_le_bytes().to_vec()])
        .unwrap_or_else(|fault| panic!("{fault}"));
    for (at, found) in bench.download(out, 4 * 240).chunks(4).enumerate() {
        let thread = at as u32 % 40;
        assert_eq!(found, [thread, thread % 32, thread / 32, (1 << (thread % 32)) - 1]);
    }
}

#[test]
fn atomics_do_one_after_another() {
    let bench = Bench::new();
    let run = |first: u32, atomic: &str| {
        let cell = bench.upload(&[first]);
        let body = format!("{atomic}\nadd.s64 %rd0, %p1, %rd99;\nst.global.u32 [%rd0], %r1;");
        let out = bench.device.allocate(128);
        bench.launch(&kernel(2, &body), 1, 32, &[cell, out]).unwrap_or_else(|fault| panic!("{fault}"));
        let mut old = bench.download(out, 32);
        old.sort_unstable();
        (bench.download(cell, 1)[0], old)
    };
    let (sum, old) = run(5, "atom.global.add.u32 %r1, [%p0], 2;");
    assert_eq!((sum, old[0], old[31]), (69, 5, 67));
    assert_eq!(run(30, "atom.global.inc.u32 %r1, [%p0], 31;").0, 30, "32 steps of a wheel of 32");
    assert_eq!(run(3, "atom.global.dec.u32 %r1, [%p0], 31;").0, 3);
    assert_eq!(run(9, "atom.global.min.s32 %r1, [%p0], -4;").0, -4i32 as u32);
    assert_eq!(run(9, "atom.global.max.u32 %r1, [%p0], %r199;").0, 31);
    assert_eq!(
        run(0, "mov.u32 %r2, 1;\nshl.b32 %r2, %r2, %r199;\natom.global.or.b32 %r1, [%p0], %r2;").0,
        !0
    );
    let (last, old) = run(100, "atom.global.exch.b32 %r1, [%p0], %r199;");
    assert_eq!(last, 31);
    assert_eq!(old, (0..31).chain([100]).collect::<Vec<_>>());
    // Lane 7 finds what it compares with.
    let (cell, old) = run(7, "atom.global.cas.b32 %r1, [%p0], %r199, 50;");
    assert_eq!((cell, old.iter().filter(|old| **old == 50).count()), (50, 24));
    let (sum, _) = run(
        1f32.to_bits(),
        "mov.f32 %f0, 0f3F000000;\natom.global.add.f32 %f1, [%p0], %f0;\nmov.b32 %r1, %f1;",
    );
    assert_eq!(f32::from_bits(sum), 17.0);
    let (sum, _) =
        run(0x3f80_4000, "mov.u32 %r2, 0x3f803f80;\natom.global.add.noftz.bf16x2 %r1, [%p0], %r2;");
    assert_eq!(sum, 0x4204_4208, "1 + 32 and 2 + 32");
    assert_eq!(run(1, "red.global.add.u32 [%p0], 3;\nmov.u32 %r1, 0;").0, 97);
}

#[test]
fn a_lock_among_lanes_of_a_warp_is_passed_on() {
    // Who has the lock runs on while others spin: the strand furthest behind must not run for ever.
    let body = "L:\natom.global.cas.b32 %r1, [%p0], 0, 1;\nsetp.ne.u32 %q0, %r1, 0;\n@%q0 bra L;\nld.volatile.global.u32 %r2, [%p0+4];\n\
                add.u32 %r2, %r2, 1;\nst.volatile.global.u32 [%p0+4], %r2;\nmembar.gl;\natom.global.exch.b32 %r1, [%p0], 0;";
    let bench = Bench::new();
    let cell = bench.upload(&[0, 0]);
    bench.launch(&kernel(1, body), 1, 64, &[cell]).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(bench.download(cell, 2), [0, 64]);
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let body = |wait: &str| {
        format!(
            ".shared .align 16 .b8 s[1024];\nmov.u32 %r0, s;\nmad.lo.u32 %r2, %r199, 16, %r0;\nmul.wide.u32 %rd0, %r199, 16;\nadd.s64 %rd0, %p0, %rd0;\n\
             cp.async.cg.shared.global [%r2], [%rd0], 16;\ncp.async.commit_group;\n\
             cp.async.ca.shared.global [%r2+512], [%rd0], 16, 4;\ncp.async.commit_group;\n{wait}\nld.shared.v4.u32 {{%r3, %r4, %r5, %r6}}, [%r2];\n\
             cp.async.wait_group 0;\nld.shared.v4.u32 {{%r7, %r8, %r9, %r10}}, [%r2+512];\nadd.s64 %rd1, %p1, 0;\nmad.wide.u32 %rd1, %r199, 32, %rd1;\n\
             st.global.v4.u32 [%rd1], {{%r3, %r4, %r5, %r6}};\nst.global.v4.u32 [%rd1+16], {{%r7, %r8, %r9, %r10}};"
        )
    };
    let bench = Bench::new();
    let words: Vec<u32> = (1..=128).collect();
    let (input, out) = (bench.upload(&words), bench.device.allocate(1024));
    bench
        .launch(&kernel(2, &body("cp.async.wait_group 1;")), 1, 32, &[input, out])
        .unwrap_or_else(|fault| panic!("{fault}"));
    for (lane, found) in bench.download(out, 256).chunks(8).enumerate() {
        let first = 4 * lane as u32 + 1;
        assert_eq!(found, [first, first + 1, first + 2, first + 3, first, 0, 0, 0], "the rest is zeros");
    }
}

#[test]
fn blocks_and_warps_run_in_the_order_of_a_seed() {
    let body = "setp.ne.u32 %q0, %r199, 0;\n@%q0 exit;\natom.global.add.u32 %r1, [%p0], 1;\nmov.u32 %r2, %ctaid.x;\nmul.wide.u32 %rd0, %r2, 4;\nadd.s64 %rd0, %p0, %rd0;\nst.global.u32 [%rd0+4], %r1;";
    let order = |seed: u64| {
        let bench = Bench::with_seed(seed);
        let cells = bench.upload(&[0; 9]);
        bench.launch(&kernel(1, body), 8, 1, &[cells]).unwrap_or_else(|fault| panic!("{fault}"));
        bench.download(cells + 4, 8)
    };
    assert_eq!(order(0), (0..8).collect::<Vec<_>>());
    assert_eq!(order(3), order(3), "the same seed, the same order");
    assert_ne!(order(1), order(0));
}

#[test]
fn a_launch_says_what_it_moved() {
    let bench = Bench::new();
    let (input, out) = (bench.upload(&[1; 1024]), bench.device.allocate(4096));
    let report = |body: &str| {
        bench.launch(&kernel(2, body), 1, 32, &[input, out]).unwrap_or_else(|fault| panic!("{fault}"))
    };
    let coalesced = report(
        "add.s64 %rd0, %p0, %rd99;\nadd.s64 %rd1, %p1, %rd99;\nld.global.u32 %r1, [%rd0];\nst.global.u32 [%rd1], %r1;",
    );
    assert_eq!(
        (coalesced.sectors_read, coalesced.bytes_read, coalesced.sectors_written, coalesced.bytes_written),
        (4, 128, 4, 128)
    );
    let strided =
        report("mul.wide.u32 %rd0, %r199, 64;\nadd.s64 %rd0, %p0, %rd0;\nld.global.u32 %r1, [%rd0];");
    assert_eq!((strided.sectors_read, strided.bytes_read), (32, 128));
    let half =
        report("setp.lt.u32 %q0, %r199, 16;\nadd.s64 %rd0, %p0, %rd99;\n@%q0 ld.global.u32 %r1, [%rd0];");
    assert_eq!((half.sectors_read, half.bytes_read), (2, 64));
    let conflicts = |stride: u32| {
        report(&format!(".shared .align 16 .b8 s[4096];\nmov.u32 %r0, s;\nmad.lo.u32 %r0, %r199, {stride}, %r0;\nst.shared.u32 [%r0], 1;")).bank_conflicts
    };
    assert_eq!([conflicts(4), conflicts(8), conflicts(128), conflicts(36)], [0, 1, 31, 0]);
    assert_eq!(report("bar.warp.sync -1;").instructions - report("").instructions, 1);
}

#[test]
fn the_host_s_memory_is_reached_at_its_own_address() {
    let mut host = vec![5u32; 64];
    let bench = Bench::new();
    // SAFETY: `host` outlives the device's use of it, and nobody else looks at it meanwhile.
    let address = unsafe { bench.device.map_host(host.as_mut_ptr().cast(), 256) }.expect("nothing is there");
    assert_eq!(address, host.as_ptr() as u64);
    let body = "add.s64 %rd0, %p0, %rd99;\nld.global.u32 %r1, [%rd0];\nadd.u32 %r1, %r1, %r199;\nst.global.u32 [%rd0], %r1;";
    bench.launch(&kernel(1, body), 1, 64, &[address]).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(host, (5..69).collect::<Vec<_>>());
    // SAFETY: as above.
    assert!(unsafe { bench.device.map_host(host.as_mut_ptr().cast(), 4) }.is_err());
    bench.device.free(address).expect("it is mapped");
    assert!(bench.launch(&kernel(1, body), 1, 64, &[address]).is_err());
}

#[test]
fn the_host_copies_and_fills() {
    let device = Device::default();
    let (a, b) = (device.allocate(100), device.allocate(100));
    device.write(a + 10, &[1, 2, 3]).expect("it is allocated");
    device.copy(a, b, 100).expect("both are allocated");
    let mut three = [0; 3];
    device.read(b + 10, &mut three).expect("they were written");
    assert_eq!(three, [1, 2, 3]);
    assert!(device.read(b + 9, &mut three).is_err(), "nobody wrote byte 9 of the first one");
    assert!(device.copy(a, b, 101).is_err());
    device.fill(b, 100, &[7, 8]).expect("it is allocated");
    device.read(b + 97, &mut three).expect("all of it is written");
    assert_eq!(three, [8, 7, 8]);
    assert_eq!((device.allocated_bytes(), device.allocation(b + 50)), (200, Some((b, 100))));
    assert!(a.is_multiple_of(256) && b >= a + 100 + 256);
}

#[test]
fn several_threads_may_use_a_device() {
    let bench = Bench::new();
    let ptx = kernel(1, &format!("mov.u32 %r1, %r199;\n{STORE}"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let out = bench.device.allocate(128);
                bench.launch(&ptx, 1, 32, &[out]).unwrap_or_else(|fault| panic!("{fault}"));
                assert_eq!(bench.download(out, 32), (0..32).collect::<Vec<_>>());
                bench.device.free(out).expect("it was allocated");
            });
        }
    });
    assert_eq!(bench.device.allocated_bytes(), 0);
}
