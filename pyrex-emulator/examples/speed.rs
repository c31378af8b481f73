//! How fast kernels of some kinds run: lane-instructions a second.

use pyrex_emulator::{Device, LaunchShape, Module};
use std::error::Error;

const HEADER: &str = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a)\n{\n.reg .pred %q<4>;\n\
    .reg .b32 %r<40>;\n.reg .f32 %f<40>;\n.reg .b64 %rd<20>;\n.shared .align 16 .b8 s[16384];\n\
    mov.u32 %r0, %tid.x;\nmov.u32 %r1, 0;\nld.param.u64 %rd0, [a];\nmov.u32 %r3, %ctaid.x;\nmad.wide.u32 %rd0, %r3, 4096, %rd0;\nmad.wide.u32 %rd1, %r0, 16, %rd0;\nmov.u32 %r9, s;\n\
    mad.lo.u32 %r2, %r0, 16, %r9;\ncvt.rn.f32.u32 %f0, %r0;\n";

fn main() -> Result<(), Box<dyn Error>> {
    let store = "st.shared.v4.b32 [%r2], {%r0, %r0, %r0, %r0};\nbar.sync 0;\n";
    let cases = [
        (
            "integers",
            "",
            "mad.lo.u32 %r3, %r0, %r1, %r2;\nxor.b32 %r4, %r3, %r1;\nadd.u32 %r5, %r4, %r3;\nshl.b32 %r6, %r5, 3;\n",
        ),
        (
            "fma",
            "",
            "fma.rn.f32 %f1, %f0, %f0, %f2;\nfma.rn.f32 %f2, %f0, %f1, %f2;\nfma.rn.f32 %f3, %f1, %f2, %f0;\nfma.rn.f32 %f4, %f3, %f1, %f0;\n",
        ),
        (
            "add.f32",
            "",
            "add.rn.f32 %f1, %f0, %f2;\nmul.f32 %f2, %f0, %f1;\nadd.f32 %f3, %f1, %f2;\nadd.f32 %f4, %f3, %f1;\n",
        ),
        (
            "wide",
            "",
            "mul.wide.u32 %rd3, %r1, %r0;\nadd.s64 %rd4, %rd3, %rd1;\ncvt.u64.u32 %rd5, %r1;\nadd.s64 %rd6, %rd5, %rd4;\n",
        ),
        ("ex2", "", "ex2.approx.ftz.f32 %f1, %f0;\n"),
        ("ld.global.f32", "", "mad.wide.u32 %rd2, %r0, 4, %rd0;\nld.global.f32 %f1, [%rd2];\n"),
        ("ld.global.v4", "", "ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1];\n"),
        ("st.global.v4", "", "st.global.v4.f32 [%rd1], {%f1,%f2,%f3,%f4};\n"),
        ("ld.shared.v4", store, "ld.shared.v4.b32 {%r3,%r4,%r5,%r6}, [%r2];\n"),
        ("ld.shared.b32", store, "ld.shared.b32 %r3, [%r2];\n"),
        ("st.shared.v4", store, "st.shared.v4.b32 [%r2], {%r3,%r4,%r5,%r6};\n"),
        ("shfl", "", "shfl.sync.bfly.b32 %r3, %r0, 1, 31, -1;\n"),
        ("ldmatrix.x4", store, "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r3,%r4,%r5,%r6}, [%r2];\n"),
        (
            "mma",
            "mov.u32 %r3,0;\nmov.u32 %r4,0;\nmov.u32 %r5,0;\nmov.u32 %r6,0;\n",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r3,%r4,%r5,%r6}, {%r3,%r4}, {%f1,%f2,%f3,%f4};\n",
        ),
        (
            "cp.async",
            store,
            "cp.async.cg.shared.global [%r2], [%rd1], 16;\ncp.async.commit_group;\ncp.async.wait_group 0;\n",
        ),
        ("setp, selp", "", "setp.lt.u32 %q1, %r0, %r1;\nselp.b32 %r3, %r0, %r1, %q1;\n"),
    ];
    for (name, before, body) in cases {
        let ptx = format!(
            "{HEADER}{before}LOOP:\n{}add.u32 %r1, %r1, 1;\nsetp.lt.u32 %q0, %r1, 200;\n@%q0 bra LOOP;\nret;\n}}",
            body.repeat(16)
        );
        let module = Module::parse(&ptx)?;
        let device = Device::default();
        let buffer = device.allocate(1 << 16);
        device.fill(buffer, 1 << 16, &[0])?;
        let shape = LaunchShape { grid: [4, 1, 1], block: [256, 1, 1], shared_bytes: 0 };
        let start = cpu_seconds();
        let report = match device.launch(&module, "k", shape, &[buffer.to_le_bytes().to_vec()]) {
            Ok(report) => report,
            Err(fault) => {
                println!("{name}: {fault}");
                continue;
            }
        };
        let seconds = cpu_seconds() - start;
        let each = seconds * 1e9 / report.instructions as f64;
        println!("{name:16} {each:7.1} ns an instruction of a warp, {:6.0} M lanes a second", 32e3 / each);
    }
    Ok(())
}

/// What this thread has had of a processor: others on the machine do not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
