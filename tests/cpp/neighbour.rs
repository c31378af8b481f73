//! Another Rust library in the same program, with a standard library of its own that panics and catches.

/// 1 if a panic was caught here.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_panics() -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    std::panic::catch_unwind(|| std::env::args().nth(1000).unwrap()).is_err().into()
}
