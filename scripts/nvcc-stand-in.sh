#!/bin/sh
# Answers as nvcc does, and leaves an empty file where nvcc would leave what it compiled: enough to check the Rust code around
# kernels that will not run. scripts/check-cuda.sh uses it.
set -eu
folder=
while [ $# != 0 ]; do
    case $1 in
    --version) printf 'nvcc: a stand-in\n\n\nCuda compilation tools, release 13.0, V13.0.0\n' ;;
    --output-directory)
        folder=$2
        shift
        ;;
    -o)
        : > "$2"
        shift
        ;;
    *.cu) [ -z "$folder" ] || : > "$folder/$(basename "$1" .cu).ptx" ;;
    esac
    shift
done
