#!/usr/bin/env bash
# Compiles pyrex-kernels/src/*.cu to the PTX beside them; needs what `make setup-cuda` installs. With names, only those.
#
# What is written depends on the sources and the compiler's version alone: no path and no date, and zeros for the number of the path that
# nvcc puts into names of anonymous namespaces. The first line holds the digest of the sources, by which a test without a compiler sees
# that a file is older than they are.
set -euo pipefail
cd "$(dirname "$0")/../pyrex-kernels/src"
[ -n "${NVCC:-}${CUDA_HOME:-}" ] || . ../../.cache/cuda/env

# A file and the headers that it includes, and that they do.
with_headers() {
    echo "$1"
    local header
    for header in $(sed -n 's/^#include "\(.*\)"$/\1/p' "$1"); do with_headers "$header"; done
}

nvcc="${NVCC:-${CUDA_HOME:+$CUDA_HOME/bin/}nvcc}"
for name in "${@:-*.cu}"; do
    for source in ${name%.cu}.cu; do
        digest="$(cat $(with_headers "$source" | LC_ALL=C sort -u) | sha256sum | cut -c1-64)"
        target="${source%.cu}.ptx"
        "$nvcc" -ptx -arch=compute_80 -O3 -std=c++17 -Werror all-warnings "$source" -o "$target.new"
        {
            echo "// $source and its headers: $digest"
            grep -v '^// Compiler Build ID\|^// Cuda compilation tools' "$target.new" |
                sed -E 's/(_INTERNAL_|_GLOBAL__N__)[0-9a-f]{8}_/\100000000_/g'
        } > "$target"
        rm "$target.new"
        echo "$target"
    done
done
