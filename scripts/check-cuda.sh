#!/bin/sh
# Clippy over the whole workspace with `cuda`, and its documentation, on a machine without a GPU or a toolkit: a stand-in for nvcc
# compiles nothing, and nothing is linked. What is checked here and what `cargo test` builds are together all of the code.
set -eu
cd "$(dirname "$0")/.."
# Not what .cache/cuda/env says: candle's build script remembers for which GPU it compiled, and 75 is none of ours.
unset CUDA_HOME CUDA_PATH CUDA_ROOT CUDA_TOOLKIT_ROOT_DIR CUDNN_LIB
export NVCC="$PWD/scripts/nvcc-stand-in.sh" CUDA_COMPUTE_CAP=75 CUDARC_CUDA_VERSION=13000
features=pyrex-capi/cuda,pyrex-cli/cuda,pyrex-kernels/cuda,pyrex-nif/cuda,pyrex-tests/cuda
cargo clippy --release --workspace --all-targets --features "$features" -- -D warnings
# With the examples' dependencies, as above, so that no crate is checked twice. A module's first lines name its private files.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --release --workspace --no-deps --lib --examples --features "$features"
