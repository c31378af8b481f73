#!/bin/sh
# Runs every fuzz target, or those named, for FUZZ_SECONDS each (60 unless set); `fuzz.sh seed` only writes the seeds.
# A finding ends it with the command that repeats it; the input lies in fuzz/artifacts.
#
# No sanitizer: the core's code is safe Rust, so what goes wrong panics, and with debug assertions, checked arithmetic and a
# heap that ends at a GiB (fuzz/src/lib.rs) it does so at once; the address sanitizer halves the runs per second.
# SANITIZER=address looks at the unsafe code of our dependencies instead.
set -eu
cd "$(dirname "$0")/.."
targets="checkpoint safetensors image prompt template openai capi"
seconds=${FUZZ_SECONDS:-60}
sanitizer=${SANITIZER:-none}

if ! cargo +nightly --version > /dev/null 2>&1; then
    echo "fuzzing needs Rust's nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo +nightly fuzz --version > /dev/null 2>&1; then
    echo "fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# Seeds are copies of what the repository has. A checkpoint and a chat begin with the bundled files themselves.
for target in $targets; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
done
cp tests/golden/prompt/formats/* tests/golden/prompt/images/* fuzz/seeds/image/
cp models/shapes/chat_template.jinja fuzz/seeds/template/
cp pyrex-openai/bodies/*.json fuzz/seeds/openai/
[ ! -d .cache/vocab ] || find .cache/vocab -name '*.jinja' -exec cp {} fuzz/seeds/template/ \;
# A whole file behind a zero, and one whose header's length the target makes (see its `read`).
for tensors in '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' \
    '{"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1,3],"data_offsets":[2,8]}}' \
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}'; do
    name="fuzz/seeds/safetensors/${#tensors}"
    printf "\\000\\$(printf %o ${#tensors})\\000\\000\\000\\000\\000\\000\\000%s01234567" "$tensors" > "$name.whole"
    printf "\\$(printf %o $((${#tensors} * 255 / (${#tensors} + 8) + 1)))%s01234567" "$tensors" > "$name.framed"
done
for letters in abcdefgh 0123456789abcdef; do
    for target in checkpoint prompt capi; do
        printf '%s%s%s%s' $letters $letters $letters $letters > "fuzz/seeds/$target/${#letters}"
    done
done
if [ "${1:-}" = seed ]; then
    exit
fi

for target in ${*:-$targets}; do
    case $target in
        template) options="-max_len=4096 -dict=fuzz/jinja.dict" ;;
        openai) options="-max_len=4096 -dict=fuzz/openai.dict" ;;
        image) options="-max_len=8192" ;;
        checkpoint) options="-max_len=256 -len_control=0" ;;
        *) options="-max_len=2048 -len_control=10" ;;
    esac
    echo "fuzz: $target for $seconds s"
    # One thread: the order of a pool's work is not the input's.
    # shellcheck disable=SC2086
    RAYON_NUM_THREADS=1 cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" \
        "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 -verbosity=0 $options
done
