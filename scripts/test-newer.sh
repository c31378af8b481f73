#!/bin/sh
# The Elixir package on the Elixir and OTP of Debian trixie, 1.18 and 27, beside whatever is installed here: in a root of its own,
# target/trixie, which takes two minutes to make, with the NIF that was built here, or PYREX_NIF_PATH. With every slow test.
# Needs root.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "test-newer makes a Debian root and runs in it: it must be root on Debian" >&2
    exit 1
fi
target=${CARGO_TARGET_DIR:-$PWD/target}
root=$target/trixie
if ! [ -x "$root/usr/bin/mix" ]; then
    command -v debootstrap > /dev/null || apt-get install --yes --no-install-recommends debootstrap
    rm -rf "$root"
    debootstrap --variant=minbase trixie "$root"
    # procps for kill(1), which tests end nodes with.
    chroot "$root" apt-get install --yes --no-install-recommends elixir procps
fi
if [ -z "${PYREX_NIF_PATH:-}" ]; then
    cargo build --release --workspace --lib --tests --features pyrex-nif/test-util
    PYREX_NIF_PATH=$target/release/libpyrex_nif.so
fi
# Copied, not mounted: who removes target/ removes no more than that.
rm -rf "$root/pyrex"
mkdir -p "$root/pyrex/elixir"
cp -R models "$root/pyrex"
(cd elixir && cp -R .formatter.exs mix.exs README.md lib test examples "$root/pyrex/elixir")
cp "$PYREX_NIF_PATH" "$root/pyrex/libpyrex_nif.so"
# A test compares with the command line, if it is there.
mkdir -p "$root/pyrex/target/release"
! [ -x "$target/release/pyrex" ] || cp "$target/release/pyrex" "$root/pyrex/target/release/pyrex"
# The mount is gone when this ends, however it ends.
exec unshare --mount sh -euc '
    mount -t proc proc "$0/proc"
    exec chroot "$0" env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 MIX_ENV=test \
        PYREX_SLOW=1 PYREX_NIF_PATH=/pyrex/libpyrex_nif.so sh -euc "
        cd /pyrex/elixir
        elixir --version
        mix compile --warnings-as-errors
        exec mix test \"\$@\"" sh "$@"' "$root" "$@"
