//! What lanes of a warp, and threads of a block, do together.

mod support;

use support::Bench;

const STORE: &str = "add.s64 %rd90, %p0, %rd99;\nst.global.u32 [%rd90], %r1;";

fn words(body: &str) -> Vec<u32> {
    Bench::new().words(32, &format!("{body}\n{STORE}"), &[])
}

fn lanes(of: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(of).collect()
}

#[test]
fn shuffles_take_from_other_lanes() {
    assert_eq!(words("shfl.sync.bfly.b32 %r1, %r199, 5, 31, -1;"), lanes(|lane| lane ^ 5));
    assert_eq!(
        words("shfl.sync.down.b32 %r1, %r199, 3, 31, -1;"),
        lanes(|lane| if lane + 3 < 32 { lane + 3 } else { lane })
    );
    assert_eq!(
        words("shfl.sync.up.b32 %r1, %r199, 3, 0, -1;"),
        lanes(|lane| if lane >= 3 { lane - 3 } else { lane })
    );
    assert_eq!(words("shfl.sync.idx.b32 %r1, %r199, 9, 31, -1;"), lanes(|_| 9));
    // Segments of 8 lanes: the mask of what may not change is in bits 8 to 12.
    assert_eq!(words("shfl.sync.idx.b32 %r1, %r199, 3, 0x181f, -1;"), lanes(|lane| lane / 8 * 8 + 3));
    assert_eq!(
        words("shfl.sync.down.b32 %r1, %r199, 2, 0x181f, -1;"),
        lanes(|lane| if lane % 8 < 6 { lane + 2 } else { lane })
    );
    assert_eq!(
        words("shfl.sync.up.b32 %r1, %r199, 1, 0x1800, -1;"),
        lanes(|lane| if lane % 8 > 0 { lane - 1 } else { lane })
    );
    let in_range = "shfl.sync.down.b32 %r2|%q0, %r199, 4, 31, -1;\nselp.b32 %r1, 1, 0, %q0;";
    assert_eq!(words(in_range), lanes(|lane| u32::from(lane < 28)));
    // Halves of a warp, each with its own mask, and each from its own lane.
    let halves = "setp.lt.u32 %q0, %r199, 16;\nselp.b32 %r2, 0xffff, 0xffff0000, %q0;\nxor.b32 %r3, %r199, 1;\nshfl.sync.idx.b32 %r1, %r199, %r3, 31, %r2;";
    assert_eq!(words(halves), lanes(|lane| lane ^ 1));
}

#[test]
fn votes_and_matches() {
    let vote = |vote: &str| words(&format!("setp.lt.u32 %q0, %r199, 5;\n{vote}"));
    assert_eq!(vote("vote.sync.ballot.b32 %r1, %q0, -1;"), lanes(|_| 0x1f));
    assert_eq!(vote("vote.sync.ballot.b32 %r1, !%q0, -1;"), lanes(|_| !0x1f));
    assert_eq!(vote("vote.sync.any.pred %q1, %q0, -1;\nselp.b32 %r1, 1, 0, %q1;"), lanes(|_| 1));
    assert_eq!(vote("vote.sync.all.pred %q1, %q0, -1;\nselp.b32 %r1, 1, 0, %q1;"), lanes(|_| 0));
    assert_eq!(vote("vote.sync.uni.pred %q1, %q0, -1;\nselp.b32 %r1, 1, 0, %q1;"), lanes(|_| 0));
    assert_eq!(
        words("and.b32 %r2, %r199, 3;\nmatch.any.sync.b32 %r1, %r2, -1;"),
        lanes(|lane| 0x1111_1111 << (lane & 3))
    );
    assert_eq!(words("match.all.sync.b32 %r1|%q0, %r199, -1;"), lanes(|_| 0));
    assert_eq!(words("mov.u32 %r2, 4;\nmatch.all.sync.b32 %r1|%q0, %r2, -1;"), lanes(|_| !0));
    assert_eq!(
        words(
            "setp.lt.u32 %q0, %r199, 5;\nmov.u32 %r1, 0;\n@%q0 bra A;\nbra END;\nA:\nactivemask.b32 %r1;\nEND:"
        ),
        lanes(|lane| if lane < 5 { 0x1f } else { 0 })
    );
}

#[test]
fn reductions_of_a_warp() {
    assert_eq!(words("redux.sync.add.s32 %r1, %r199, -1;"), lanes(|_| 496));
    assert_eq!(words("redux.sync.max.u32 %r1, %r199, -1;"), lanes(|_| 31));
    assert_eq!(words("sub.s32 %r2, %r199, 7;\nredux.sync.min.s32 %r1, %r2, -1;"), lanes(|_| -7i32 as u32));
    assert_eq!(words("redux.sync.xor.b32 %r1, %r199, -1;"), lanes(|_| 0));
}

#[test]
fn warps_wait_for_each_other_at_barriers() {
    // Each warp sums what the one before it left, 8 times round.
    let body = format!(
        ".shared .align 4 .b8 s[512];\nmov.u32 %r0, s;\nmad.lo.u32 %r2, %r199, 4, %r0;\nst.shared.u32 [%r2], %r199;\nadd.u32 %r3, %r199, 32;\n\
         and.b32 %r3, %r3, 127;\nmad.lo.u32 %r3, %r3, 4, %r0;\nmov.u32 %r4, 0;\nmov.u32 %r1, 0;\nLOOP:\nbar.sync 0;\nld.shared.u32 %r5, [%r3];\nbar.sync 0;\n\
         add.u32 %r1, %r1, %r5;\nst.shared.u32 [%r2], %r5;\nadd.u32 %r4, %r4, 1;\nsetp.lt.u32 %q0, %r4, 8;\n@%q0 bra LOOP;\n{STORE}"
    );
    let wanted: Vec<u32> =
        (0..128).map(|thread| (1..=8).map(|round| (thread + 32 * round) % 128).sum()).collect();
    for seed in 0..4 {
        assert_eq!(Bench::with_seed(seed).words(128, &body, &[]), wanted);
    }
}

#[test]
fn barriers_tell_what_all_said() {
    let body = |kind: &str, then: &str| {
        format!("setp.lt.u32 %q0, %r199, 40;\nbarrier.sync 0;\nbar.red.{kind}, 0, %q0;\n{then}\n{STORE}")
    };
    let run = |body: String| Bench::new().words(64, &body, &[])[63];
    assert_eq!(run(body("popc.u32 %r1", "")), 40);
    assert_eq!(run(body("or.pred %q1", "selp.b32 %r1, 1, 0, %q1;")), 1);
    assert_eq!(run(body("and.pred %q1", "selp.b32 %r1, 1, 0, %q1;")), 0);
}
