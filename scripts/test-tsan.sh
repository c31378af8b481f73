#!/bin/sh
# The C programs of several threads with ThreadSanitizer in the program, in libpyrex and in Rust's own library, which sees what
# `make test-c` cannot: Rust's locks. Builds everything anew (20 minutes on two cores), so it is not part of any other test.
set -eu
cd "$(dirname "$0")/.."
target=${TSAN_TARGET_DIR:-$PWD/target/tsan}
if ! cargo +nightly --version > /dev/null 2>&1 || ! [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src" ]; then
    echo "skipped: needs nightly Rust with its sources: rustup toolchain install nightly --component rust-src" >&2
    exit
fi
RUSTFLAGS=-Zsanitizer=thread CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only \
    cargo +nightly build -Zbuild-std --target x86_64-unknown-linux-gnu --package pyrex-capi --lib --target-dir "$target"
runtime=$(find "$(rustc +nightly --print sysroot)" -name 'librustc*_rt.tsan.a' | head -n 1)
folder=$target/x86_64-unknown-linux-gnu/debug
ln -sf libpyrex.so "$folder/libpyrex.so.1"
for program in threads notify eventfd; do
    clang -std=c99 -D_GNU_SOURCE -pthread -g -O1 -fsanitize=thread -Iinclude -c "tests/c/$program.c" -o "$folder/$program.o"
    # Rust's runtime, because clang's is older than the library's instrumentation.
    clang++ "$folder/$program.o" -o "$folder/$program" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive -rdynamic \
        "-L$folder" -lpyrex "-Wl,-rpath,$folder" -lpthread -ldl -lm -lrt
    echo "tsan: $program"
    # The runtime does not know every layout of the address space.
    setarch -R "$folder/$program" tests/golden/text-only/model 40
done
