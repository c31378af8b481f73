//! Modules, kernels and their launches.

use super::{In, Out, Text, bound, exports};
use crate::driver::{Driver, Handle, refuse};
use crate::module;
use crate::status::{Outcome, Status};
use pyrex_emulator::LaunchShape;
use std::fs;

/// A launch as `CUlaunchConfig` has it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: u64,
    num_attributes: u32,
}

/// Where the arguments of a kernel are: a pointer to each.
type Arguments = In<In<u8>>;

fn load(driver: &mut Driver, module: Out<u64>, image: Text) -> Outcome {
    const ELF: [u8; 4] = *b"\x7fELF";
    const FAT: [u8; 4] = 0xba55_ed50u32.to_le_bytes();
    if [ELF, FAT].contains(&image.bytes().cast::<[u8; 4]>().get()?) {
        return refuse(Status::NO_BINARY_FOR_GPU, "a module is machine code, and the emulator runs PTX");
    }
    module.put(driver.load_module(&image.get()?)?)
}

fn launch(
    driver: &mut Driver,
    function: Handle,
    config: Config,
    arguments: Arguments,
    extra: In<u64>,
) -> Outcome {
    let sizes = driver.functions.get(&function).ok_or(Status::INVALID_HANDLE)?.parameter_sizes();
    if !extra.is_null() {
        return refuse(Status::NOT_SUPPORTED, "the arguments of a kernel come in one buffer");
    }
    let parameter = |(index, bytes): (usize, &usize)| arguments.nth(index).get()?.bytes(*bytes);
    let parameters = sizes.iter().enumerate().map(parameter).collect::<Outcome<Vec<_>>>()?;
    let shape = LaunchShape { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
    driver.launch_kernel(config.stream, function, shape, parameters)
}

fn attribute(driver: &Driver, function: Handle, number: u32) -> Outcome<i32> {
    let function = driver.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
    Ok(match number {
        0 => module::THREADS as i32,
        1 => function.shared_bytes as i32,
        // Constants, local memory and registers are not counted.
        2..=4 => 0,
        5 => 80,
        6 => 90,
        8 => function.dynamic_shared_bytes as i32,
        _ => 0,
    })
}

fn set_attribute(driver: &mut Driver, function: Handle, number: u32, value: i32) -> Outcome {
    const MAX_DYNAMIC_SHARED_SIZE_BYTES: u32 = 8;
    match (number, u32::try_from(value)) {
        (MAX_DYNAMIC_SHARED_SIZE_BYTES, Ok(bytes)) => driver.allow_shared(function, bytes),
        (MAX_DYNAMIC_SHARED_SIZE_BYTES, Err(_)) => Err(Status::INVALID_VALUE),
        // How the driver should split caches, and clusters, of which there are none.
        _ => Ok(()),
    }
}

exports! {
    fn cuModuleLoad(module: Out<u64>, path: Text) = bound(|driver| {
        let ptx = fs::read_to_string(path.get()?).map_err(|_| Status::NOT_FOUND)?;
        module.put(driver.load_module(&ptx)?)
    });
    fn cuModuleLoadData(module: Out<u64>, image: Text) = bound(|driver| load(driver, module, image));
    fn cuModuleLoadDataEx(module: Out<u64>, image: Text, _count: u32, _options: In<u32>, _values: In<u64>) =
        bound(|driver| {
            load(driver, module, image)
        });
    fn cuModuleUnload(module: u64) = bound(|driver| driver.unload_module(module));
    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: Text) = bound(|driver| {
        function.put(driver.function(module, &name.get()?)?)
    });
    fn cuFuncGetAttribute(value: Out<i32>, number: u32, function: u64) =
        bound(|driver| value.put(attribute(driver, function, number)?));
    fn cuFuncSetAttribute(function: u64, number: u32, value: i32) =
        bound(|driver| set_attribute(driver, function, number, value));
    fn cuFuncSetCacheConfig(_function: u64, _config: u32) = bound(|_| Ok(()));
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>, function: u64, threads: i32, shared_bytes: usize,
    ) = bound(|driver| {
        let function = driver.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
        let threads = u32::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        blocks.put(function.blocks_per_multiprocessor(threads, shared_bytes as u32) as i32)
    });

    fn cuLaunchKernel(
        function: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: u64, arguments: Arguments, extra: In<u64>,
    ) = bound(|driver| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = Config { grid, block, shared_bytes, stream, attributes: 0, num_attributes: 0 };
        launch(driver, function, config, arguments, extra)
    });
    fn cuLaunchKernelEx(config: In<Config>, function: u64, arguments: Arguments, extra: In<u64>) =
        bound(|driver| {
            let config = config.get()?;
            if config.num_attributes != 0 {
                return refuse(Status::NOT_SUPPORTED, "a kernel is launched with attributes");
            }
            launch(driver, function, config, arguments, extra)
        });
}
