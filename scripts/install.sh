#!/bin/sh
# Installs libpyrex for C and C++: libraries, headers, and what pkg-config and CMake need to find them.
#   scripts/install.sh [--libraries DIR] PREFIX
# Builds the libraries unless it is told where they lie. The prefix may be moved afterwards. Linux, with GNU binutils.
set -eu
libraries=
if [ "${1:-}" = --libraries ]; then
    libraries=$2
    shift 2
fi
if [ $# != 1 ] || [ -z "$1" ]; then
    echo "usage: scripts/install.sh [--libraries DIR] PREFIX" >&2
    exit 2
fi
prefix=$1
root=$(cd "$(dirname "$0")/.." && pwd)
if [ "$(uname -s)" != Linux ]; then
    echo "only Linux so far, found $(uname -s): build pyrex-capi with cargo and take include/pyrex.h" >&2
    exit 1
fi
if [ -z "$libraries" ]; then
    (cd "$root" && cargo build --release --package pyrex-capi)
    libraries=${CARGO_TARGET_DIR:-$root/target}/release
fi

header=$root/include/pyrex.h
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
abi_version=$(sed -n 's/^#define PYREX_ABI_VERSION \([0-9]*\)$/\1/p' "$header")
functions=$(sed -n 's/^[a-z].*[ *]\(pyrex_[a-z0-9_]*\)(.*/\1/p' "$header")
# What `rustc --print native-static-libs` names, but what every C compiler adds by itself.
system_libraries='-lutil -lrt -lpthread -lm -ldl'

install -d "$prefix/include" "$prefix/lib/pkgconfig" "$prefix/lib/cmake/pyrex"
install -m 644 "$header" "$root/include/pyrex.hpp" "$prefix/include"

# Without debug information, but with the symbols that a backtrace names.
shared=$prefix/lib/libpyrex.so.$abi_version
objcopy --strip-debug "$libraries/libpyrex.so" "$shared"
chmod 755 "$shared"
ln -sf "libpyrex.so.$abi_version" "$prefix/lib/libpyrex.so"
# shellcheck disable=SC2086 # one word for each function
"$root/scripts/one-object.sh" "$libraries/libpyrex.a" "$prefix/lib/libpyrex.a" $functions
chmod 644 "$prefix/lib/libpyrex.a"

fill() {
    sed -e "s/@VERSION@/$version/" -e "s/@ABI_VERSION@/$abi_version/" -e "s/@SYSTEM_LIBRARIES@/$system_libraries/" \
        "$root/packaging/$1.in" > "$2/$1"
    chmod 644 "$2/$1"
}
fill pyrex.pc "$prefix/lib/pkgconfig"
fill pyrex-static.pc "$prefix/lib/pkgconfig"
fill pyrexConfig.cmake "$prefix/lib/cmake/pyrex"
fill pyrexConfigVersion.cmake "$prefix/lib/cmake/pyrex"
ls -l "$shared" "$prefix/lib/libpyrex.a"
