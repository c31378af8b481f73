//! cuRAND: random numbers.

use super::{Out, always, bound, exports, ready};
use crate::driver::{Driver, Handle};
use crate::libraries::Generator;
use crate::status::{Outcome, Status};
use crate::work::Work;

/// A status of the driver as cuRAND says it.
fn rand_status(status: u32) -> u32 {
    const NOT_INITIALIZED: u32 = 101;
    const LAUNCH_FAILURE: u32 = 201;
    match Status(status) {
        Status(0) => 0,
        Status::INVALID_HANDLE => NOT_INITIALIZED,
        _ => LAUNCH_FAILURE,
    }
}

fn with(handle: Handle, change: impl FnOnce(&mut Generator)) -> u32 {
    rand_status(ready(|driver| {
        change(driver.libraries.generators.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?);
        Ok(())
    }))
}

/// Draws `len` numbers for `to`. They are drawn here, so a graph would have the same each time: a capture is refused.
fn draw<const BYTES: usize>(
    handle: Handle,
    to: u64,
    len: usize,
    one: impl Fn(&mut Generator) -> [u8; BYTES],
) -> u32 {
    let write = |driver: &mut Driver| -> Outcome {
        driver.refuse_while_capturing("random numbers are drawn")?;
        let generator = driver.libraries.generators.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?;
        let bytes = (0..len).flat_map(|_| one(generator)).collect();
        let stream = generator.stream;
        driver.enqueue(stream, Work::Write { address: to, bytes })
    };
    rand_status(bound(write))
}

exports! {
    fn curandCreateGenerator(generator: Out<u64>, _kind: u32) = rand_status(bound(|driver| {
        driver.refuse_while_capturing("a generator of random numbers is made")?;
        let new = driver.next_handle();
        driver.libraries.generators.insert(new, Generator::default());
        generator.put(new)
    }));
    fn curandDestroyGenerator(generator: u64) = rand_status(always(|driver| {
        driver.libraries.generators.remove(&generator).map(drop).ok_or(Status::INVALID_HANDLE)
    }));
    fn curandSetStream(generator: u64, stream: u64) = with(generator, |generator| generator.stream = stream);
    fn curandSetPseudoRandomGeneratorSeed(generator: u64, seed: u64) =
        with(generator, |generator| generator.seed = seed);
    fn curandSetGeneratorOffset(generator: u64, offset: u64) =
        with(generator, |generator| generator.offset = offset);
    fn curandGenerate(generator: u64, to: u64, len: usize) =
        draw(generator, to, len, |one| (one.bits() as u32).to_le_bytes());
    fn curandGenerateUniform(generator: u64, to: u64, len: usize) =
        draw(generator, to, len, |one| (one.uniform() as f32).to_le_bytes());
    fn curandGenerateUniformDouble(generator: u64, to: u64, len: usize) =
        draw(generator, to, len, |one| one.uniform().to_le_bytes());
    fn curandGenerateNormal(generator: u64, to: u64, len: usize, mean: f32, deviation: f32) =
        draw(generator, to, len, |one| {
            (mean + deviation * one.normal() as f32).to_le_bytes()
        });
    fn curandGenerateNormalDouble(generator: u64, to: u64, len: usize, mean: f64, deviation: f64) =
        draw(generator, to, len, |one| {
            (mean + deviation * one.normal()).to_le_bytes()
        });
}
