#!/bin/sh
# Installs what `--features cuda` is built with into .cache/cuda, of Python packages: no root, no GPU, no CUDA of the system.
#   scripts/cuda-toolkit.sh && . .cache/cuda/env && cargo build --release --features cuda
# Needs Python with pip, and a C and C++ compiler. 104 MB to fetch, 271 MB in place; a second run finds all of it there.
#
# The packages hold no libcuda, libcublas, …: a program that is linked with `libcuda.a` and so on from here finds them where it
# runs, when it first calls them (packaging/cuda-trampolines.c). docs/cuda.md says what a host needs.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/cuda
trampolines=packaging/cuda-trampolines.c
# Without their dependencies, which name no versions. 13.0 is what a driver of the 580 series runs.
packages='nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85'

# What was installed from this script, these trampolines and these crates need not be again; nor may the folder have moved.
state=$({ echo "$cache"; cat "$0" "$trampolines" Cargo.lock; } | sha256sum)
if [ "$(cat "$cache/state" 2> /dev/null)" = "$state" ]; then
    exit
fi
mkdir -p "$cache"
rm -f "$cache/state"

if [ "$(cat "$cache/packages" 2> /dev/null)" != "$packages" ]; then
    rm -rf "$cache/toolkit"
    # shellcheck disable=SC2086 # one word for each package
    python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --target "$cache/toolkit" $packages
    echo "$packages" > "$cache/packages"
fi
home=$cache/toolkit/nvidia/cu13
ln -sfn lib "$home/lib64"
# The package has no libcudart.so; what asks for it gets the static one.
echo 'INPUT(libcudart_static.a -lrt -ldl -lpthread)' > "$home/lib/libcudart.so"

# The functions of a CUDA library that the crate cudarc declares.
cudarc=$(cargo metadata --format-version 1 --locked --all-features |
    python3 -c 'import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc").removesuffix("/Cargo.toml"))')
functions() {
    awk '/extern "C" \{/ {
        getline
        name = $2
        sub(/\(.*/, "", name)
        print (/-> \*const ::core::ffi::c_char;/ ? "TEXT" : "STATUS") "(" name ")"
    }' "$cudarc/src/$1/sys/mod.rs" | sort -u
}
# lib$1.a stands for the library $3, whose module in cudarc is $2; without it, its functions return $4.
trampoline() {
    functions "$2" > "$cache/$1.h"
    cc -O2 -Wall -Werror -fPIC -c "$trampolines" -o "$cache/$1.o" \
        -DLIBRARY="\"$3\"" -DFUNCTIONS="\"$cache/$1.h\"" -DABSENT="$4"
    rm -f "$home/lib/lib$1.a"
    ar rcs "$home/lib/lib$1.a" "$cache/$1.o"
}
trampoline cuda driver libcuda.so.1 100 # CUDA_ERROR_NO_DEVICE
trampoline cublas cublas libcublas.so.13 1 # CUBLAS_STATUS_NOT_INITIALIZED
trampoline cublasLt cublaslt libcublasLt.so.13 1
trampoline curand curand libcurand.so.10 203 # CURAND_STATUS_INITIALIZATION_FAILED
trampoline nvrtc nvrtc libnvrtc.so.13 11 # NVRTC_ERROR_INTERNAL_ERROR

# nvcc, but what would be machine code for one kind of GPU stays PTX, which the driver compiles for any later kind. It is what candle's
# build script asks of its quantised products, which Pyrex does not use: a third of the bytes.
cat > "$home/bin/nvcc-ptx" << END
#!/bin/sh
for argument; do
    shift
    case \$argument in
    -gencode=arch=*,code=sm_*) argument=\${argument%sm_*}compute_\${argument##*sm_} ;;
    esac
    set -- "\$@" "\$argument"
done
exec '$home/bin/nvcc' "\$@"
END
chmod +x "$home/bin/nvcc-ptx"

# Whatever builds with CUDA reads this: another value of one of them builds candle anew. PTX for 8.0 runs from Ampere on; candle's would
# be for 9.0a at 90, and for no other GPU.
cat > "$cache/env" << END
export CUDA_HOME='$home'
export NVCC="\$CUDA_HOME/bin/nvcc-ptx"
export PATH="\$CUDA_HOME/bin:\$PATH"
export CUDA_COMPUTE_CAP=80
export CUDAFORGE_THREADS=$(nproc)
export CUDARC_CUDA_VERSION=13000
END
echo "$state" > "$cache/state"
