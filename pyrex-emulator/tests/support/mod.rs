//! What the emulator's tests share: kernels from a few lines of PTX, and numbers to try.

#![allow(dead_code, reason = "each test uses its own half")]

use pyrex_emulator::{Device, Fault, LaunchShape, Module, Report};

/// A kernel named `k` with as many 64-bit parameters, which are in `%p0`, `%p1`, … as global addresses, and registers `%r0…`,
/// `%rs0…`, `%rd0…`, `%f0…`, `%fd0…`, `%q0…` (predicates) to use. `%rd99` is four times the thread's index in its block.
pub(crate) fn kernel(num_parameters: usize, body: &str) -> String {
    let list: Vec<_> = (0..num_parameters).map(|at| format!(".param .u64 k_param_{at}")).collect();
    let loads: String = (0..num_parameters)
        .map(|at| format!("ld.param.u64 %p{at}, [k_param_{at}];\n cvta.to.global.u64 %p{at}, %p{at};\n"))
        .collect();
    format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k({})\n{{\n\
         .reg .pred %q<20>;\n.reg .b16 %rs<100>;\n.reg .b32 %r<200>;\n.reg .b64 %rd<100>;\n.reg .b64 %p<10>;\n\
         .reg .f32 %f<100>;\n.reg .f64 %fd<100>;\n{loads}\
         mov.u32 %r199, %tid.x;\nmul.wide.u32 %rd99, %r199, 4;\n{body}\nret;\n}}\n",
        list.join(", ")
    )
}

/// A device with buffers.
pub(crate) struct Bench {
    pub(crate) device: Device,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { device: Device::default() }
    }

    pub(crate) fn with_seed(seed: u64) -> Self {
        Self { device: Device::with_seed(seed) }
    }

    pub(crate) fn upload(&self, words: &[u32]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let address = self.device.allocate(bytes.len());
        self.device.write(address, &bytes).expect("it was just allocated");
        address
    }

    pub(crate) fn download(&self, address: u64, len: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * len];
        self.device.read(address, &mut bytes).expect("all of it was written");
        bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four"))).collect()
    }

    pub(crate) fn launch(
        &self,
        ptx: &str,
        grid: u32,
        block: u32,
        parameters: &[u64],
    ) -> Result<Report, Fault> {
        let module = Module::parse(ptx)?;
        let shape = LaunchShape { grid: [grid, 1, 1], block: [block, 1, 1], shared_bytes: 0 };
        let parameters: Vec<_> = parameters.iter().map(|one| one.to_le_bytes().to_vec()).collect();
        self.device.launch(&module, "k", shape, &parameters)
    }

    /// Runs one block that writes a word a thread to its last parameter.
    pub(crate) fn words(&self, block: u32, body: &str, parameters: &[u64]) -> Vec<u32> {
        let out = self.device.allocate(4 * block as usize);
        let parameters: Vec<_> = parameters.iter().copied().chain([out]).collect();
        let ptx = kernel(parameters.len(), body);
        self.launch(&ptx, 1, block, &parameters).unwrap_or_else(|fault| panic!("{fault}\n{ptx}"));
        self.download(out, block as usize)
    }
}

/// The message of the fault that a body must lead to.
#[track_caller]
pub(crate) fn fault(grid: u32, block: u32, body: &str, words: usize) -> String {
    let bench = Bench::new();
    let parameter = bench.upload(&vec![0; words]);
    bench.launch(&kernel(1, body), grid, block, &[parameter]).expect_err("it must fail").message
}

/// Runs a body that must pass.
#[track_caller]
pub(crate) fn passes(grid: u32, block: u32, body: &str, words: usize) {
    let bench = Bench::new();
    let parameter = bench.upload(&vec![0; words]);
    if let Err(fault) = bench.launch(&kernel(1, body), grid, block, &[parameter]) {
        panic!("{fault}");
    }
}

fn bytes_of(ty: &str) -> usize {
    match ty {
        "pred" => 4,
        _ => ty.trim_start_matches(|c: char| c.is_ascii_alphabetic()).split('x').next().map_or(4, |bits| {
            let bits: usize = bits.parse().expect("types end in their width");
            if ty.ends_with("x2") { 4 } else { bits / 8 }
        }),
    }
}

fn plain(ty: &str) -> String {
    match ty {
        "f32" | "f64" => ty.to_owned(),
        _ => format!("b{}", 8 * bytes_of(ty)),
    }
}

