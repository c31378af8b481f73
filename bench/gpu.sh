#!/usr/bin/env bash
# Everything that needs a GPU, in at most eight minutes: tests, what the machine can do, Pyrex, transformers; then one table.
#   bench/gpu.sh [--only tests,bench,peer,sanitizer] [--device cuda|cpu] [--small] [--out DIR] [--python PYTHON]
#
# Runs what bench/pack.sh built, so the machine needs a driver, the libraries that docs/cuda.md names (those of a Python with
# torch are found), and that Python for the peer; no Rust, no toolkit, no network. A part that fails or takes too long is told
# of under the table and loses no other. --small with --device cpu tries all of the script on a machine without a GPU.
# In DIR (bench/out) stay gpu.json, what each part printed, and its log. A newer transformers than the machine's may lie as
# wheels, with what it needs, in bench/wheels.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD only=tests,bench,peer,sanitizer device=cuda small= out=$PWD/bench/out python=python3
while [ $# != 0 ]; do
    case $1 in
    --only) only=$2 && shift ;;
    --device) device=$2 && shift ;;
    --small) small=yes ;;
    --out) out=$(realpath -m "$2") && shift ;;
    --python) python=$2 && shift ;;
    *) sed -n '3p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
mkdir -p "$out"
rm -f "$out"/*.jsonl "$out"/*.out "$out"/*.log "$out/gpu.json"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
deadline=$((SECONDS + 465))
wants() { [[ ,$only, == *,$1,* ]]; }

# Runs a command for at most so many seconds, and no longer than all of this may: part NAME SECONDS COMMAND...
part() {
    local name=$1 limit=$2 left=$((deadline - SECONDS)) start=$SECONDS status
    shift 2
    timeout -k 5 "$((left < limit ? (left > 1 ? left : 1) : limit))" "$@" > "$out/$name.out" 2> "$out/$name.log"
    status=$?
    printf '{"name": "%s", "status": %d, "seconds": %d}\n' "$name" "$status" "$((SECONDS - start))" >> "$out/parts.jsonl"
    printf '%4d s  %-24s %s\n' "$SECONDS" "$name" "$([ "$status" = 0 ] && echo done || echo "failed with $status")"
    return "$status"
}

part unpack 60 "$python" -m tarfile -e bench/bin/pyrex.tar.xz "$work" || exit 1
for wheel in bench/wheels/*.whl; do
    [ -e "$wheel" ] && "$python" -m zipfile -e "$wheel" "$work/wheels"
done
export PYTHONPATH=$work/wheels${PYTHONPATH:+:$PYTHONPATH}
# The libraries beside torch, where the loader does not look.
libraries=$("$python" -c 'import glob, sys
print(":".join(sorted(folder for path in sys.path for folder in glob.glob(path + "/nvidia/cu13/lib"))))')
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# The driver's, where containers mount it, should the loader not look there either.
[ -e /usr/local/nvidia/lib64/libcuda.so.1 ] && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/usr/local/nvidia/lib64
# What the driver compiles is kept for the next process, even where nobody may write to a home.
export CUDA_CACHE_PATH=$work/compiled CUDA_CACHE_MAXSIZE=$((4 << 30))

config=reference/configs/e2b.json
contexts=128,4096,32768 prefill=2048 requests=32 tokens=128
if [ -n "$small" ]; then
    config=tests/golden/e2b-like/model/config.json
    contexts=16,48,96 prefill=64 requests=2 tokens=8
fi
IFS=, read -r short middle long <<< "$contexts"

# A binary of tests, or that under a tool: test_binary NAME SECONDS COMMAND...
test_binary() {
    local name=$1 status counts
    part "$@"
    status=$?
    counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/"passed": \1, "failed": \2/p' "$out/$name.out")
    printf '{"name": "%s", "status": %d, %s}\n' "$name" "$status" "${counts:-"\"passed\": 0, \"failed\": 0"}" >> "$out/tests.jsonl"
}
# Where the tests' crates lie, Cargo says at run time; here nobody else would.
tests() { CARGO_MANIFEST_DIR=$root/tests test_binary "$@"; }
kernels() { CARGO_MANIFEST_DIR=$root/pyrex-kernels test_binary "$@"; }
export PYREX_TEST_DEVICE=$device

bench() {
    local name=pyrex_$1
    shift
    part "$name" 45 "$work/pyrex" bench --model "$config" --load-format dummy --device "$device" --json "$@"
}
peer() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$python" reference/gpu_bench.py "$config" --device "$device" --contexts "$contexts" \
        --prefill "$prefill" --batch "$requests" --max-tokens "$tokens" --repeat 2 --only "$@"
}

if wants tests; then
    # Should they hang, there is time left to measure.
    end=$deadline deadline=$((SECONDS + 200))
    for binary in "$work"/tests/*; do tests "test_$(basename "$binary")" 60 "$binary"; done
    for binary in "$work"/kernels/*; do kernels "kernels_$(basename "$binary")" 60 "$binary"; done
    deadline=$end
fi
peer ceilings 40 ceilings
if wants bench; then
    bench decode_short --prompt-tokens "$short" --max-tokens "$tokens"
    bench decode_middle --prompt-tokens "$middle" --max-tokens "$tokens"
    bench decode_long --prompt-tokens "$long" --max-tokens "$tokens"
    bench batch --requests "$requests" --prompt-tokens "$short" --max-tokens "$tokens"
    bench prefill --prompt-tokens "$prefill" --max-tokens 2
    # 280 soft tokens exactly, and a few words.
    for dtype in bf16 f32; do
        bench "vision_$dtype" --image 960x672 --prompt-tokens 300 --max-tokens 2 --vision-dtype "$dtype"
    done
    part profile 45 "$work/pyrex" profile --model "$config" --load-format dummy --device "$device" --prompt-tokens "$short"
fi
if wants peer; then
    peer transformers 120 decode,prefill,batch,vision
    peer compiled 150 compiled,compiled_batch
fi
sanitizer=$work/wheels/nvidia/cu13/bin/compute-sanitizer
if wants sanitizer && [ "$device" = cuda ] && [ -e "$sanitizer" ]; then
    chmod +x "$sanitizer" "$work"/wheels/nvidia/cu13/lib/*
    for tool in memcheck racecheck; do
        # Some tests mean a call to be refused, which is no fault of theirs.
        check=("$sanitizer" --tool "$tool" --report-api-errors no --error-exitcode 9)
        kernels "${tool}_kernels" 40 "${check[@]}" "$work/kernels/cuda" --test-threads 1
        tests "${tool}_device" 60 "${check[@]}" "$work/tests/device" --test-threads 1
    done
fi

"$python" reference/gpu_table.py "$out" "$config" | tee "$out/table.txt"
