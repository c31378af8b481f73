#!/bin/sh
# libpyrex with what a fresh machine may lack: clang's sanitizers, valgrind, CMake and pkg-config.
# Installs what is missing with apt-get if it may; with --install that is all.
set -eu
cd "$(dirname "$0")/.."
missing=
for tool in clang valgrind cmake pkg-config; do
    command -v "$tool" > /dev/null || missing="$missing $tool"
done
# clang's runtime of the sanitizers is a package of its own, named after the version.
has_runtime() {
    echo 'int main(void) { return 0; }' | clang -x c -fsanitize=address,undefined -o /dev/null - 2> /dev/null
}
install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "missing: $* (Debian: apt-get install $*)" >&2
        exit 1
    fi
    apt-get update
    apt-get install --yes --no-install-recommends "$@"
}
# shellcheck disable=SC2086 # one word for each package
[ -z "$missing" ] || install $missing
has_runtime || install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
[ "${1:-}" != --install ] || exit 0
# As `make test` builds it, so that nothing is built twice.
exec cargo test --release --workspace --features pyrex-tests/c-tools --test capi --test install --test header
