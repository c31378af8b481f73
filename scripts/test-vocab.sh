#!/bin/sh
# Tests the tokenizer and two chat templates with Gemma 4's real vocabulary and llama.cpp's own vectors.
# `test-vocab.sh fetch` only fetches. The source package of llama-cpp-python carries them; it is fetched into .cache/vocab once and never committed.
set -eu
cd "$(dirname "$0")/.."
version=0.3.36
folder=.cache/vocab
archive="$folder/llama_cpp_python-$version.tar.gz"
models="llama_cpp_python-$version/vendor/llama.cpp/models"
mkdir -p "$folder"
if [ ! -f "$archive" ]; then
    # `:all:` would build the build tools themselves from source, so only this one package is asked for as source.
    ${PYTHON:-python3} -m pip download --no-deps --no-binary llama-cpp-python --dest "$folder" "llama-cpp-python==$version"
fi
for file in ggml-vocab-gemma-4.gguf ggml-vocab-gemma-4.gguf.inp ggml-vocab-gemma-4.gguf.out templates/google-gemma-4-31B-it.jinja; do
    tar --extract --gzip --to-stdout --file "$archive" "$models/$file" > "$folder/$(basename "$file").part"
    mv "$folder/$(basename "$file").part" "$folder/$(basename "$file")"
done
if [ "${1:-}" = fetch ]; then
    exit
fi
exec cargo test --release --package pyrex-tests --features vocab --test vocab
