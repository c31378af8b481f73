#!/bin/sh
# Makes a Rust static library fit to be linked with others: one object, in which only the named symbols can be seen.
#   scripts/one-object.sh IN.a OUT.a SYMBOL...
# As rustc writes it, the archive shows every function of its crates and of Rust's own library. Two such archives in one program share
# what has the same name if they are of one version of Rust, and clash in rust_eh_personality if they are of two. GNU binutils
# help: a partial link of what the symbols reach, then all other symbols become local.
set -eu
from=$1 to=$2
shift 2
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
printf '%s\n' "$@" > "$folder/symbols"
sed 's/^/--undefined=/' "$folder/symbols" > "$folder/roots"
# Groups are dissolved: one that kept its name could be taken for the same group of another Rust library.
"$(command -v ld.bfd || echo ld)" -r --gc-sections --force-group-allocation --strip-debug --discard-locals \
    -T "$(dirname "$0")/../packaging/sections.ld" "@$folder/roots" -o "$folder/pyrex.o" "$from"
objcopy --keep-global-symbols="$folder/symbols" "$folder/pyrex.o"
rm -f "$to"
ar rcs "$to" "$folder/pyrex.o"
