#!/usr/bin/env bash
# Builds what bench/gpu.sh runs into bench/bin: pyrex with CUDA and the tests that have a device, stripped, in one archive. What
# they have in common is in it once. With compute-sanitizer, from a Python package, in bench/wheels. Needs `make setup-cuda`.
set -euo pipefail
cd "$(dirname "$0")/.."
. .cache/cuda/env
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/cuda}
tests='device golden_gemma4 generate_gemma4 batch_gemma4 serving_gemma4 soak'
kernels='cuda'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests" "$work/kernels"

# What a build made: the name of the crate's folder, that of the test, and where it lies.
executables() {
    python3 -c 'import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["kind"] == ["test"]:
        crate = os.path.basename(os.path.dirname(message["manifest_path"]))
        print("kernels" if crate == "pyrex-kernels" else crate, message["target"]["name"], message["executable"])'
}
# All of it with the same features, those of what examples and tests depend on too, so that nothing is built twice.
build() { cargo "$@" --release --workspace --features pyrex-cli/cuda,pyrex-kernels/cuda,pyrex-tests/cuda; }
build build --bin pyrex --examples
strip -o "$work/pyrex" "$CARGO_TARGET_DIR/release/pyrex"
# shellcheck disable=SC2046,SC2086 # one option for each test
build test --no-run --message-format json $(printf -- '--test %s ' $tests $kernels) | executables |
    while read -r folder name path; do strip -o "$work/$folder/$name" "$path"; done

mkdir -p bench/bin bench/wheels
tar -C "$work" -c pyrex tests kernels | xz -T0 --lzma2=preset=6,dict=192MiB > bench/bin/pyrex.tar.xz
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest bench/wheels nvidia-cuda-sanitizer-api==13.0.85
ls -l bench/bin bench/wheels
