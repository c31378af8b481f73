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
for browser in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$browser" > /dev/null; then
        for page in norm_offset context_before_images; do
            "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1560 \
                --screenshot="docs/bisecting/$page.png" "file://$PWD/$folder/$page.html"
        done
        exit
    fi
done
echo "no browser: the pictures stay as they were" >&2
