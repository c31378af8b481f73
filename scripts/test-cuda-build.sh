#!/usr/bin/env bash
# Builds Pyrex with CUDA for real, on a machine that need not have a GPU, and holds what comes out to what was promised: it starts
# everywhere, says what is missing, exports what the plain build does, and the committed PTX is what the sources compile to.
# Ten minutes on two cores the first time, apart from the plain build in target/cuda. Run `make setup-cuda` first.
set -euo pipefail
cd "$(dirname "$0")/.."
. .cache/cuda/env
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/cuda}
built=$CARGO_TARGET_DIR/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
check() { passed=$((passed + 1)) && echo "ok: $1"; }
fail() { echo "failed: $1" >&2 && exit 1; }

# The PTX first: it takes seconds.
scripts/kernels.sh > /dev/null
git diff --exit-code --stat -- 'pyrex-kernels/src/*.ptx' || fail "the committed PTX is not what the sources compile to"
check "the committed PTX is what nvcc makes of the sources"
# Measured are Ampere, Hopper and Blackwell of data centres; on others a kernel may be slower, but must assemble.
for arch in sm_80 sm_90 sm_100 sm_120; do
    spills=0
    for ptx in pyrex-kernels/src/*.ptx; do
        ptxas -v -arch="$arch" "$ptx" -o "$work/cubin" 2> "$work/ptxas" || { cat "$work/ptxas" >&2; fail "$ptx for $arch"; }
        if grep -E '[1-9][0-9]* bytes (stack frame|spill)' "$work/ptxas"; then
            spills=$((spills + 1))
            case $arch in sm_80 | sm_90 | sm_100) fail "$ptx for $arch keeps registers in memory" ;; esac
        fi
    done
    check "all kernels assemble for $arch, $spills of them with registers in memory"
done

# With what examples and tests depend on, as `make gpu-pack` builds too.
cargo build --release --workspace --bin pyrex --lib --examples \
    --features pyrex-capi/cuda,pyrex-cli/cuda,pyrex-kernels/cuda,pyrex-nif/cuda,pyrex-tests/cuda
for file in pyrex libpyrex.so libpyrex_nif.so; do
    if readelf --dynamic "$built/$file" | grep -E 'NEEDED.*lib(cu|nv)'; then fail "$file needs a CUDA library to start"; fi
    # All of it is read: a grep that leaves at the first hit makes readelf fail.
    readelf --symbols --wide "$built/$file" | grep ' cuInit$' > /dev/null || fail "$file has no CUDA at all"
    if nm --dynamic --defined-only "$built/$file" | grep -E ' (cu|nvrtc)[A-Z]'; then fail "$file shows functions of CUDA"; fi
    check "$file starts without CUDA, and has it"
done
nm --dynamic --defined-only "$built/libpyrex.so" | awk '{print $3}' | sort > "$work/exported"
sed -n 's/^[a-z].*[ *]\(pyrex_[a-z0-9_]*\)(.*/\1/p' include/pyrex.h | sort > "$work/declared"
diff "$work/exported" "$work/declared" || fail "libpyrex.so exports other functions than pyrex.h declares"
check "libpyrex.so exports what pyrex.h declares"

answer=$("$built/pyrex" generate --image models/shapes/examples/red_circle.png)
[ "$answer" = "This is a simple image of a solid red circle on a white background." ] || fail "on the CPU it says: $answer"
check "on the CPU it answers as the plain build does"
# What it says of a host that lacks this or that; the emulator stands for a driver.
refuses() {
    local status=0
    LD_LIBRARY_PATH=$1 "$built/pyrex" generate --device cuda --prompt p > "$work/out" 2> "$work/error" || status=$?
    [ "$status" = 1 ] && grep -q "$2" "$work/error" || fail "status $status, expected $2: $(cat "$work/error")"
    check "says what is missing: $(cat "$work/error")"
}
if ! nvidia-smi > /dev/null 2>&1; then
    cargo build --release --package pyrex-emulator-driver
    mkdir "$work/driver" "$work/cublas"
    ln -s "$built/libpyrex_emulator_driver.so" "$work/driver/libcuda.so.1"
    ln -s "$built/libpyrex_emulator_driver.so" "$work/cublas/libcublas.so.13"
    refuses "$work" 'libcuda.so.1'
    refuses "$work/driver" 'libcublas.so.13'
    refuses "$work/driver:$work/cublas" 'libcurand.so.10'
fi
echo "$passed passed, 0 failed"
