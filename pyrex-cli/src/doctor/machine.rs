//! What there is: processor, threads, device, memory.

use super::check::{Check, bytes};
use crate::serve::EngineSettings;
use pyrex_core::DeviceChoice;
use std::thread;
use sysinfo::System;

/// Memory of the machine, or of the group that this process is limited to, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) free: u64,
}

impl Memory {
    /// As the core counts it when it decides on the size of its cache.
    pub(super) fn read() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let (total, free) = (system.total_memory(), system.available_memory());
        match system.cgroup_limits() {
            None => Self { total, free },
            Some(limits) => Self {
                total: total.min(limits.total_memory),
                free: free.min(limits.total_memory.saturating_sub(limits.rss)),
            },
        }
    }
}

/// The checks of the machine.
pub(super) fn checks(settings: &EngineSettings, memory: Memory) -> Vec<Check> {
    let found = format!("{} free of {}", bytes(memory.free), bytes(memory.total));
    vec![processor(), threads(settings), device(settings), Check::ok("memory", found)]
}

#[cfg(target_arch = "x86_64")]
fn processor() -> Check {
    let features = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    let has = |name| features.iter().any(|(feature, has)| *feature == name && *has);
    let names: Vec<&str> = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    match has("avx2") && has("fma") {
        true => Check::ok("processor", format!("x86_64 with {}", names.join(", "))),
        false => Check::warn(
            "processor",
            "x86_64 without avx2 and fma",
            "answers are right, but several times slower than on a processor that has both",
        ),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Check {
    Check::ok("processor", std::env::consts::ARCH)
}

fn threads(settings: &EngineSettings) -> Check {
    let cores = match thread::available_parallelism() {
        Ok(cores) => cores.get(),
        Err(error) => {
            let advice = "give --num-threads";
            return Check::warn("threads", format!("the number of cores is not known: {error}"), advice);
        }
    };
    match settings.num_threads {
        Some(asked) if asked > cores => Check::warn(
            "threads",
            format!("{asked} asked for, {cores} cores to run on"),
            "threads that wait for each other's core make every step slower: ask for no more than there are cores",
        ),
        Some(asked) => Check::ok("threads", format!("{asked} of {cores} cores")),
        None => Check::ok("threads", format!("{cores}, one per core")),
    }
}

fn device(settings: &EngineSettings) -> Check {
    let device = settings.device();
    match (device.open(), device) {
        (Ok(_), _) => Check::ok("device", format!("{device}, {}", settings.dtype())),
        (Err(error), DeviceChoice::Cpu) => Check::fail("device", error.to_string(), "this should not happen"),
        (Err(error), DeviceChoice::Cuda(_)) => Check::fail(
            "device",
            error.to_string(),
            "build with --features cuda on a machine with a driver and such a device, or use --device cpu",
        ),
    }
}
