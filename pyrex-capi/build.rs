//! How the shared library is linked: the only thing that Cargo has no field for.

/// That of `src/lib.rs`, as a test sees to.
const ABI_VERSION: u32 = 1;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpyrex.so.{ABI_VERSION}");
        // What dependencies export under names of their own is none of our users' business.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        // Threads of a closed engine may still be ending when a program unloads the library.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
