#!/bin/sh
# The Elixir package on the Elixir and OTP of Debian trixie, 1.18 and 27, beside whatever is installed here: a root of its own in
# target/trixie, two minutes when it is first made, and the NIF that was built here. With every slow test. Needs root.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "test-newer makes a Debian root and mounts into it: run it as root on Debian" >&2
    exit 1
fi
target=${CARGO_TARGET_DIR:-$PWD/target}
root=$target/trixie
if ! [ -x "$root/usr/bin/mix" ]; then
    command -v debootstrap > /dev/null || apt-get install --yes --no-install-recommends debootstrap
    # What a try that broke off left has nothing mounted: that comes after this.
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase trixie "$root"
    # procps for kill(1), which tests end nodes with.
    chroot "$root" apt-get install --yes --no-install-recommends elixir procps
fi
cargo build --release --workspace --lib --tests --features pyrex-nif/test-util
unmount() {
    for folder in pyrex proc; do
        ! mountpoint --quiet "$root/$folder" || umount "$root/$folder"
    done
}
trap unmount EXIT
unmount
mkdir -p "$root/pyrex"
mount -t proc proc "$root/proc"
mount --bind "$PWD" "$root/pyrex"
cp "$target/release/libpyrex_nif.so" "$root/libpyrex_nif.so"
chroot "$root" env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 PYREX_SLOW=1 PYREX_NIF_PATH=/libpyrex_nif.so \
    MIX_BUILD_PATH=/build MIX_ENV=test sh -euc '
    cd /pyrex/elixir
    elixir --version
    mix compile --warnings-as-errors
    mix test'
