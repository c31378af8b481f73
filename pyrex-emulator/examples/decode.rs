//! Decodes every kernel of the PTX files that are named, and says what is not known: `cargo run --example decode -- *.ptx`.

use pyrex_emulator::Module;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        let module = Module::parse(&std::fs::read_to_string(&path)?)?;
        let parsed = start.elapsed();
        let kernels = module.kernels();
        let faults: Vec<_> =
            kernels.iter().filter_map(|kernel| module.shared_bytes(&kernel.name).err()).collect();
        println!("{path}: {} kernels in {parsed:?}, decoded in {:?}", kernels.len(), start.elapsed());
        for fault in &faults {
            println!("    {fault}");
        }
    }
    Ok(())
}