/// Computes `%d` from `%a`, `%b` and `%c`, whose bits are given, for each of `cases`.
pub(crate) fn compute(instruction: &str, sources: &[&str], result: &str, cases: &[Vec<u64>]) -> Vec<u64> {
    let bench = Bench::new();
    let names = ["a", "b", "c"];
    let mut body = String::from("{\n");
    for (name, ty) in names.iter().zip(sources) {
        let register = if bytes_of(ty) == 1 { "b16".to_owned() } else { plain(ty) };
        body += &format!(".reg .{register} %{name};\n");
    }
    let register = match result {
        "pred" => "pred".to_owned(),
        _ if bytes_of(result) == 1 => "b16".to_owned(),
        _ => plain(result),
    };
    body += &format!(".reg .{register} %d;\nmad.lo.s32 %r0, %ctaid.x, %ntid.x, %tid.x;\n");
    for (at, (name, ty)) in names.iter().zip(sources).enumerate() {
        body += &format!("mad.wide.u32 %rd0, %r0, {}, %p{at};\n", bytes_of(ty));
        body += &format!("ld.global.{} %{name}, [%rd0];\n", plain(ty));
    }
    let out = sources.len();
    body += &format!("{instruction}\nmad.wide.u32 %rd0, %r0, {}, %p{out};\n", bytes_of(result));
    body += &match result {
        "pred" => "selp.u32 %r1, 1, 0, %d;\nst.global.u32 [%rd0], %r1;\n}\n".to_owned(),
        _ => format!("st.global.{} [%rd0], %d;\n}}\n", plain(result)),
    };
    let mut parameters = Vec::new();
    let padded = cases.len().next_multiple_of(32);
    for (at, ty) in sources.iter().enumerate() {
        let bytes: Vec<u8> = (0..padded)
            .flat_map(|case| cases[case % cases.len()][at].to_le_bytes()[..bytes_of(ty)].to_vec())
            .collect();
        let address = bench.device.allocate(bytes.len());
        bench.device.write(address, &bytes).expect("it was just allocated");
        parameters.push(address);
    }
    let size = bytes_of(result);
    let out = bench.device.allocate(size * padded);
    parameters.push(out);
    let ptx = kernel(parameters.len(), &body);
    bench.launch(&ptx, padded as u32 / 32, 32, &parameters).unwrap_or_else(|fault| panic!("{fault}\n{ptx}"));
    let mut bytes = vec![0; size * cases.len()];
    bench.device.read(out, &mut bytes).expect("all of it was written");
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
    bytes.chunks_exact(size).map(number).collect()
}

/// All combinations of `count` of `values`, or many of them.
pub(crate) fn combinations(values: &[u64], count: usize) -> Vec<Vec<u64>> {
    let all = values.len().pow(count as u32);
    let step = (all / 2000).max(1) | 1;
    (0..all)
        .step_by(step)
        .map(|case| (0..count).map(|at| values[case / values.len().pow(at as u32) % values.len()]).collect())
        .collect()
}

/// Integers of `bits` bits that are at some edge.
pub(crate) fn integers(bits: u32) -> Vec<u64> {
    let mask = u64::MAX >> (64 - bits);
    let mut values: Vec<u64> = vec![0, 1, 2, 3, 7, 31, 32, 33, 100, 255, 0x7f, 0x80];
    values.extend([
        1u64 << (bits - 1),
        (1u64 << (bits - 1)) - 1,
        (1 << (bits - 1)) + 1,
        mask,
        mask - 1,
        mask - 99,
    ]);
    values.extend([0x1234_5678_9abc_def0, 0xdead_beef_cafe_babe, 0x5555_aaaa_0f0f_f0f0]);
    values.into_iter().map(|value| value & mask).collect()
}

/// Floats of 32 bits that are at some edge.
pub(crate) fn floats() -> Vec<f32> {
    let mut values =
        vec![0.0, 1.0, 1.5, 2.5, 0.1, 3.0e-5, 1.0e10, 65504.0, 65520.0, 1.0e38, f32::MAX, 0.3333];
    values.extend([
        f32::MIN_POSITIVE,
        1e-40,
        1e-45,
        0.5,
        7.75,
        255.0,
        256.5,
        2_147_483_600.0,
        4.0e9,
        1e19,
        f32::INFINITY,
    ]);
    let negative: Vec<f32> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    values.push(f32::NAN);
    values
}

/// Numbers of `−2..2` that follow from `seed`.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 4.0
        })
        .collect()
}
