#!/bin/sh
# Tells docs/bisecting.md anew: a dump of the reference (needs Python, see reference/README.md), what the tool says about three
# planted faults, and pictures of its pages (needs Chromium).
set -eu
cd "$(dirname "$0")/.."
folder=.cache/story
mkdir -p "$folder" docs/bisecting
${PYTHON:-python3} reference/dump.py --model models/shapes --image red_circle.png --image-root models/shapes/examples \
    --noise --out "$folder/red_circle.safetensors"
cargo test --release --workspace --features pyrex-tests/story --test story
