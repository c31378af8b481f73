#!/bin/sh
# Looks at the pages of the report in a browser without a screen, as wide as a phone and as a desk.
# Installs one with apt-get if there is none and it may; with --install that is all.
set -eu
cd "$(dirname "$0")/.."
found=
for browser in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$browser" > /dev/null; then
        found=$browser
        break
    fi
done
if [ -z "$found" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "no browser: install chromium-headless-shell or chromium (Debian: apt-get install chromium)" >&2
        exit 1
    fi
    apt-get update
    apt-get install --yes --no-install-recommends chromium-headless-shell fonts-dejavu-core ||
        apt-get install --yes --no-install-recommends chromium fonts-dejavu-core
fi
[ "${1:-}" != --install ] || exit 0
# As `make test` builds it, so that nothing is built twice.
exec cargo test --release --workspace --features pyrex-tests/browser --test browser -- --nocapture
