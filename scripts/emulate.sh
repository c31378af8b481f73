#!/bin/sh
# Runs a command where NVIDIA's libraries are the emulator's: `scripts/emulate.sh cargo test --features cuda`, or a program that was
# built with that feature. What the emulator needs to know is in the environment; see pyrex-emulator/driver/src/lib.rs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# CUDA's settings are for the program; the emulator is built without them.
(cd "$root" && cargo build --quiet --release --package pyrex-emulator-driver)
libraries=$target/emulator
mkdir -p "$libraries"
for name in libcuda.so.1 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnvrtc.so.13; do
    ln -sf "$target/release/libpyrex_emulator_driver.so" "$libraries/$name"
done
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$@"
